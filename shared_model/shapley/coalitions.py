"""Coalitions of n players as bit masks 0..2^n - 1 (bit i = player i), and the linear maps from their values.

Sources: Shapley 1953; Grabisch and Roubens 1999 (interaction index), Int J Game Theory 28:547.
"""

from functools import cache
from math import factorial

import numpy as np
from jaxtyping import Float64, Int64

MAX_PLAYERS = 12


@cache
def coalition_members(n: int) -> Int64[np.ndarray, "coalition {n}"]:
    """1 where a player (column) is in a coalition (row)."""
    masks = np.arange(2**n)
    return np.asarray((masks[:, None] >> np.arange(n)) & 1, dtype=np.int64)


def shapley_weights(n: int) -> Float64[np.ndarray, "{n}"]:
    """Weight s! (n - s - 1)! / n! of a player's marginal contribution to a coalition of size s = 0..n-1."""
    return np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])


@cache
def shapley_matrix(n: int) -> Float64[np.ndarray, "{n} coalition"]:
    """W with phi = W v: the Shapley values of a game given by the values of its 2^n coalitions."""
    members = coalition_members(n)
    sizes = members.sum(axis=1)
    weights = shapley_weights(n)
    joined = weights[np.maximum(sizes - 1, 0)][:, None]  # of the step that brought this player in
    missing = -weights[np.minimum(sizes, n - 1)][:, None]  # of the step that would
    return np.asarray(np.where(members == 1, joined, missing).T)


@cache
def interaction_matrix(n: int) -> Float64[np.ndarray, "{n} {n} coalition"]:
    """T with I = T v: the pairwise Shapley interaction index; zero on the diagonal.

    I_ij averages v(S + i + j) - v(S + i) - v(S + j) + v(S) over coalitions S of the others with weights
    s! (n - s - 2)! / (n - 1)!.
    """
    members = coalition_members(n)
    sizes = members.sum(axis=1)
    result = np.zeros((n, n, 2**n))
    if n < 2:
        return result
    weights = np.array([factorial(s) * factorial(n - s - 2) / factorial(n - 1) for s in range(n - 1)])
    for i in range(n):
        for j in range(n):
            if i != j:
                both = members[:, i] + members[:, j]
                sign = np.where(both == 1, -1.0, 1.0)
                result[i, j] = sign * weights[sizes - both]
    return result
