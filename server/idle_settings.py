"""Settings that would do nothing beside the others: refused at the start, for a study that believes in them is misled.

What acts is derived from the run's plan: which phases have rounds, what trains in them, and how. A default is never
refused, and neither is a run that goes on: its settings are those it began with.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from shared_model.config import IMAGE_ENCODERS, STRATEGIES, Phase, Settings, parse_settings
from shared_model.errors import SettingsError
from shared_model.model.fusion import MultimodalModel, empty_model
from shared_model.quality.checks import accepted_names
from shared_model.schema import Schema
from shared_model.training.newton_rules import uses_newton

_ADAPTIVE = ("fedadam", "fedyogi")


@dataclass(frozen=True)
class _Need:
    """What settings need to act.

    Attributes:
        keys: of the settings.
        is_met: whether it is there.
        expected: what it is.
        got: what is there instead.
        remedy: how to have it.
    """

    keys: tuple[str, ...]
    is_met: bool
    expected: str
    got: str
    remedy: str


def refuse_idle_settings(schema: Schema, settings: Settings) -> None:
    """No setting that differs from its default would leave the run as it is without it.

    Raises:
        SettingsError: some would; the message lists all of them.
    """
    if faults := idle_settings(schema, settings):
        raise SettingsError("\n".join(faults.values()))


def refuse_unknown_names(settings: Settings, hospitals: Collection[str]) -> None:
    """Who is accepted although its data are red is a hospital of the study.

    Raises:
        SettingsError: there is none of this name.
    """
    unknown = sorted(accepted_names(settings) - set(hospitals))
    if unknown:
        raise SettingsError(
            f"accept-red: expected names of hospitals ({', '.join(sorted(hospitals))}), got {', '.join(unknown)}. "
            "Check the spelling."
        )


def idle_settings(schema: Schema, settings: Settings) -> dict[str, str]:
    """What is wrong with each setting that would do nothing, by key."""
    changed = _changed(settings)
    return {
        key: f"{key}: expected {need.expected}, got {need.got}: {key}={changed[key]} would do nothing. "
        f"{need.remedy}, or leave {key} out."
        for need in _needs(schema, settings)
        for key in need.keys
        if key in changed and not need.is_met
    }


def _changed(settings: Settings) -> dict[str, object]:
    """Settings that differ from their default."""
    default = parse_settings({}).to_config()
    return {key: value for key, value in settings.to_config().items() if value != default[key]}


def _needs(schema: Schema, settings: Settings) -> Iterator[_Need]:
    model = empty_model(schema, settings, device=torch.device("meta"))
    yield from _of_modalities(schema, settings, model)
    yield from _of_training(settings, model)
    yield from _of_strategies(settings)
    yield from _of_head(settings)
    yield from _of_rounds(settings, model)
    yield from _of_explanation(settings)
    yield _Need(
        ("colluding-hospitals",), settings.secure_sum, "secure-sum=true", "sums that the coordinator adds",
        "Set secure-sum=true",
    )  # fmt: skip


def _of_modalities(schema: Schema, settings: Settings, model: MultimodalModel) -> Iterator[_Need]:
    chosen = ",".join(model.modalities)
    of_images = (
        "image-encoder",
        "image-weights",
        "image-training",
        "image-embedding",
        "image-learning-rate",
        "image-skip",
    )
    for keys, kind, named in (
        (of_images, "images", schema.images),
        (("series-embedding", "series-summaries"), "series", schema.series),
    ):
        remedy = f"Add one with modalities={chosen},..." if named else f"Choose a study with {kind}"
        yield _Need(
            keys, bool(set(named) & set(model.modalities)), f"a modality of {kind}", f"modalities={chosen}", remedy
        )
    yield _Need(
        ("image-skip",), settings.image_encoder in IMAGE_ENCODERS, f"one of {', '.join(IMAGE_ENCODERS)}",
        f"image-encoder={settings.image_encoder}", "Set image-encoder=resnet18",
    )  # fmt: skip
    images_train = any(name.startswith(_prefixes(model)) for name in _trained_by_steps(settings, model))
    if not model.image_encoders():
        return
    phases = f"rounds-unimodal={settings.rounds_unimodal} and rounds-joint={settings.rounds_joint}"
    yield _Need(("image-training",), images_train, "a phase that trains encoders", phases, "Set rounds-joint=5")
    yield _Need(
        ("image-learning-rate",),
        images_train,
        "image-training=trained and a phase that trains encoders",
        f"image-training={settings.image_training}, {phases}",
        "Set image-training=trained and rounds-joint=5",
    )


def _of_training(settings: Settings, model: MultimodalModel) -> Iterator[_Need]:
    """Local steps by the gradient: all phases but that of Newton's steps have them."""
    trained = _trained_by_steps(settings, model)
    got = f"strategy={settings.strategy} and nothing that trains before or after its steps"
    remedy = "Set strategy=fedavg"
    steps = ("local-epochs", "batch-size", "learning-rate", "momentum", "max-gradient-norm", "aggregation")
    yield _Need(steps, bool(trained), "local steps by the gradient", got, remedy)
    encoders = [name for name in trained if name.startswith("encoders.")]
    yield _Need(
        ("weight-decay",),
        bool(encoders),
        "encoders that train",
        f"none that do in {_describe_phases(settings)}",
        "Set rounds-unimodal=5 or rounds-joint=5 and choose modalities whose encoders learn",
    )


def _of_strategies(settings: Settings) -> Iterator[_Need]:
    got = f"strategy={settings.strategy}"
    of_package = settings.strategy not in STRATEGIES  # which may use any of them
    yield _Need(("proximal-mu",), settings.strategy == "fedprox", "strategy=fedprox", got, "Set strategy=fedprox")
    yield _Need(
        ("server-learning-rate", "server-beta-1", "server-beta-2", "server-tau"),
        of_package or settings.strategy in _ADAPTIVE,
        "strategy=fedadam or fedyogi",
        got,
        "Set strategy=fedadam",
    )
    fitted = any(uses_newton(settings, phase) for phase in settings.phases)
    yield _Need(
        ("adapt-penalty",),
        fitted and settings.class_weight == "none",
        "Newton's steps and class-weight=none",
        f"{got}, fusion={settings.fusion}, local-head={str(settings.local_head).lower()}, "
        f"rounds-fusion={settings.rounds_fusion}, class-weight={settings.class_weight}",
        "Set strategy=newton with early fusion, one head and class-weight=none",
    )


def _of_head(settings: Settings) -> Iterator[_Need]:
    is_early = settings.fusion == "early"
    yield _Need(("head",), is_early, "fusion=early", f"fusion={settings.fusion}", "Set fusion=early")
    yield _Need(
        ("head-norm", "dropout"),
        is_early and bool(settings.head_widths),
        "a perceptron in the head",
        f"fusion={settings.fusion} and head={settings.head!r}",
        "Set head=32 (with strategy=newton also rounds-joint=5)",
    )


def _of_rounds(settings: Settings, model: MultimodalModel) -> Iterator[_Need]:
    most = max(settings.rounds(phase) for phase in settings.phases)
    default = parse_settings({}).patience
    yield _Need(
        ("patience",),
        min(settings.patience, default) <= most - 2,  # the last rounds of a phase end it anyway
        f"a phase of at least {min(settings.patience, default) + 2} rounds",
        f"{most} at most in {_describe_phases(settings)}",
        "Set more rounds",
    )
    yield _Need(
        ("rounds-unimodal",),
        not settings.rounds_unimodal or _is_useful("unimodal", model, settings),
        "fusion=late or an encoder that learns",
        f"fusion={settings.fusion} and modalities={','.join(model.modalities)}, whose encoders have nothing to learn",
        "Set rounds-unimodal=0",
    )


def _of_explanation(settings: Settings) -> Iterator[_Need]:
    yield _Need(
        ("explain-every", "background-rows", "strata"),
        settings.explain != "none",
        "explain=modalities or features",
        f"explain={settings.explain}",
        "Set explain=features",
    )
    total = sum(settings.rounds(phase) for phase in settings.phases)
    if settings.explain != "none":
        yield _Need(
            ("explain-every",),
            settings.explain_every <= total,
            f"at most the {total} rounds that there are",
            _describe_phases(settings),
            "Set fewer",
        )
    yield _Need(
        ("expected-sites",),
        settings.expected_sites >= settings.min_sites,
        f"at least min-sites={settings.min_sites}, which a run waits for anyway",
        f"expected-sites={settings.expected_sites}",
        "Set more",
    )


def _trained_by_steps(settings: Settings, model: MultimodalModel) -> set[str]:
    """What changes the model by local steps, in phases that have rounds."""
    phases = [p for p in settings.phases if not uses_newton(settings, p) and _is_useful(p, model, settings)]
    return {name for phase in phases for name in model.trained_in(phase)}


def _is_useful(phase: Phase, model: MultimodalModel, settings: Settings) -> bool:
    """True if a phase changes what the fusion sees; unimodal heads do so in late fusion only."""
    of_encoders = any(name.startswith("encoders.") for name in model.trained_in("unimodal"))
    return phase != "unimodal" or settings.fusion == "late" or of_encoders


def _prefixes(model: MultimodalModel) -> tuple[str, ...]:
    return tuple(f"encoders.{name}." for name in model.image_encoders())


def _describe_phases(settings: Settings) -> str:
    return ", ".join(f"rounds-{phase}={settings.rounds(phase)}" for phase in settings.phases)
