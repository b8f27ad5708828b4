"""Feature values of many patients: of a linear head in closed form, else by the Owen sampler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from shared_model.modalities.feature import Feature
from shared_model.shapley.closed_form import linear_features
from shared_model.shapley.features import value_groups
from shared_model.shapley.game import Background, FusionGame, ModalityGame, Rows, modality_game
from shared_model.shapley.owen import ColumnGroups, OwenValues, owen_values
from shared_model.shapley.summary import FeaturePhi, Sums, feature_sums
from shared_model.training.epochs import seeded_rng

ROUNDS = 2  # of one order and its reverse against each background row: about 0.5 % of the mean |phi| at 500 rows

# Nominal cost of one read-out on one core: for its passes through memory, and for each multiplication.
_SECONDS_PER_READ_OUT, _SECONDS_PER_MULTIPLICATION = 1e-7, 8e-11

Features = Mapping[str, Sequence[Feature]]


@dataclass(frozen=True)
class FeatureTable:
    """Owen values of one modality's features, a row a patient.

    Attributes:
        phi: 0 where the patient lacks the modality.
        se: standard errors of phi.
        presence: effect of having or lacking the modality; `phi.sum(axis=1) + presence` is the modality's exact value.
    """

    phi: Float64[np.ndarray, "patient feature"]
    se: Float64[np.ndarray, "patient feature"]
    presence: Float64[np.ndarray, "patient"]


def attribute_features(
    game: FusionGame, patients: Rows, background: Background, *, features: Features, seeds: Sequence[str]
) -> dict[str, FeatureTable]:
    """Owen values of every modality's features for every patient.

    Args:
        game: the model's fusion.
        patients: who is explained.
        background: against whom.
        features: of each modality of the model.
        seeds: of each patient's sampling, so that it does not depend on who else is explained.
    """
    if game.is_linear:
        return {name: _linear_table(game, patients, background.rows, name, own) for name, own in features.items()}
    own_parts, background_parts = game.contributions(patients), game.contributions(background.rows)
    tables = {}
    for name, of_modality in features.items():
        own, reference = game.fused_input(patients, name), game.fused_input(background.rows, name)
        found = []
        for i, seed in enumerate(seeds):
            modality = modality_game(
                game,
                name,
                patient=patients.select(slice(i, i + 1)),
                background=background.rows,
                patient_parts=own_parts[i],
                background_parts=background_parts,
            )
            rng = seeded_rng(seed, name)
            found.append(
                share_out(
                    of_modality, modality, projection=game.projection(name), own=own[i], reference=reference, rng=rng
                )
            )
        shape = (len(seeds), len(of_modality))
        tables[name] = FeatureTable(
            phi=np.array([values.phi for values in found], dtype=np.float64).reshape(shape),
            se=np.array([values.se for values in found], dtype=np.float64).reshape(shape),
            presence=np.array([values.presence for values in found], dtype=np.float64),
        )
    return tables


def _linear_table(
    game: FusionGame, patients: Rows, background: Rows, name: str, features: Sequence[Feature]
) -> FeatureTable:
    found = linear_features(
        [feature.columns for feature in features],
        weight=game.projection(name),
        own=game.fused_input(patients, name),
        reference=game.fused_input(background, name),
        own_present=patients.present[name],
        reference_present=background.present[name],
    )
    phi = found.phi.cpu().numpy()
    return FeatureTable(phi=phi, se=np.zeros_like(phi), presence=found.presence.cpu().numpy())


def affordable_patients(game: FusionGame, *, features: Features, n_background: int, seconds: float) -> int:
    """How many patients' features can be explained in about this time on one core; at least 1. Of a linear head, all.

    Nominal costs and no clock, so that a run explains the same patients each time.
    """
    if game.is_linear:
        return int(np.iinfo(np.int32).max)
    n_coalitions = 2 ** (len(features) - 1)
    points = sum(len(own) + 1 for own in features.values() if len(own) > 1)
    read_outs = n_coalitions * points * n_background * 2 * ROUNDS
    cost = read_outs * (_SECONDS_PER_READ_OUT + game.multiplications * _SECONDS_PER_MULTIPLICATION)
    return max(1, int(seconds / cost)) if cost else np.iinfo(np.int32).max


def share_out(
    features: Sequence[Feature],
    modality: ModalityGame,
    *,
    projection: Float64[Tensor, "part width"],
    own: Float64[Tensor, "width"],
    reference: Float64[Tensor, "background width"],
    rng: np.random.Generator,
    max_rounds: int = ROUNDS,
) -> OwenValues:
    """Owen values of one modality's features of one patient; of a linear head in closed form, without an order drawn.

    Args:
        features: inside the modality.
        modality: its game.
        projection: from its embedding to its contribution.
        own: what of the patient enters the fusion.
        reference: what of each background row does.
        rng: draws the orders.
        max_rounds: ROUNDS are drawn and, until the values are precise, more up to this number.
    """
    if modality.game.is_linear:
        return _linear_values(features, modality, projection=projection, own=own, reference=reference)
    players = ColumnGroups(
        [feature.columns for feature in features],
        projection=projection,
        own=own,
        reference=reference,
        start=modality.reference,
    )
    return owen_values(modality, players, rng=rng, min_rounds=ROUNDS, max_rounds=max_rounds)


def _linear_values(
    features: Sequence[Feature],
    modality: ModalityGame,
    *,
    projection: Float64[Tensor, "part width"],
    own: Float64[Tensor, "width"],
    reference: Float64[Tensor, "background width"],
) -> OwenValues:
    both = modality.both_present
    found = linear_features(
        [feature.columns for feature in features],
        weight=projection,
        own=own.unsqueeze(0),
        reference=reference,
        own_present=both.any().unsqueeze(0),
        reference_present=both,
    )
    phi = found.phi[0].cpu().numpy()
    presence = float((modality.own - modality.reference)[~both].sum()) / len(both)
    return OwenValues(phi, presence, np.zeros_like(phi), 0)


def sum_features(
    tables: Mapping[str, FeatureTable],
    patients: Rows,
    *,
    features: Features,
    levels: Mapping[str, Mapping[str, Int64[np.ndarray, "patient"]]],
) -> Sums:
    """Sums of feature values over patients.

    Args:
        tables: from `attribute_features`.
        patients: who was explained.
        features: of each modality.
        levels: per modality and category, the index of each patient's level; the one after the last means missing.
    """
    sums: Sums = {"feature-patients": np.array(float(len(patients)))}
    for name, table in tables.items():
        here = patients.present[name].cpu().numpy()
        groups = value_groups(
            tuple(features[name]),
            embedding=patients.embeddings[name][torch.from_numpy(here)].float().cpu().numpy(),
            levels={category: index[here] for category, index in levels.get(name, {}).items()},
        )
        found = FeaturePhi(table.phi[here], table.se[here], groups)
        sums |= feature_sums(name, features[name], found, presence=table.presence)
    return sums
