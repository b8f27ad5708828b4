"""Intervals of shares against resampling: how often they hold the truth, and how far they are from a bootstrap."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from shared_model.shapley.shares import LEVEL, Shares, share_of_means

SAMPLES = 2000
SAMPLE_SIZE = 300

Phi = Float64[np.ndarray, "patient modality"]


def interval_coverage(phi: Phi, *, seed: int) -> dict[str, Any]:
    """Per modality, the part of samples whose 95 % interval holds the share of the population.

    The explained patients are the population; SAMPLES samples of SAMPLE_SIZE are drawn from it with replacement.
    """
    rng = np.random.default_rng(seed)
    size = np.abs(phi)
    truth = size.sum(axis=0) / size.sum()
    held = np.zeros(phi.shape[1])
    for _ in range(SAMPLES):
        interval = _shares(size[rng.integers(0, len(size), SAMPLE_SIZE)]).interval
        held += (interval[:, 0] <= truth) & (truth <= interval[:, 1])
    return {"samples": SAMPLES, "patients": SAMPLE_SIZE, "coverage": (held / SAMPLES).tolist()}


def bootstrap_difference(phi: Phi, *, seed: int) -> dict[str, Any]:
    """Largest difference of an interval's end from that of a percentile bootstrap over patients, points of share."""
    rng = np.random.default_rng(seed)
    size = np.abs(phi)
    drawn = np.stack([size[rng.integers(0, len(size), len(size))].sum(axis=0) for _ in range(SAMPLES)])
    shares = drawn / drawn.sum(axis=1, keepdims=True)
    tail = (1 - LEVEL) / 2
    bootstrap = np.quantile(shares, [tail, 1 - tail], axis=0).T
    difference = np.abs(_shares(size).interval - bootstrap)
    return {"samples": SAMPLES, "patients": len(phi), "largest_difference_points": 100 * float(difference.max())}


def _shares(size: Phi) -> Shares:
    return share_of_means(float(len(size)), size.sum(axis=0), size.T @ size)
