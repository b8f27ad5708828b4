"""A points score from a TOML file: variables, cut-offs, points; the form of bedside scores of hip fracture."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Bool, Float64
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared_model.errors import SettingsError
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema


class Condition(BaseModel):
    """When a patient gets the points; a missing value never does.

    Attributes:
        variable: static column.
        at_least: numeric: from here, in the column's unit.
        below: numeric: up to here, not included.
        level: categorical: the level; binary: "1" or "0".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variable: str
    at_least: float | None = None
    below: float | None = None
    level: str | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.level is None) == (self.at_least is None and self.below is None):
            raise ValueError("expected a level, or at_least, below or both")
        return self


class ScoreItem(BaseModel):
    """Points for patients of whom enough conditions hold.

    Attributes:
        points: to add.
        conditions: as a list.
        at_least_conditions: how many must hold, such as two comorbidities of a list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: float
    conditions: tuple[Condition, ...] = Field(min_length=1)
    at_least_conditions: int = Field(1, ge=1)


class PointsScore(BaseModel):
    """A score: the sum of the points of all items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    items: tuple[ScoreItem, ...] = Field(min_length=1)


def load_points(path: Path, schema: Schema) -> PointsScore:
    """The score of a TOML file, checked against the study.

    Raises:
        SettingsError: the file cannot be read, is not a score, or names variables or levels that the study lacks.
    """
    try:
        score = PointsScore.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"points score at {path}: expected a TOML file, got: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise SettingsError(f"points score at {path}: expected name, source and items, got: {faults}.") from error
    wrong = [fault for item in score.items for each in item.conditions if (fault := _fault(each, schema))]
    if wrong:
        raise SettingsError(f"points score at {path}: " + " ".join(wrong))
    return score


def fits(score_path: Path, schema: Schema) -> bool:
    """True if the study has the variables of a score."""
    try:
        load_points(score_path, schema)
    except SettingsError:
        return False
    return True


def points_of(score: PointsScore, arrays: PatientArrays, schema: Schema) -> Float64[np.ndarray, "patient"]:
    """Every patient's points."""
    total = np.zeros(len(arrays))
    for item in score.items:
        held = np.sum([_holds(each, arrays, schema) for each in item.conditions], axis=0)
        total += item.points * (held >= item.at_least_conditions)
    return total


def _fault(condition: Condition, schema: Schema) -> str:
    columns = {column.name: column for column in schema.static}
    column = columns.get(condition.variable)
    if column is None:
        return f"expected a static column of the study, got {condition.variable!r}."
    levels: Sequence[str] = {"categorical": column.levels or (), "binary": ("0", "1")}.get(column.kind, ())
    if column.kind == "numeric" and condition.level is not None:
        return f"{column.name}: expected at_least or below for a number, got level {condition.level!r}."
    if column.kind != "numeric" and condition.level not in levels:
        return f"{column.name}: expected one of the levels {', '.join(levels)}, got {condition.level!r}."
    return ""


def _holds(condition: Condition, arrays: PatientArrays, schema: Schema) -> Bool[np.ndarray, "patient"]:
    column = next(column for column in schema.static if column.name == condition.variable)
    if column.kind == "categorical":
        index = list(column.levels).index(str(condition.level))
        return np.asarray(arrays.levels[:, schema.categories.index(column)] == index)
    values = arrays.numbers[:, schema.numbers.index(column)]
    if column.kind == "binary":
        return np.asarray(values == float(str(condition.level)))
    low = -np.inf if condition.at_least is None else condition.at_least
    high = np.inf if condition.below is None else condition.below
    return np.asarray((values >= low) & (values < high))
