"""Packages that a study rests on beside hipfed: of one version everywhere, or different things would be added."""

from shared_model import extensions
from shared_model.config import IMAGE_ENCODERS, STRATEGIES, Settings
from shared_model.schema import KINDS, Schema


def used_extensions(schema: Schema, settings: Settings) -> dict[str, str]:
    """Package and version by what it adds to the study; empty where hipfed has all of it.

    Raises:
        ExtensionError: a package is not installed, or two have one name.
    """
    kinds = schema.kinds
    chosen = {kinds[name] for name in settings.chosen_modalities(schema)}
    used = [(extensions.MODALITIES, kind) for kind in sorted(chosen - set(KINDS))]
    if settings.image_encoder not in IMAGE_ENCODERS and "images" in chosen:
        used.append((extensions.IMAGE_ENCODERS, settings.image_encoder))
    if settings.strategy not in STRATEGIES:
        used.append((extensions.STRATEGIES, settings.strategy))
    return {f"{group.removeprefix('hipfed.')} {name}": extensions.package_of(group, name) for group, name in used}
