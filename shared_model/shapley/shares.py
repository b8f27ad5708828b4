"""Modality shares with intervals from sums over patients, and their spread between hospitals.

A share is a ratio of means, `s_m = sum |phi_m| / sum_k sum |phi_k|` ("share of means"); beside it stands the mean over
patients of their own shares ("mean local share"). The two answer different questions and differ by points.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import norm, t

LEVEL = 0.95
# A hospital's standard error below 0.1 points of share counts as 0.1 points: one modality alone has a share of 1.
SMALLEST_VARIANCE = 1e-6

Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Shares:
    """Shares of some patients' attribution, one number a modality, adding up to 1.

    Attributes:
        share: of means.
        variance: of share, by the delta method.
    """

    share: Float64[np.ndarray, "modality"]
    variance: Float64[np.ndarray, "modality"]

    @property
    def interval(self) -> Float64[np.ndarray, "modality 2"]:
        """95 % confidence interval for patients drawn anew, model and background kept; within 0 and 1."""
        half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(self.variance)
        return np.asarray(np.clip(np.stack([self.share - half, self.share + half], axis=1), 0.0, 1.0))


def share_of_means(
    n: float, size: Float[np.ndarray, "modality"], outer: Float[np.ndarray, "modality modality"]
) -> Shares:
    """Shares and their variance from sums.

    Delta method: with mu the means of |phi|, T their sum and C their covariance over patients, J = (I - s 1') / T and
    var(s) = diag(J C J') / n.

    Args:
        n: patients, 2 or more for a variance; with fewer it is NaN.
        size: sum of |phi|.
        outer: sum of |phi| |phi|'.
    """
    total = float(size.sum())
    if n < 1 or total <= 0:
        nothing = np.full(len(size), np.nan)
        return Shares(nothing, nothing)
    share = size / total
    if n < 2:
        return Shares(share, np.full(len(size), np.nan))
    mean = size / n
    covariance = (outer - n * np.outer(mean, mean)) / (n - 1)
    jacobian = (np.eye(len(size)) - share[:, None]) / (total / n)
    variance = np.einsum("ij,jk,ik->i", jacobian, covariance, jacobian) / n
    return Shares(share, np.maximum(variance, 0.0))


def mean_interval(n: float, total: float, square: float) -> tuple[float, float]:
    """95 % interval of a mean from a sum and a sum of squares; NaN for fewer than 2 patients."""
    if n < 2:
        return (float("nan"), float("nan"))
    mean = total / n
    variance = max((square - n * mean**2) / (n - 1), 0.0)
    half = float(norm.ppf((1 + LEVEL) / 2)) * float(np.sqrt(variance / n))
    return (mean - half, mean + half)


def between_sums(shares: Shares, *, tau2: Float64[np.ndarray, "modality"]) -> dict[str, np.ndarray]:
    """One hospital's part of the random-effects statistics, at a given variance between hospitals.

    With w = 1 / (v + tau^2): counts, and sums of w, w y, w y^2 and w^2. A hospital whose variance is not known gives
    zeros.
    """
    known = np.isfinite(shares.variance)
    w = np.where(known, 1.0 / (np.maximum(np.where(known, shares.variance, 1.0), SMALLEST_VARIANCE) + tau2), 0.0)
    y = np.where(known, shares.share, 0.0)
    return {
        "between/k": known.astype(np.float64),
        "between/w": w,
        "between/wy": w * y,
        "between/wyy": w * np.square(y),
        "between/ww": np.square(w),
    }


def tau_squared(total: Sums) -> tuple[Float64[np.ndarray, "modality"], Float64[np.ndarray, "modality"]]:
    """Variance between hospitals and I^2, from the sums at tau^2 = 0.

    DerSimonian and Laird 1986: tau^2 = max(0, (Q - (k - 1)) / (sum w - sum w^2 / sum w)), I^2 = max(0, 1 - (k - 1) / Q)
    (Higgins and Thompson 2002). NaN with fewer than two hospitals.
    """
    k, w, ww = total["between/k"], total["between/w"], total["between/ww"]
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.maximum(total["between/wyy"] - np.square(total["between/wy"]) / w, 0.0)
        tau2 = np.maximum((q - (k - 1)) / (w - ww / w), 0.0)
        i2 = np.where(q > 0, np.maximum(1 - (k - 1) / q, 0.0), 0.0)
    few = k < 2
    return np.where(few, np.nan, tau2), np.where(few, np.nan, i2)


@dataclass(frozen=True)
class Between:
    """The mean hospital, and the next one.

    Attributes:
        k: hospitals.
        mean: random-effects mean share.
        interval: its 95 % interval (Hartung and Knapp 2001, Stat Med 20:3875); NaN with fewer than two hospitals.
        prediction: 95 % interval for the share at a further hospital (Higgins et al. 2009, JRSS A 172:137, t with k - 2
            degrees of freedom); NaN with fewer than three.
    """

    k: Float64[np.ndarray, "modality"]
    mean: Float64[np.ndarray, "modality"]
    interval: Float64[np.ndarray, "modality 2"]
    prediction: Float64[np.ndarray, "modality 2"]


def combine_hospitals(total: Sums, *, tau2: Float64[np.ndarray, "modality"]) -> Between:
    """Random-effects mean and intervals, from the sums at this tau^2. Intervals are clipped to 0 and 1."""
    k, w = total["between/k"], total["between/w"]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total["between/wy"] / w
        q = np.maximum(total["between/wyy"] - np.square(total["between/wy"]) / w, 0.0)
        variance = q / ((k - 1) * w)
        half = t.ppf((1 + LEVEL) / 2, k - 1) * np.sqrt(variance)
        ahead = t.ppf((1 + LEVEL) / 2, k - 2) * np.sqrt(tau2 + variance)
    half, ahead = np.where(k < 2, np.nan, half), np.where(k < 3, np.nan, ahead)
    return Between(
        k=k,
        mean=mean,
        interval=np.clip(np.stack([mean - half, mean + half], axis=1), 0.0, 1.0),
        prediction=np.clip(np.stack([mean - ahead, mean + ahead], axis=1), 0.0, 1.0),
    )
