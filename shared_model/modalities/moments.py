"""Mean and standard deviation from sums over all hospitals."""

import numpy as np


def mean_and_sd(n: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of values on a scale of about 1; a constant or never measured value gets sd 1, so it becomes 0.

    Args:
        n: values behind the sums.
        total: their sum.
        square: sum of their squares.
    """
    count = np.maximum(n, 1)
    mean = np.asarray(total / count)
    sd = np.sqrt(np.maximum(square / count - np.square(mean), 0.0))
    return mean, np.where(sd > 1e-6, sd, 1.0)
