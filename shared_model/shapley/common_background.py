"""The common background: synthetic reference patients, drawn once from sums over all hospitals.

A background of one hospital's own patients moves the shares by points and makes every hospital's values depend on whom
it treats, so hospitals could not be compared. Real patients of others must not be seen. So the hospitals send sums of
their embeddings; their total gives each column's distribution (a histogram with fixed edges), all correlations, and how
often which modalities are present together; the coordinator draws rows from a Gaussian copula with these. Static
variables and events are then made valid: a binary is 0 or 1, a category is one level, a missing number holds the
common fill. Means over hospitals are all that the rows rest on; no row is a patient.

Columns are taken on the scale of asinh, which bounds a network's embeddings and changes small values little.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from shared_model.errors import StudyError
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity

LIMIT = 8.0  # asinh(1490)
N_BINS = 256
RARE = 10  # patients
BIN_WIDTH = 2 * LIMIT / N_BINS
EDGES = np.linspace(-LIMIT, LIMIT, N_BINS + 1)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Columns:
    """Columns of one modality's embedding.

    Attributes:
        width: how many.
        categories: of a static modality: (first column, number of levels with "missing") by name of the category.
    """

    width: int
    categories: Mapping[str, tuple[int, int]]


def background_quantities(columns: Mapping[str, Columns]) -> Quantities:
    """The arrays of a background reply.

    Args:
        columns: of each modality, in the model's order.
    """
    total = sum(modality.width for modality in columns.values())
    quantities = {
        "patterns": Quantity((2 ** len(columns),), MAX_PATIENTS, 0),
        "first": Quantity((len(columns), total), MAX_PATIENTS * LIMIT),
        "second": Quantity((total, total), MAX_PATIENTS * LIMIT**2),
    }
    for name, modality in columns.items():
        quantities[f"{name}/histogram"] = Quantity((modality.width, N_BINS), MAX_PATIENTS, 0)
        for category, (_, n_levels) in modality.categories.items():
            quantities[f"levels/{category}"] = Quantity((n_levels,), MAX_PATIENTS, 0)
    return quantities


def background_sums(
    columns: Mapping[str, Columns],
    *,
    embeddings: Arrays,
    present: Arrays,
    known: Arrays,
    levels: Mapping[str, Int64[np.ndarray, "patient"]],
) -> dict[str, np.ndarray]:
    """One hospital's sums; those of two hospitals add up to those of their patients together.

    Args:
        columns: of each modality, in the model's order.
        embeddings: per modality, patient by column; zero where absent.
        present: per modality, whether the patient has it.
        known: per modality, patient by column, False where the column holds a fill and not a value.
        levels: per category, the index of each patient's level; the last one is "missing".
    """
    scaled = {name: np.clip(np.arcsinh(embeddings[name].astype(np.float64)), -LIMIT, LIMIT) for name in columns}
    here = np.stack([present[name] for name in columns], axis=1).astype(np.float64)
    joined = np.concatenate([scaled[name] * present[name][:, None] for name in columns], axis=1)
    patterns = here.astype(np.int64) @ (2 ** np.arange(len(columns)))
    sums = {
        "patterns": np.bincount(patterns, minlength=2 ** len(columns)).astype(np.float64),
        "first": here.T @ joined,
        "second": joined.T @ joined,
    }
    for name, modality in columns.items():
        counted = known[name] & present[name][:, None]
        sums[f"{name}/histogram"] = np.stack(
            [np.histogram(scaled[name][counted[:, j], j], bins=EDGES)[0] for j in range(modality.width)]
        ).astype(np.float64)
        for category, (_, n_levels) in modality.categories.items():
            sums[f"levels/{category}"] = np.bincount(levels[category], minlength=n_levels).astype(np.float64)
    return sums


@dataclass(frozen=True)
class Draw:
    """Rows of the copula before they are made valid.

    Attributes:
        present: per modality.
        values: per modality, row by column; zero where absent.
        uniforms: per modality, the rank of each row in each column as a number in (0, 1).
    """

    present: dict[str, Bool[np.ndarray, "row"]]
    values: dict[str, Float64[np.ndarray, "row _column"]]
    uniforms: dict[str, Float64[np.ndarray, "row _column"]]


def draw_rows(columns: Mapping[str, Columns], sums: Arrays, *, n_rows: int, seed: int) -> Draw:
    """Draw synthetic rows from summed `background_sums`.

    Presence patterns come in proportion to their counts. What fewer than RARE patients show at either end of a column
    is moved inward first, so that no single patient's extreme value is drawn. Each column's values are its quantiles at
    equally spaced levels, so every marginal distribution is met as well as `n_rows` values can; the copula decides
    which go together.

    Args:
        columns: of each modality, in the model's order.
        sums: total over hospitals.
        n_rows: rows to draw.
        seed: same seed and sums, same rows.

    Raises:
        StudyError: no patients in the sums.
    """
    if not sums["patterns"].sum():
        raise StudyError("background: expected patients in the training parts of the hospitals, got none.")
    rng = np.random.default_rng(seed)
    pattern = np.repeat(np.arange(len(sums["patterns"])), _apportion(sums["patterns"], n_rows))
    rng.shuffle(pattern)
    latent = rng.standard_normal((n_rows, len(sums["second"]))) @ _root(_correlation(columns, sums)).T
    present, values, uniforms = {}, {}, {}
    start = 0
    for i, (name, modality) in enumerate(columns.items()):
        here = (pattern >> i) & 1 == 1
        block = latent[:, start : start + modality.width]
        start += modality.width
        ranks = (np.argsort(np.argsort(block[here], axis=0), axis=0) + 0.5) / max(here.sum(), 1)
        present[name], uniforms[name], values[name] = here, np.zeros_like(block), np.zeros_like(block)
        uniforms[name][here] = ranks
        values[name][here] = np.sinh(_quantiles(without_extremes(sums[f"{name}/histogram"]), ranks))
    return Draw(present, values, uniforms)


def without_extremes(histogram: Float[np.ndarray, "column bin"]) -> Float64[np.ndarray, "column bin"]:
    """Counts with the outermost RARE patients of each column's ends in the innermost of their bins."""
    trimmed = np.array(histogram, dtype=np.float64)
    for counts in trimmed:
        total = counts.sum()
        if total < 2 * RARE or np.count_nonzero(counts) <= 2:  # of two values neither is one patient's own
            continue
        for ends in (counts, counts[::-1]):  # views: both ends of the same row
            last = int(np.searchsorted(np.cumsum(ends), RARE))
            ends[last] += ends[:last].sum()
            ends[:last] = 0.0
    return trimmed


def hash_background(model_hash: str, embeddings: Arrays, present: Arrays) -> str:
    """Background id: SHA-256 over the model's hash and the rows."""
    digest = hashlib.sha256(model_hash.encode())
    for name in sorted(embeddings):
        digest.update(f"{name}{embeddings[name].shape}".encode())
        digest.update(np.ascontiguousarray(embeddings[name], dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(present[name], dtype=np.uint8).tobytes())
    return digest.hexdigest()


def _apportion(counts: Float64[np.ndarray, "pattern"], n_rows: int) -> Int64[np.ndarray, "pattern"]:
    """Rows of each pattern in proportion to its count, by largest remainders."""
    exact = counts / counts.sum() * n_rows
    rows = np.floor(exact).astype(np.int64)
    rows[np.argsort(-(exact - rows), kind="stable")[: n_rows - rows.sum()]] += 1
    return np.asarray(rows)


def _correlation(columns: Mapping[str, Columns], sums: Arrays) -> Float64[np.ndarray, "column column"]:
    """Correlations over the patients who have both columns' modalities; constant columns are uncorrelated."""
    owner = np.repeat(np.arange(len(columns)), [modality.width for modality in columns.values()])
    bits = (np.arange(len(sums["patterns"]))[:, None] >> np.arange(len(columns))) & 1
    together = (bits * sums["patterns"][:, None]).T @ bits  # patients with both modalities
    n = np.maximum(together[owner][:, owner], 1.0)
    first = sums["first"][owner].T  # sum of column j over patients with column k's modality
    covariance = sums["second"] / n - (first / n) * (first.T / n)
    sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    varies = sd > 1e-9
    scale = np.where(varies, sd, 1.0)
    correlation = np.where(np.outer(varies, varies), covariance / np.outer(scale, scale), 0.0)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(np.clip(correlation, -1.0, 1.0))


def _root(correlation: Float64[np.ndarray, "column column"]) -> Float64[np.ndarray, "column column"]:
    """A with A A' = the nearest such matrix that is a covariance: pairwise correlations need not be one."""
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    norm = np.sqrt(np.square(root).sum(axis=1, keepdims=True))
    return np.asarray(root / np.where(norm > 0, norm, 1.0))


def _quantiles(
    histogram: Float[np.ndarray, "column bin"], levels: Float64[np.ndarray, "row column"]
) -> Float64[np.ndarray, "row column"]:
    """Values at the given levels of each column's distribution, uniform within a bin; 0 for an empty column."""
    result = np.zeros_like(levels)
    for j, counts in enumerate(histogram):
        if counts.sum() > 0:
            cumulative = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
            bins = np.clip(np.searchsorted(cumulative, levels[:, j], side="left") - 1, 0, N_BINS - 1)
            inside = (levels[:, j] - cumulative[bins]) / (cumulative[bins + 1] - cumulative[bins])
            result[:, j] = EDGES[bins] + inside * (EDGES[bins + 1] - EDGES[bins])
    return result
