"""Exact Shapley values of the modalities, by enumeration of all coalitions on cached embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from shared_model.errors import StudyError
from shared_model.fusion import Present
from shared_model.shapley.coalitions import coalition_members, interaction_matrix, shapley_matrix
from shared_model.shapley.game import Background, FusionGame, Rows

ADDITIVITY_TOLERANCE = 1e-5
_CHUNK = 2**20  # numbers in the largest intermediate array: 8 MB


@dataclass(frozen=True)
class ModalityValues:
    """Exact values of some patients against one background; modalities in the model's order.

    Attributes:
        modalities: names.
        phi: Shapley values on the logit; a row sums to `logit - base_logit`.
        phi_probability: Shapley values on the probability (the mean over backgrounds of the sigmoid).
        logit: of each patient, `correction` added.
        base_logit: mean over the background, `correction` added.
        probability: of each patient.
        base_probability: mean over the background.
        alone: v({m}) - v(nobody), logit.
        left_out: v(all) - v(all but m), logit.
        interactions: pairwise Shapley interaction index, logit; symmetric, zero on the diagonal.
        se_background: standard error of phi from the finite background: sd over rows / sqrt(rows).
        present: whether the patient has the modality; where not, phi is the effect of lacking it.
        background_id: of the background.
    """

    modalities: tuple[str, ...]
    phi: Float64[np.ndarray, "patient modality"]
    phi_probability: Float64[np.ndarray, "patient modality"]
    logit: Float64[np.ndarray, "patient"]
    base_logit: float
    probability: Float64[np.ndarray, "patient"]
    base_probability: float
    alone: Float64[np.ndarray, "patient modality"]
    left_out: Float64[np.ndarray, "patient modality"]
    interactions: Float64[np.ndarray, "patient modality modality"]
    se_background: Float64[np.ndarray, "patient modality"]
    present: Bool[np.ndarray, "patient modality"]
    background_id: str

    def __len__(self) -> int:
        return len(self.logit)


@torch.no_grad()
def explain_modalities(
    game: FusionGame, patients: Rows, background: Background, *, correction: float = 0.0
) -> ModalityValues:
    """Exact Shapley values of every modality for every patient.

    Memory does not grow with patients or background rows: both are taken in chunks.

    Args:
        game: the model's fusion.
        patients: who is explained.
        background: against whom.
        correction: added to every logit so that probabilities are calibrated (`losses.logit_correction`).

    Raises:
        StudyError: an embedding is not finite, or patients or background are empty.
    """
    if not len(patients) or not len(background.rows):
        raise StudyError("explanation: expected patients and background rows, got none of one.")
    own, reference = game.contributions(patients), game.contributions(background.rows)
    n, n_players = own.shape[0], own.shape[1]
    v_logit, v_probability, square = (own.new_zeros(n, size) for size in (2**n_players, 2**n_players, n_players))
    phi_of = torch.from_numpy(shapley_matrix(n_players)).to(own)
    for rows, values in _coalition_values(game, own, reference):
        v_logit[rows] += values.sum(dim=2)
        v_probability[rows] += torch.sigmoid(values + correction).sum(dim=2)
        square[rows] += torch.einsum("mc,pcb->pmb", phi_of, values).square().sum(dim=2)
    n_background = len(background.rows)
    v_logit, v_probability = v_logit / n_background, v_probability / n_background
    phi = v_logit @ phi_of.T
    variance = (square / n_background - phi.square()).clamp(min=0.0) * n_background / max(n_background - 1, 1)
    present = _stack(patients.present, game.modalities)
    # Absent here and in all of the background: the two sums of such a pair differ by rounding only.
    dummy = ~present & ~_stack(background.rows.present, game.modalities).any(dim=0)
    dummy_pair = dummy.unsqueeze(1) | dummy.unsqueeze(2)
    single = 2 ** torch.arange(n_players)
    return ModalityValues(
        modalities=game.modalities,
        phi=_numpy(phi.masked_fill(dummy, 0.0)),
        phi_probability=_numpy((v_probability @ phi_of.T).masked_fill(dummy, 0.0)),
        logit=_numpy(v_logit[:, -1] + correction),
        base_logit=float(v_logit[0, 0]) + correction,
        probability=_numpy(v_probability[:, -1]),
        base_probability=float(v_probability[0, 0]),
        alone=_numpy((v_logit[:, single] - v_logit[:, :1]).masked_fill(dummy, 0.0)),
        left_out=_numpy((v_logit[:, -1:] - v_logit[:, 2**n_players - 1 - single]).masked_fill(dummy, 0.0)),
        interactions=_numpy(
            torch.einsum("ijc,pc->pij", torch.from_numpy(interaction_matrix(n_players)).to(own), v_logit).masked_fill(
                dummy_pair, 0.0
            )
        ),
        se_background=_numpy((variance / n_background).sqrt().masked_fill(dummy, 0.0)),
        present=present.cpu().numpy(),
        background_id=background.background_id,
    )


def check_additivity(
    values: ModalityValues, *, logit: Float64[np.ndarray, "patient"], base_logit: float
) -> Float64[np.ndarray, "patient"]:
    """Compare the values with the model's own predictions, which come by another path than the game's.

    Args:
        values: to be checked.
        logit: of the same patients, from the model.
        base_logit: mean of the background's logits, from the model.

    Returns:
        |sum phi - (f(x) - E f)| / (1 + sum |phi|) of each patient.

    Raises:
        StudyError: it is more than ADDITIVITY_TOLERANCE for a patient; such numbers must not be shown.
    """
    gap = np.abs(values.phi.sum(axis=1) - (logit - base_logit)) / (1 + np.abs(values.phi).sum(axis=1))
    if not np.all(gap <= ADDITIVITY_TOLERANCE):
        raise StudyError(
            f"Shapley values: expected sums within {ADDITIVITY_TOLERANCE:g} of the model's predictions, got "
            f"{float(np.nanmax(gap)):.1e}. Do not use these explanations; report this model."
        )
    return np.asarray(gap)


def _coalition_values(
    game: FusionGame,
    own: Float64[Tensor, "patient modality part"],
    reference: Float64[Tensor, "background modality part"],
) -> Iterator[tuple[slice, Float64[Tensor, "chunk coalition row"]]]:
    """Logit of every coalition, for chunks of patients (the slice) and of background rows."""
    n_players, n_parts = own.shape[1:]
    members = torch.from_numpy(coalition_members(n_players)).to(own)
    per_pair = 2**n_players * max(n_parts, game.widest)
    n_rows = max(1, min(len(reference), _CHUNK // per_pair))
    n_patients = max(1, _CHUNK // (per_pair * n_rows))
    for i in range(0, len(own), n_patients):
        rows = slice(i, i + n_patients)
        of_patient = torch.einsum("cm,pmd->pcd", members, own[rows])
        for j in range(0, len(reference), n_rows):
            of_background = torch.einsum("cm,bmd->cbd", 1.0 - members, reference[j : j + n_rows])
            yield rows, game.read_out(of_patient.unsqueeze(2) + of_background)


def _stack(present: Present, modalities: tuple[str, ...]) -> Bool[Tensor, "row modality"]:
    return torch.stack([present[name] for name in modalities], dim=1)


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.cpu().numpy())
