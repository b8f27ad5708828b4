"""Groups of patients whose explanations are summed apart: everybody, by outcome, and by the columns of `strata`."""

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np
from jaxtyping import Bool, Int64

from shared_model.config import Settings
from shared_model.errors import SettingsError
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema, StaticColumn

OUTCOME = "outcome"
MISSING = "missing"


@dataclass(frozen=True)
class Stratum:
    """One group.

    Attributes:
        variable: `outcome` or a static column; "" for everybody. The groups of one variable share out everybody.
        label: of the group: 0, 1, a level, a band such as `65-80` (from 65 to below 80), or `missing`.
    """

    variable: str
    label: str


@dataclass(frozen=True)
class Banding:
    """A static column and, if it is numeric, the inner edges of its bands."""

    column: str
    edges: tuple[float, ...]


def parse_strata(text: str) -> tuple[Banding, ...]:
    """`male,age_years:65:80` as columns with edges.

    Raises:
        SettingsError: an edge is not a number, or edges do not rise.
    """
    bandings: list[Banding] = []
    for entry in (part.strip() for part in text.split(",") if part.strip()):
        name, *edges = entry.split(":")
        try:
            numbers = tuple(float(edge) for edge in edges)
        except ValueError as error:
            raise SettingsError(f"strata, {name}: expected edges such as {name}:65:80, got {entry!r}.") from error
        if not all(map(isfinite, numbers)) or any(high <= low for low, high in pairwise(numbers)):
            raise SettingsError(f"strata, {name}: expected rising edges, got {entry!r}.")
        if any(name == banding.column for banding in bandings):
            raise SettingsError(f"strata, {name}: expected each column once, got it twice.")
        bandings.append(Banding(name, numbers))
    return tuple(bandings)


def check_strata(schema: Schema, settings: Settings) -> None:
    """The strata fit the study.

    Raises:
        SettingsError: a column is unknown (unless the default names it, which suits the usual columns), or a numeric
            column has no edges, or another has some.
    """
    columns = {column.name: column for column in schema.static}
    is_default = settings.strata == Settings.model_fields["strata"].default
    for banding in parse_strata(settings.strata):
        column = columns.get(banding.column)
        if column is None:
            if is_default:
                continue
            raise SettingsError(f"strata: expected static columns of the study, got {banding.column!r}.")
        if (column.kind == "numeric") != bool(banding.edges):
            rule = "edges such as age_years:65:80" if column.kind == "numeric" else "no edges"
            raise SettingsError(f"strata, {column.name}: a {column.kind} column needs {rule}.")


def list_strata(schema: Schema, settings: Settings) -> tuple[Stratum, ...]:
    """All groups, everybody first."""
    strata = [Stratum("", "all"), Stratum(OUTCOME, "0"), Stratum(OUTCOME, "1")]
    columns = {column.name: column for column in schema.static}
    for banding in parse_strata(settings.strata):
        if banding.column in columns:
            labels = [*_labels(columns[banding.column], banding.edges), MISSING]
            strata += [Stratum(banding.column, label) for label in labels]
    return tuple(strata)


def stratum_members(
    schema: Schema, settings: Settings, arrays: PatientArrays, rows: Int64[np.ndarray, "patient"]
) -> Bool[np.ndarray, "stratum patient"]:
    """Who is in which group, in the order of `list_strata`."""
    outcome = arrays.outcome[rows]
    members = [np.ones(len(rows), dtype=bool), outcome == 0, outcome == 1]
    columns = {column.name: column for column in schema.static}
    for banding in parse_strata(settings.strata):
        if banding.column not in columns:
            continue
        column = columns[banding.column]
        if column.kind == "categorical":
            levels = arrays.levels[rows, schema.categories.index(column)]
            index = np.where(levels < 0, len(column.levels), levels)
        else:
            values = arrays.numbers[rows, schema.numbers.index(column)]
            edges = np.array(banding.edges or (0.5,), dtype=values.dtype)
            index = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
        members += [index == i for i in range(len(_labels(column, banding.edges)) + 1)]
    return np.stack(members)


def _labels(column: StaticColumn, edges: tuple[float, ...]) -> list[str]:
    if column.kind == "categorical":
        return list(column.levels)
    if column.kind == "binary":
        return ["0", "1"]
    inner = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *inner, f"from {edges[-1]:g}"]
