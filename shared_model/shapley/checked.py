"""Exact Shapley values that were compared with the model's own predictions before anybody sees them."""

import numpy as np
import torch
from jaxtyping import Float64

from shared_model.config import Phase
from shared_model.model.fusion import MultimodalModel
from shared_model.shapley.exact import ModalityValues, check_additivity, explain_modalities
from shared_model.shapley.game import Background, FusionGame, Rows
from shared_model.training.epochs import Encoded, predict_logits


def explain_checked(
    game: FusionGame,
    model: MultimodalModel,
    encoded: Encoded,
    background: Background,
    *,
    phase: Phase,
    correction: float,
) -> tuple[ModalityValues, Float64[np.ndarray, "patient"]]:
    """Exact values of every modality, and each patient's additivity error.

    Args:
        game: of the model's fusion.
        model: whose predictions they must add up to.
        encoded: the patients.
        background: against whom.
        phase: which prediction counts.
        correction: added to every logit so that probabilities are calibrated.

    Raises:
        StudyError: values do not add up to the model's predictions.
    """
    values = explain_modalities(game, Rows(encoded.embeddings, encoded.present), background, correction=correction)
    logit = predict_logits(model, encoded, phase=phase, correction=correction)
    with torch.no_grad():
        base = model.eval().fuse(background.rows.embeddings, background.rows.present).double().mean()
    return values, check_additivity(values, logit=logit, base_logit=float(base) + correction)
