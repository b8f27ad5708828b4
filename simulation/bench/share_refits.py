"""Ranges of shares over refits against a known truth: how often they hold it, and how wide they are.

No hospitals and no encoders: columns are normal, the true weights are drawn once a sample, and a sample is fitted and
refitted as the coordinator does it, on three fifths of the patients; shares are of the fifth that tests.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit

from server.protocol.explanations import NO_EVIDENCE
from server.protocol.newton import PENALTY_RANGE
from server.protocol.refits import fit_heads, share_ranges
from shared_model.shapley.shares import share_of_means
from shared_model.training.refits import SIZES, refit_sums, size_sums

WIDTHS = (23, 16, 16, 20, 20)
TRUE_SHARES = (0.70, 0.145, 0.105, 0.03, 0.02)
WITHOUT_EFFECT = (0.70, 0.18, 0.12, 0.0, 0.0)
PATIENTS, EVENTS = 1600, 98
LOGIT_SD = 1.3  # an AUC of some 0.82 for who knows the weights
PENALTY = 70.0
_TRAIN, _TEST = slice(0, PATIENTS * 3 // 5), slice(PATIENTS * 4 // 5, PATIENTS)


def refit_coverage(shares: tuple[float, ...], *, samples: int, refits: int, seed: int) -> dict[str, Any]:
    """Per group, how often the range over refits and the delta method's interval hold the true share.

    Args:
        shares: true ones of the groups, adding up to 1.
        samples: studies that are drawn.
        refits: of each.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    found = [_one_sample(shares, refits=refits, rng=rng) for _ in range(samples)]
    point, ends, kept = (np.stack([row[i] for row in found]) for i in range(3))
    evidence, spread = (np.stack([row[i] for row in found]) for i in (3, 4))
    truth = np.array(shares)[:, None]

    def held(interval: np.ndarray) -> list[float]:
        inside = (interval[..., 0] <= truth.T) & (interval[..., 1] >= truth.T)
        return [round(float(value), 3) for value in inside.mean(axis=0)]

    def rounded(values: np.ndarray) -> list[float]:
        return [round(float(value), 3) for value in values]

    return {
        "samples": samples,
        "refits": refits,
        "patients": PATIENTS,
        "events": EVENTS,
        "true_shares": list(shares),
        "mean_share": rounded(point.mean(axis=0)),
        "sd_between_samples": rounded(point.std(axis=0, ddof=1)),
        "mean_sd_over_refits": rounded(spread.mean(axis=0)),
        "range_holds_truth": held(ends),
        "mean_width_of_range": rounded((ends[..., 1] - ends[..., 0]).mean(axis=0)),
        "delta_holds_truth": held(kept),
        "mean_width_of_delta": rounded((kept[..., 1] - kept[..., 0]).mean(axis=0)),
        "marked_without_evidence": rounded(1 - evidence.mean(axis=0)),
    }


def _one_sample(shares: tuple[float, ...], *, refits: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Share, range over refits, delta interval, evidence and sd over refits of each group."""
    inputs, outcome = _draw_patients(shares, rng)
    counts = np.concatenate([np.ones((1, PATIENTS)), rng.poisson(1.0, size=(refits, PATIENTS))])
    x, y, c = (torch.from_numpy(value) for value in (inputs, outcome, counts))

    def ask(numbers: Any, heads: np.ndarray) -> dict[str, np.ndarray]:
        rows = torch.tensor(list(numbers))
        return refit_sums(x[_TRAIN], y[_TRAIN], c[rows][:, _TRAIN], torch.from_numpy(heads), event_weight=1.0)

    edges = np.cumsum([0, *WIDTHS])
    groups = [slice(int(start), int(end)) for start, end in pairwise(edges)]
    start = np.zeros(inputs.shape[1])
    (fit,) = fit_heads(ask, start, n_refits=0, penalty=PENALTY, groups=groups)
    fitted = fit_heads(ask, fit.next_head, n_refits=refits, penalty=PENALTY, groups=groups)
    heads = np.stack([fit.next_head, *(refit.next_head for refit in fitted[1:])])
    sizes = size_sums(x[_TEST], x.new_zeros(1, inputs.shape[1]), c[:, _TEST], torch.from_numpy(heads), widths=WIDTHS)
    drawn = sizes[SIZES] / sizes[SIZES].sum(axis=1, keepdims=True)
    phi = np.stack([np.abs(inputs[_TEST][:, g] @ fit.next_head[g]) for g in groups], axis=1)
    kept = share_of_means(float(len(phi)), phi.sum(axis=0), phi.T @ phi).interval
    ends = share_ranges(drawn[0], drawn[1:])
    at_limit = np.array([fit.penalty[g.start] >= PENALTY_RANGE[1] for g in groups])
    evidence = ~(at_limit | ((drawn[1:] < NO_EVIDENCE).mean(axis=0) >= 0.5))
    return drawn[0], ends, kept, evidence.astype(np.float64), drawn[1:].std(axis=0, ddof=1)


def _draw_patients(shares: tuple[float, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs with a column of ones, and outcomes; a group's share is its part of the sum of its contributions' sd."""
    scale = LOGIT_SD / np.linalg.norm(shares)
    weights = []
    for share, width in zip(shares, WIDTHS, strict=True):
        direction = rng.normal(size=width)
        weights.append(scale * share * direction / np.linalg.norm(direction))
    inputs = rng.normal(size=(PATIENTS, sum(WIDTHS)))
    logit = inputs @ np.concatenate(weights)
    intercept = brentq(lambda b: expit(logit + b).sum() - EVENTS, -20, 20)
    outcome = (rng.random(PATIENTS) < expit(logit + intercept)).astype(np.float64)
    return np.column_stack([inputs, np.ones(PATIENTS)]), outcome
