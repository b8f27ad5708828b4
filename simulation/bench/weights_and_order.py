"""Two sanity checks: explanations must change with the weights, and large values must matter more than random ones.

Sources: Adebayo et al. 2018 (randomised weights); Samek et al. 2017 (deletion and insertion).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import spearmanr
from torch import Tensor

from shared_model.shapley.feature_values import attribute_features
from shared_model.shapley.features import list_features
from shared_model.shapley.game import Background, FusionGame, Rows
from shared_model.training.epochs import seeded_rng
from simulation.finished.explained import ExplainedSite, explain_site

MOST_PATIENTS = 60
BACKGROUND_ROWS = 50
RANDOM_ORDERS = 5


def randomised_weights(explained: Sequence[ExplainedSite], *, seed: int) -> dict[str, Any]:
    """Rank correlation between patients' values under the trained model and under one with shuffled weights.

    Every learned tensor keeps its values in random order, so sizes stay and what was learned is gone. Embeddings of the
    common background are those of the trained encoders; the hospital's own training patients stand in for it.

    Returns:
        Spearman's correlation of phi over patients, per modality, and its mean size.
    """
    one = max(explained, key=lambda site: len(site.rows))
    trained = explain_site(one.run, one.site, _own_background(one)).found
    shuffled_run = replace(one.run, model=_shuffled(one.run.model, seed=seed))
    shuffled = replace(one, run=shuffled_run)
    other = explain_site(shuffled_run, one.site, _own_background(shuffled)).found
    correlations = {
        name: float(spearmanr(trained.phi[:, i], other.phi[:, i]).statistic)
        for i, name in enumerate(trained.modalities)
        if trained.phi[:, i].std() > 0 and other.phi[:, i].std() > 0
    }
    return {
        "hospital": one.site.name,
        "patients": len(one.rows),
        "rank_correlation": correlations,
        "mean_absolute": float(np.mean([abs(value) for value in correlations.values()])),
    }


def _own_background(one: ExplainedSite) -> Background:
    encoded = one.encode(one.site.split(one.run.settings).train)
    return Background(Rows(encoded.embeddings, encoded.present), "training patients of the hospital")


def _shuffled(model: torch.nn.Module, *, seed: int) -> Any:
    shuffled = copy.deepcopy(model)
    rng = seeded_rng(seed, "shuffled weights")
    with torch.no_grad():
        for parameter in shuffled.parameters():
            order = torch.from_numpy(rng.permutation(parameter.numel()))
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return shuffled.eval()


def deletion_curves(explained: Sequence[ExplainedSite], *, seed: int) -> dict[str, Any]:
    """Change of the logit when features are replaced by those of background rows, in the order of |phi| or at random.

    Deletion starts from the patient and takes the largest first: the sooner the logit moves to the background's mean,
    the smaller the area. Insertion starts from the background and puts the largest in first: the sooner it reaches the
    patient's logit, the smaller the area.

    Returns:
        Mean areas between the curve and its end (mean distance over the steps, log odds), by |phi| and at random.
    """
    one = max(explained, key=lambda site: len(site.rows))
    game = FusionGame(one.run.model)
    features = list_features(one.run.model, one.site.schema, one.run.preprocessing)
    rng = seeded_rng(seed, "deletion")
    n = min(MOST_PATIENTS, len(one.rows))
    patients = one.patients.select(slice(0, n))
    rows = rng.permutation(len(one.run.background.rows))[:BACKGROUND_ROWS]
    background = Background(one.run.background.rows.select(torch.from_numpy(rows)), "part of the common background")
    seeds = [f"{seed}{patient}" for patient in one.patient_ids[:n]]
    tables = attribute_features(game, patients, background, features=features, seeds=seeds)
    areas: dict[str, list[float]] = {
        name: [] for name in ("deletion", "insertion", "deletion_random", "insertion_random")
    }
    reference = game.contributions(background.rows)
    for i in range(n):
        steps, phi = _steps(game, patients, background, features, tables, i)
        start = reference.sum(dim=1)
        by_size = np.argsort(-np.abs(phi))
        areas["deletion"].append(_area(game, start + steps.sum(dim=1), -steps, by_size))
        areas["insertion"].append(_area(game, start, steps, by_size))
        for _ in range(RANDOM_ORDERS):
            order = rng.permutation(len(phi))
            areas["deletion_random"].append(_area(game, start + steps.sum(dim=1), -steps, order))
            areas["insertion_random"].append(_area(game, start, steps, order))
    return {"patients": n, "features": len(phi), **{name: float(np.mean(values)) for name, values in areas.items()}}


def _steps(
    game: FusionGame, patients: Rows, background: Background, features: Any, tables: Any, i: int
) -> tuple[Float64[Tensor, "background feature part"], np.ndarray]:
    """What each feature adds to the contributions when it turns from each background row's into the patient's."""
    steps, phi = [], []
    for name, of_modality in features.items():
        change = game.fused_input(patients, name)[i] - game.fused_input(background.rows, name)
        projection = game.projection(name)
        for j, feature in enumerate(of_modality):
            columns = list(feature.columns)
            steps.append(change[:, columns] @ projection[:, columns].T)
            phi.append(float(tables[name].phi[i, j]))
    return torch.stack(steps, dim=1), np.array(phi)


def _area(
    game: FusionGame,
    start: Float64[Tensor, "background part"],
    steps: Float64[Tensor, "background feature part"],
    order: np.ndarray,
) -> float:
    """Mean over the steps of |mean logit - its value after the last step|."""
    path = start.unsqueeze(1) + steps[:, torch.from_numpy(order.copy())].cumsum(dim=1)
    curve = game.read_out(path).mean(dim=0)
    return float((curve - curve[-1]).abs().mean())
