"""Quantities of the reply to a train question: the allow-list of the hospital's gate and of the reducer."""

from __future__ import annotations

from shared_model.config import Phase, Settings
from shared_model.protocol.quantities import Quantities
from shared_model.schema import Schema
from shared_model.training.newton import HEAD_WEIGHT, newton_quantities
from shared_model.training.newton_rules import uses_newton
from shared_model.training.scaffold import control_quantities
from shared_model.training.updates import Weights, round_quantities


def reply_quantities(weights: Weights, settings: Settings, *, phase: Phase, schema: Schema) -> Quantities:
    """The arrays of a train reply.

    Args:
        weights: what travels in the phase.
        settings: of the run.
        phase: what trains.
        schema: the study.

    Raises:
        SettingsError: a Newton step of a head that is too wide.
    """
    counted = settings.counted_modalities(schema)
    if uses_newton(settings, phase):
        return {**newton_quantities(weights[HEAD_WEIGHT].shape[1]), **round_quantities({}, counted=counted)}
    quantities = dict(round_quantities(weights, counted=counted))
    if settings.strategy == "scaffold":
        quantities |= control_quantities(weights)
    return quantities
