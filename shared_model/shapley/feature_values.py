"""Feature values of many patients, summed: the Owen sampler over every modality's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from shared_model.fusion import MultimodalModel
from shared_model.preprocessing import Preprocessing
from shared_model.schema import STATIC, Schema
from shared_model.shapley.features import Feature, list_features, value_groups
from shared_model.shapley.game import Background, FusionGame, ModalityGame, Rows, modality_game
from shared_model.shapley.owen import ColumnGroups, OwenValues, owen_values
from shared_model.shapley.summary import FeaturePhi, Sums, feature_sums
from shared_model.training import seeded_rng

ROUNDS = 2  # of one order and its reverse against each background row: about 0.5 % of the mean |phi| at 500 rows


def explain_features(
    model: MultimodalModel,
    game: FusionGame,
    patients: Rows,
    background: Background,
    *,
    schema: Schema,
    preprocessing: Preprocessing,
    levels: Mapping[str, Int64[np.ndarray, "patient"]],
    seeds: Sequence[str],
) -> Sums:
    """Sums of feature values over patients.

    Args:
        model: whose features they are.
        game: its fusion.
        patients: who is explained.
        background: against whom.
        schema: the study.
        preprocessing: the common one.
        levels: per category, the index of each patient's level.
        seeds: of each patient's sampling, so that it does not depend on who else is explained.
    """
    own_parts, background_parts = game.contributions(patients), game.contributions(background.rows)
    sums: Sums = {}
    for name, features in list_features(model, schema, preprocessing).items():
        reference = game.fused_input(background.rows, name)
        own = game.fused_input(patients, name)
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
            found.append(
                share_out(features, modality, game.projection(name), own[i], reference, seeded_rng(seed, name))
            )
        here = patients.present[name].cpu().numpy()
        phi = np.array([values.phi for values in found]).reshape(len(seeds), len(features))
        variance = np.square([values.se for values in found]).reshape(len(seeds), len(features))
        groups = value_groups(
            features,
            embedding=patients.embeddings[name][torch.from_numpy(here)].float().cpu().numpy(),
            levels={category: index[here] for category, index in levels.items()} if name == STATIC else {},
        )
        presence = np.array([values.presence for values in found])
        sums |= feature_sums(name, features, FeaturePhi(phi[here], variance[here], groups), presence=presence)
    return sums


def share_out(
    features: Sequence[Feature],
    modality: ModalityGame,
    projection: Float64[Tensor, "part width"],
    own: Float64[Tensor, "width"],
    reference: Float64[Tensor, "background width"],
    rng: np.random.Generator,
    *,
    max_rounds: int = ROUNDS,
) -> OwenValues:
    """Owen values of one modality's features of one patient, in ROUNDS rounds or, until they are precise, more."""
    players = ColumnGroups(
        [feature.columns for feature in features],
        projection=projection,
        own=own,
        reference=reference,
        start=modality.reference,
    )
    return owen_values(modality, players, rng=rng, min_rounds=ROUNDS, max_rounds=max_rounds)
