"""Exact Shapley values of the modalities on cached embeddings: of a linear head in closed form, else by enumeration.

On the scale of the probability nothing is linear, so there all coalitions are enumerated for every head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from shared_model.errors import StudyError
from shared_model.model.fusion import Present
from shared_model.shapley.closed_form import linear_modalities
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
    v_probability = own.new_zeros(len(own), 2 ** own.shape[1])
    enumerated = None if game.is_linear else _Enumerated(own)
    for rows, values in _coalition_values(game, own, reference):
        v_probability[rows] += torch.sigmoid(values + correction).sum(dim=2)
        if enumerated is not None:
            enumerated.add(rows, values)
    v_probability /= len(reference)
    on_logit = _closed_form(game, own, reference) if enumerated is None else enumerated.finish(len(reference))
    present = _stack(patients.present, game.modalities)
    # Absent here and in all of the background: the two sums of such a pair differ by rounding only.
    dummy = ~present & ~_stack(background.rows.present, game.modalities).any(dim=0)
    dummy_pair = dummy.unsqueeze(1) | dummy.unsqueeze(2)
    phi_of = torch.from_numpy(shapley_matrix(own.shape[1])).to(own)
    return ModalityValues(
        modalities=game.modalities,
        phi=_numpy(on_logit.phi.masked_fill(dummy, 0.0)),
        phi_probability=_numpy((v_probability @ phi_of.T).masked_fill(dummy, 0.0)),
        logit=_numpy(on_logit.all_own + correction),
        base_logit=float(on_logit.nobody) + correction,
        probability=_numpy(v_probability[:, -1]),
        base_probability=float(v_probability[0, 0]),
        alone=_numpy(on_logit.alone.masked_fill(dummy, 0.0)),
        left_out=_numpy(on_logit.left_out.masked_fill(dummy, 0.0)),
        interactions=_numpy(on_logit.interactions.masked_fill(dummy_pair, 0.0)),
        se_background=_numpy(on_logit.se_background.masked_fill(dummy, 0.0)),
        present=present.cpu().numpy(),
        background_id=background.background_id,
    )


@dataclass(frozen=True)
class _OnLogit:
    """What `ModalityValues` says on the logit, without the correction; `nobody` and `all_own` are v of these."""

    phi: Float64[Tensor, "patient modality"]
    se_background: Float64[Tensor, "patient modality"]
    alone: Float64[Tensor, "patient modality"]
    left_out: Float64[Tensor, "patient modality"]
    interactions: Float64[Tensor, "patient modality modality"]
    nobody: Float64[Tensor, ""]
    all_own: Float64[Tensor, "patient"]


def _closed_form(
    game: FusionGame,
    own: Float64[Tensor, "patient modality part"],
    reference: Float64[Tensor, "background modality part"],
) -> _OnLogit:
    found = linear_modalities(own, reference)
    return _OnLogit(
        phi=found.phi,
        se_background=found.se_background,
        alone=found.phi,
        left_out=found.phi,
        interactions=own.new_zeros(len(own), own.shape[1], own.shape[1]),
        nobody=game.read_out(reference.sum(dim=1)).mean(),
        all_own=game.read_out(own.sum(dim=1)),
    )


class _Enumerated:
    """Sums over background rows of the logits of all coalitions, and of squared values against each row."""

    def __init__(self, own: Float64[Tensor, "patient modality part"]) -> None:
        n, self._n_players = own.shape[:2]
        self._v, self._square = own.new_zeros(n, 2**self._n_players), own.new_zeros(n, self._n_players)
        self._phi_of = torch.from_numpy(shapley_matrix(self._n_players)).to(own)

    def add(self, rows: slice, values: Float64[Tensor, "chunk coalition row"]) -> None:
        """Coalitions of a chunk of patients against a chunk of rows."""
        self._v[rows] += values.sum(dim=2)
        self._square[rows] += torch.einsum("mc,pcb->pmb", self._phi_of, values).square().sum(dim=2)

    def finish(self, n_rows: int) -> _OnLogit:
        """Means over all rows."""
        v = self._v / n_rows
        phi = v @ self._phi_of.T
        variance = (self._square / n_rows - phi.square()).clamp(min=0.0) * n_rows / max(n_rows - 1, 1)
        single = 2 ** torch.arange(self._n_players)
        pairs = torch.from_numpy(interaction_matrix(self._n_players)).to(v)
        return _OnLogit(
            phi=phi,
            se_background=(variance / n_rows).sqrt(),
            alone=v[:, single] - v[:, :1],
            left_out=v[:, -1:] - v[:, 2**self._n_players - 1 - single],
            interactions=torch.einsum("ijc,pc->pij", pairs, v),
            nobody=v[0, 0],
            all_own=v[:, -1],
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
