"""What the reply to a train question may hold: the allow-list of the hospital's gate and of the reducer."""

from __future__ import annotations

from shared_model.config import Settings
from shared_model.quantities import Quantities
from shared_model.scaffold import control_quantities
from shared_model.schema import Schema
from shared_model.updates import Weights, round_quantities


def reply_quantities(weights: Weights, settings: Settings, *, schema: Schema) -> Quantities:
    """The arrays of a train reply.

    Args:
        weights: what travels in the phase.
        settings: of the run.
        schema: the study.
    """
    quantities = dict(round_quantities(weights, counted=settings.counted_modalities(schema)))
    if settings.strategy == "scaffold":
        quantities |= control_quantities(weights)
    return quantities
