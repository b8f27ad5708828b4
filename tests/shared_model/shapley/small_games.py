"""Small fusion models, made-up rows for them, and Shapley values the slow way: independent of the code under test."""

import copy
import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared_model.config import Scalar, parse_settings
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.schema import Schema, parse_schema
from shared_model.shapley.exact import ModalityValues, explain_modalities
from shared_model.shapley.game import Background, FusionGame, ModalityGame, Rows, modality_game

STUDY = """
[study]
name = "small"
title = "A small study"
outcome = "died"
patient_id = "patient_id"

[[static]]
name = "age"
kind = "numeric"
range = [0, 128]
"""

WIDTHS = (2, 3, 1, 4, 2)

Values = dict[frozenset[str], np.ndarray]


def events_study(widths: Sequence[int]) -> Schema:
    """A study whose modalities e0, e1, ... have embeddings of these widths: an event enters the fusion as it is."""
    items = [[f"item{j}" for j in range(width)] for width in widths]
    parts = [f'[events.e{i}]\naggregate = "any"\nitems = {json.dumps(own)}\n' for i, own in enumerate(items)]
    return parse_schema(STUDY + "\n".join(parts), source="schema.toml")


def make_model(widths: Sequence[int], *, seed: int = 1, **settings: Scalar) -> MultimodalModel:
    """A model of the modalities e0, e1, ... with random weights everywhere; settings in snake case."""
    chosen = {"modalities": ",".join(f"e{i}" for i in range(len(widths)))}
    values = {key.replace("_", "-"): value for key, value in settings.items()}
    return scramble(build_model(events_study(widths), parse_settings({**chosen, **values})), seed=seed)


def scramble(model: MultimodalModel, *, seed: int = 1) -> MultimodalModel:
    """Random values in every parameter: the output layers of a new model are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 4) ** 0.5)
    return model.eval()


def make_rows(model: MultimodalModel, n: int, *, seed: int, absent: float = 0.3) -> Rows:
    """Normal embeddings; each modality is absent in some of the rows."""
    generator = torch.Generator().manual_seed(seed)
    present = {name: torch.rand(n, generator=generator) >= absent for name in model.modalities}
    embeddings = {
        name: torch.randn(n, width, generator=generator) * present[name][:, None]
        for name, width in model.widths.items()
    }
    return Rows(embeddings, present)


def lacking(rows: Rows, name: str, which: slice = slice(None)) -> Rows:
    """The same rows, of which some lack a modality."""
    embeddings = {key: value.clone() for key, value in rows.embeddings.items()}
    present = {key: value.clone() for key, value in rows.present.items()}
    embeddings[name][which], present[name][which] = 0.0, False
    return Rows(embeddings, present)


def join_rows(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    return Rows(
        {name: torch.cat([value, second.embeddings[name]]) for name, value in first.embeddings.items()},
        {name: torch.cat([value, second.present[name]]) for name, value in first.present.items()},
    )


def game_between(model: MultimodalModel, name: str, *, patient: Rows, background: Rows) -> ModalityGame:
    """g_m of one patient against some rows."""
    game = FusionGame(model)
    own, reference = game.contributions(patient)[0], game.contributions(background)
    return modality_game(
        game, name, patient=patient, background=background, patient_parts=own, background_parts=reference
    )


def explain(model: MultimodalModel, patients: Rows, background: Rows, *, correction: float = 0.0) -> ModalityValues:
    """What is under test."""
    return explain_modalities(FusionGame(model), patients, Background(background, "b"), correction=correction)


def in_double(model: MultimodalModel) -> MultimodalModel:
    """A copy in float64."""
    return copy.deepcopy(model).double().eval()


@torch.no_grad()
def fuse(model: MultimodalModel, rows: Rows) -> Tensor:
    """The model's own fused logit in float64."""
    return in_double(model).fuse({name: value.double() for name, value in rows.embeddings.items()}, rows.present)


def coalition_values(model: MultimodalModel, patients: Rows, background: Rows) -> dict[frozenset[str], Tensor]:
    """Logit (patient, background row) of each coalition of modalities, by fusing hybrids of patient and row."""
    n, n_background = len(patients), len(background)
    own = patients.select(torch.arange(n).repeat_interleave(n_background))
    other = background.select(torch.arange(n_background).repeat(n))
    values = {}
    for mask in range(2 ** len(model.modalities)):
        members = frozenset(name for i, name in enumerate(model.modalities) if mask >> i & 1)
        hybrid = Rows(
            {name: (own if name in members else other).embeddings[name] for name in model.modalities},
            {name: (own if name in members else other).present[name] for name in model.modalities},
        )
        values[members] = fuse(model, hybrid).reshape(n, n_background)
    return values


def mean_values(values: dict[frozenset[str], Tensor]) -> Values:
    """Value of each coalition for each patient: the mean over background rows."""
    return {members: value.mean(dim=1).numpy() for members, value in values.items()}


def shapley_over_orders(values: Values, players: Sequence[str]) -> np.ndarray:
    """Shapley values (patient, player): the mean marginal contribution over all orders of the players."""
    total = {name: np.zeros_like(values[frozenset()]) for name in players}
    orders = list(permutations(players))
    for order in orders:
        for i, name in enumerate(order):
            total[name] = total[name] + values[frozenset(order[: i + 1])] - values[frozenset(order[:i])]
    return np.stack([total[name] / len(orders) for name in players], axis=1)


def drawn(n_modalities: int = 3, **settings: str) -> tuple[MultimodalModel, Rows, Rows]:
    """A model, four patients and seven background rows; some of each lack modalities."""
    model = make_model(WIDTHS[:n_modalities], seed=1, **settings)
    return model, make_rows(model, 4, seed=2), make_rows(model, 7, seed=3)


def assert_close(found: Any, expected: Any) -> None:
    """Equal but for the rounding of float64."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-12)
