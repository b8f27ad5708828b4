from pathlib import Path

import numpy as np
import pytest

from shared_model.errors import SettingsError
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema, load_schema, parse_schema
from simulation.cohort.study import schema_text
from simulation.compare.points import fits, load_points, points_of
from simulation.compare.running import EXAMPLE_SCORE
from tests.server.small_cohort import STATIC_SCHEMA

SCORE = """
name = "test"
source = "made up"

[[items]]
points = 2
conditions = [{ variable = "age", at_least = 80, below = 90 }]

[[items]]
points = 5
conditions = [{ variable = "age", at_least = 90 }]

[[items]]
points = 1
at_least_conditions = 2
conditions = [{ variable = "male", level = "1" }, { variable = "asa", level = "3" }, { variable = "age", below = 70 }]
"""


@pytest.fixture
def schema() -> Schema:
    return parse_schema(STATIC_SCHEMA, source="schema.toml")


def patients(rows: list[tuple[float, float, int]]) -> PatientArrays:
    """Age, male, index of the ASA class."""
    n = len(rows)
    return PatientArrays(
        patient_ids=tuple(str(i) for i in range(n)),
        outcome=np.zeros(n, dtype=np.int8),
        numbers=np.array([row[:2] for row in rows], dtype=np.float64),
        levels=np.array([[row[2]] for row in rows], dtype=np.int64),
        raw={},
        present={"static": np.ones(n, dtype=bool)},
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_points_add_up_and_a_missing_value_gives_none(schema: Schema, tmp_path: Path) -> None:
    score = load_points(write(tmp_path / "score.toml", SCORE), schema)
    rows = [(79.9, 0, 0), (80, 0, 0), (89.9, 1, 2), (90, 1, 0), (60, 1, 0), (np.nan, np.nan, -1)]
    assert points_of(score, patients(rows), schema).tolist() == [0, 2, 3, 5, 1, 0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('variable = "age", at_least = 90', 'variable = "aeg", at_least = 90', "column of the study, got 'aeg'"),
        ('level = "3"', 'level = "V"', "one of the levels 1, 2, 3, got 'V'"),
        ('variable = "male", level = "1"', 'variable = "male", at_least = 1', "one of the levels 0, 1, got None"),
        ("below = 70", 'level = "70"', "at_least or below for a number, got level '70'"),
        ("at_least = 90 }", "at_least = 90, level = \"1\" }", "expected a level, or at_least, below or both"),
        ("points = 5", "point = 5", "point: Extra inputs"),
        ('name = "test"', "", "name: Field required"),
        ("points = 5", "points = ", "expected a TOML file"),
    ],
)  # fmt: skip
def test_score_that_does_not_fit_is_refused(old: str, new: str, message: str, schema: Schema, tmp_path: Path) -> None:
    assert SCORE.count(old) == 1
    with pytest.raises(SettingsError, match="points score at") as caught:
        load_points(write(tmp_path / "score.toml", SCORE.replace(old, new)), schema)
    assert message in str(caught.value)


def test_missing_file_is_refused(schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected a TOML file, got"):
        load_points(tmp_path / "none.toml", schema)


def test_example_fits_the_synthetic_study_and_no_other(schema: Schema, tmp_path: Path) -> None:
    synthetic = load_schema(write(tmp_path / "schema.toml", schema_text(64)))
    assert fits(EXAMPLE_SCORE, synthetic)
    assert not fits(EXAMPLE_SCORE, schema)
    highest = sum(max((item.points for item in group), default=0) for group in _exclusive(EXAMPLE_SCORE, synthetic))
    assert highest == 10  # the Nottingham score's range


def _exclusive(path: Path, schema: Schema) -> list[list]:  # type: ignore[type-arg]
    """Items in groups of which a patient can have one: the age bands, and each other item alone."""
    items = load_points(path, schema).items
    ages = [item for item in items if item.conditions[0].variable == "age_years"]
    return [ages, *[[item] for item in items if item not in ages]]
