"""Settings that only make sense with some studies: refused before anything starts, and without torch."""

from shared_model.config import Settings
from shared_model.errors import SettingsError
from shared_model.modalities.registry import open_modality
from shared_model.schema import Schema
from shared_model.shapley.coalitions import MAX_PLAYERS
from shared_model.shapley.strata import check_strata
from shared_model.training.newton_rules import refuse_wide_head, uses_newton


def check_settings(schema: Schema, settings: Settings) -> None:
    """Refuse settings that do not fit a study.

    Raises:
        SettingsError: they do not fit.
    """
    chosen = settings.chosen_modalities(schema)
    if len(chosen) > MAX_PLAYERS and settings.explain != "none":
        raise SettingsError(
            f"modalities: expected at most {MAX_PLAYERS}, of which all coalitions can be enumerated for the "
            f"explanation, got {len(chosen)} ({', '.join(chosen)}). Choose some with modalities=A,B,..., or set "
            "explain=none."
        )
    has_images = any(name in schema.images for name in chosen)
    if settings.local_norm and not has_images:
        raise SettingsError("local-norm: expected a study with images (FedBN concerns BatchNorm), got none.")
    if settings.local_norm and settings.image_training == "fixed":
        raise SettingsError(
            "local-norm: expected image-training=trained (FedBN is for layers that train), got fixed. Set both."
        )
    if uses_newton(settings, "fusion") and settings.head_widths and not settings.rounds_joint:
        raise SettingsError(
            "head: expected rounds-joint of 1 or more with strategy=newton, in whose steps a perceptron stays at "
            f"zero, got {settings.head!r} with rounds-joint=0. Set rounds-joint=5, or strategy=fedavg."
        )
    if uses_newton(settings, "fusion") and settings.rounds_fusion:
        refuse_wide_head(sum(open_modality(name, schema).width(settings) for name in chosen))
    check_strata(schema, settings)
    if settings.image_weights and not has_images:
        raise SettingsError("image-weights: expected a study with images, got none.")


def refuse_simulations_only(settings: Settings) -> None:
    """A study of real hospitals has no setting that they would refuse.

    Raises:
        SettingsError: it has.
    """
    if settings.secure_sum:
        raise SettingsError(
            "secure-sum: expected false in a deployment, where the list of hospitals' keys would be the coordinator's "
            "alone, got true. Try it in a simulation."
        )
