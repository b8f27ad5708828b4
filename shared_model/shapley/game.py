"""The game: players are modalities, a coalition takes its modalities from the patient and the others from a background.

Value of coalition S for patient x and background row b: `v_b(S) = head(e_S(x), e_rest(b))`, on the logit. Encoders see
one modality each, so this interventional value is exact from cached embeddings; and because the fusion begins with a
sum over modalities, a coalition costs one addition and the rest of the head.

Source: van de Beld et al. 2024 (arXiv 2404.18631), with an exact enumeration in place of their sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from shared_model.errors import StudyError
from shared_model.model.fusion import EarlyFusionModel, Embeddings, MultimodalModel, Present
from shared_model.shapley.coalitions import MAX_PLAYERS, coalition_members, shapley_weights

_CHUNK = 2**20  # numbers in the largest intermediate array: 8 MB


@dataclass(frozen=True)
class Rows:
    """Patients or background rows as the fusion sees them.

    Attributes:
        embeddings: per modality; zero where absent.
        present: per modality, whether the row has it.
    """

    embeddings: Embeddings
    present: Present

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    def select(self, index: Tensor | slice) -> Rows:
        """The given rows."""
        return Rows(
            {name: value[index] for name, value in self.embeddings.items()},
            {name: value[index] for name, value in self.present.items()},
        )


@dataclass(frozen=True)
class Background:
    """Reference patients, all with the same weight.

    Attributes:
        rows: embeddings made by the model that is explained.
        background_id: hash of the rows and of the model; numbers with different ids must not be merged.
    """

    rows: Rows
    background_id: str


class FusionGame:
    """Contributions and read-out of a model, in float64 whatever the model's precision, so that sums lose no digits."""

    def __init__(self, model: MultimodalModel) -> None:
        """A copy of the model without its encoders.

        Raises:
            StudyError: more modalities than can be enumerated.
        """
        if len(model.modalities) > MAX_PLAYERS:
            raise StudyError(
                f"exact Shapley values: expected at most {MAX_PLAYERS} modalities, got {len(model.modalities)}. "
                "Leave some out with --set modalities=..."
            )
        without_encoders = {id(model.encoders): nn.ModuleDict()}
        self._fusion = copy.deepcopy(model, without_encoders).double().eval()
        self._fusion.requires_grad_(requires_grad=False)
        self.modalities = model.modalities
        self.is_linear = model.is_linear

    @property
    def read_out_networks(self) -> tuple[nn.Module, ...]:
        """The modules that `read_out` runs through; late fusion divides by the sum of weights and has none."""
        return (self._fusion.head,) if isinstance(self._fusion, EarlyFusionModel) else ()

    @property
    def widest(self) -> int:
        """Outputs of the widest layer that `read_out` runs through; 1 where there is none."""
        return max([1, *(layer.out_features for layer in self._layers())])

    @property
    def multiplications(self) -> int:
        """Of one read-out, which begins after the first layers."""
        return sum(layer.in_features * layer.out_features for layer in self._layers()[2:])

    def _layers(self) -> list[nn.Linear]:
        modules = [module for network in self.read_out_networks for module in network.modules()]
        return [module for module in modules if isinstance(module, nn.Linear)]

    @torch.no_grad()
    def contributions(self, rows: Rows) -> Float64[Tensor, "row modality part"]:
        """What each modality of each row adds to the fusion.

        Raises:
            StudyError: an embedding is not finite.
        """
        for name in self.modalities:
            if not bool(torch.isfinite(rows.embeddings[name]).all()):
                raise StudyError(
                    f"embedding of {name}: expected finite numbers, got NaN or infinity. The model has diverged: lower "
                    "the learning rate."
                )
        return self._fusion.contributions(_double(rows.embeddings), rows.present)

    @torch.no_grad()
    def fused_input(self, rows: Rows, name: str) -> Float64[Tensor, "row width"]:
        """What of one modality enters the fusion."""
        return self._fusion.fused_inputs(_double(rows.embeddings), rows.present)[name]

    def projection(self, name: str) -> Float64[Tensor, "part width"]:
        """Linear map from a modality's fused input to its contribution."""
        return self._fusion.projection(name).detach()

    def contribution(self, name: str, embedding: Float64[Tensor, "*row width"]) -> Float64[Tensor, "*row part"]:
        """What one modality adds to the fusion where it is present."""
        return embedding @ self.projection(name).T + self._fusion.offset(name).detach()

    def read_out(self, total: Float64[Tensor, "*row part"]) -> Float64[Tensor, "*row"]:
        """Logit of summed contributions."""
        return self._fusion.read_out(total)


@dataclass(frozen=True)
class ModalityGame:
    """g_m: one modality's share of one patient's logit as a function of that modality's contribution.

    `g_m^b(c) = sum over S without m of w_|S| * read_out(c + sum of S at x + sum of the rest at b)`, so
    `g_m^b(c_m(x)) - g_m^b(c_m(b))` is the exact Shapley value of m against background row b. Whatever attributes this
    difference completely to what is inside m sums to the modality's value (the quotient property of Owen values).

    Attributes:
        game: the model's fusion.
        name: of m.
        others: summed contributions of the other modalities, for each background row and coalition S.
        weights: Shapley weight of each S.
        own: the patient's contribution of m, the same against each background row.
        reference: each background row's contribution of m.
        both_present: background rows that, like the patient, have the modality. Only against these can the value be
            shared out within it; against the others it is the effect of having or lacking the modality at all.
    """

    game: FusionGame
    name: str
    others: Float64[Tensor, "background coalition part"]
    weights: Float64[Tensor, "coalition"]
    own: Float64[Tensor, "background part"]
    reference: Float64[Tensor, "background part"]
    both_present: Bool[Tensor, "background"]

    def __call__(self, contribution: Float64[Tensor, "background point part"]) -> Float64[Tensor, "background point"]:
        """g_m^b at some points for each background row."""
        total = self.others.unsqueeze(1) + contribution.unsqueeze(2)  # (background, point, coalition, part)
        return self.game.read_out(total) @ self.weights

    def of_embedding(self, embedding: Float64[Tensor, "background width"]) -> Float64[Tensor, "background"]:
        """g_m^b of one embedding of m for each background row."""
        return self(self.game.contribution(self.name, embedding).unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def values(self) -> Float64[Tensor, "background"]:
        """Exact Shapley value of the modality against each background row."""
        ends = torch.stack([self.reference, self.own], dim=1)
        n_rows = max(1, _CHUNK // (2 * self.others.shape[1] * max(self.others.shape[2], self.game.widest)))
        chunks = [torch.arange(i, min(i + n_rows, len(ends))) for i in range(0, len(ends), n_rows)]
        parts = [self.select(rows)(ends[rows]) for rows in chunks]
        low, high = torch.cat(parts).unbind(dim=1)
        return high - low

    def select(self, rows: Tensor) -> ModalityGame:
        """The game against some of the background rows."""
        return ModalityGame(
            self.game,
            self.name,
            self.others[rows],
            self.weights,
            self.own[rows],
            self.reference[rows],
            self.both_present[rows],
        )


def modality_game(
    game: FusionGame,
    name: str,
    *,
    patient: Rows,
    background: Rows,
    patient_parts: Float64[Tensor, "modality part"],
    background_parts: Float64[Tensor, "background modality part"],
) -> ModalityGame:
    """g_m of one patient.

    Args:
        game: the model's fusion.
        name: m.
        patient: one row.
        background: the reference rows.
        patient_parts: contributions of the patient.
        background_parts: contributions of the background.
    """
    own = game.modalities.index(name)
    n_others = len(game.modalities) - 1
    rest = [i for i in range(len(game.modalities)) if i != own]
    members = torch.from_numpy(coalition_members(n_others)).to(patient_parts)  # (coalition, other)
    of_patient = members @ patient_parts[rest]  # (coalition, part)
    of_background = torch.einsum("so,bop->bsp", 1.0 - members, background_parts[:, rest])
    sizes = coalition_members(n_others).sum(axis=1)
    weights = torch.from_numpy(shapley_weights(n_others + 1)[sizes]).to(patient_parts)
    return ModalityGame(
        game=game,
        name=name,
        others=of_patient + of_background,
        weights=weights,
        own=patient_parts[own].expand_as(background_parts[:, own]),
        reference=background_parts[:, own],
        both_present=background.present[name] & patient.present[name],
    )


def _double(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in embeddings.items()}


def as_rows(embeddings: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], *, device: torch.device) -> Rows:
    """Rows from a message's arrays."""
    return Rows(
        {name: torch.from_numpy(np.array(value, dtype=np.float32)).to(device) for name, value in embeddings.items()},
        {name: torch.from_numpy(np.array(value, dtype=bool)).to(device) for name, value in present.items()},
    )
