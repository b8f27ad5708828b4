"""Image encoders in words: a network with random weights that nobody trained is called that wherever it is named."""

from collections.abc import Iterable, Mapping

_NAMES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}


def is_untrained(settings: Mapping[str, object]) -> bool:
    """True if image encoders have random weights that stay as they are.

    Args:
        settings: of a run, by their names on the command line; one that an older run lacks has its default.
    """
    return not settings.get("image-weights") and settings.get("image-training", "fixed") == "fixed"


def used_images(settings: Mapping[str, object], images: Iterable[str]) -> list[str]:
    """Of a study's images those that a run uses.

    >>> used_images({"modalities": "static, hip"}, ["hip", "chest"]), used_images({}, ["hip", "chest"])
    (['hip'], ['hip', 'chest'])
    """
    chosen = [name.strip() for name in str(settings.get("modalities", "")).split(",") if name.strip()]
    return [name for name in images if not chosen or name in chosen]


def describe_encoder(settings: Mapping[str, object]) -> str:
    """The image encoder in a phrase: the network, where its weights come from, and what of its output is used.

    >>> describe_encoder({"image-encoder": "resnet18", "image-embedding": 16})
    'ResNet-18 with random weights, never trained; 16 principal components of its output'
    >>> describe_encoder({"image-encoder": "resnet50", "image-weights": "r.pt", "image-training": "trained"})
    'ResNet-50, trained here from given weights'
    """
    encoder = str(settings.get("image-encoder", "resnet18"))
    name = _NAMES.get(encoder, encoder)
    has_weights = bool(settings.get("image-weights"))
    if settings.get("image-training", "fixed") == "trained":
        return f"{name}, trained here from {'given' if has_weights else 'random'} weights"
    origin = "with given weights, not trained here" if has_weights else "with random weights, never trained"
    return f"{name} {origin}; {settings.get('image-embedding', 16)} principal components of its output"
