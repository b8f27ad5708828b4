from collections.abc import Callable

import numpy as np
import pytest

from shared_model.config import Settings, parse_settings
from shared_model.errors import SettingsError
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema
from shared_model.shapley.strata import Banding, Stratum, check_strata, list_strata, parse_strata, stratum_members


def strata_of(text: str) -> Settings:
    return parse_settings({"strata": text})


def patients_aged(ages: list[float], draw_patients: Callable[..., PatientArrays]) -> PatientArrays:
    arrays: PatientArrays = draw_patients(len(ages))
    arrays.numbers[:, 0] = ages
    return arrays


def members_by_label(
    schema: Schema, text: str, arrays: PatientArrays, rows: np.ndarray | None = None
) -> dict[str, list[int]]:
    settings = strata_of(text)
    rows = np.arange(len(arrays)) if rows is None else rows
    members = stratum_members(schema, settings, arrays, rows)
    return {
        stratum.label: np.flatnonzero(row).tolist()
        for stratum, row in zip(list_strata(schema, settings), members, strict=True)
    }


def test_columns_and_edges_are_read_from_the_setting() -> None:
    assert parse_strata("male, age:65:80.5") == (Banding("male", ()), Banding("age", (65.0, 80.5)))
    assert parse_strata(" ") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age:old", "expected edges such as age:65:80, got 'age:old'"),
        ("age:80:65", "rising edges"),
        ("age:65:65", "rising edges"),
        ("age:", "expected edges"),
    ],
)
def test_edges_that_are_no_rising_numbers_are_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_strata(text)


@pytest.mark.parametrize("text", ["age:nan", "age:60:nan", "age:inf"])
def test_edge_that_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_strata(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight", "expected static columns of the study, got 'weight'"),
        ("age", "age: a numeric column needs edges"),
        ("male:1", "male: a binary column needs no edges"),
        ("asa:1", "asa: a categorical column needs no edges"),
    ],
)
def test_strata_that_do_not_fit_the_study_are_refused(text: str, message: str, small_study: Schema) -> None:
    with pytest.raises(SettingsError, match=message):
        check_strata(small_study, strata_of(text))


def test_default_strata_fit_a_study_that_lacks_their_columns(small_study: Schema) -> None:
    settings = parse_settings({})
    assert settings.strata == "male,age_years:65:80"

    check_strata(small_study, settings)

    assert [s.label for s in list_strata(small_study, settings) if s.variable] == ["0", "1", "0", "1", "missing"]


def test_everybody_comes_first_then_outcome_then_the_columns_as_written(small_study: Schema) -> None:
    assert list_strata(small_study, strata_of("age:65:80,asa,male")) == (
        Stratum("", "all"),
        *(Stratum("outcome", label) for label in ("0", "1")),
        *(Stratum("age", label) for label in ("below 65", "65-80", "from 80", "missing")),
        *(Stratum("asa", label) for label in ("1", "2", "3", "missing")),
        *(Stratum("male", label) for label in ("0", "1", "missing")),
    )


def test_value_on_an_edge_belongs_to_the_band_above(
    small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    arrays = patients_aged([64.9, 65, 79.9, 80, np.nan], draw_patients)

    found = members_by_label(small_study, "age:65:80", arrays)

    assert [found[label] for label in ("below 65", "65-80", "from 80", "missing")] == [[0], [1, 2], [3], [4]]


def test_value_on_an_edge_that_float32_cannot_hold_belongs_to_the_band_above(
    small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    """The hospital's arrays are float32: its 0.7 is a little below the edge 0.7 in float64."""
    arrays = patients_aged([0.6, 0.7, 0.8], draw_patients)

    found = members_by_label(small_study, "age:0.7", arrays)

    assert found["from 0.7"] == [1, 2]


def test_levels_and_binaries_have_a_group_each_and_one_for_the_missing(
    small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    arrays = draw_patients(5)
    arrays.levels[:, 0] = [0, 2, -1, 1, 2]
    arrays.numbers[:, 1] = [0, 1, 1, np.nan, 0]

    found = stratum_members(small_study, strata_of("asa"), arrays, np.arange(5))
    assert [np.flatnonzero(row).tolist() for row in found[3:]] == [[0], [3], [1, 4], [2]]
    found = stratum_members(small_study, strata_of("male"), arrays, np.arange(5))
    assert [np.flatnonzero(row).tolist() for row in found[3:]] == [[0, 4], [1, 2], [3]]


def test_rows_are_those_that_were_asked_for(small_study: Schema, draw_patients: Callable[..., PatientArrays]) -> None:
    arrays = patients_aged([50, 90, 50, 90], draw_patients)

    found = members_by_label(small_study, "age:65", arrays, rows=np.array([3, 2]))

    assert (found["below 65"], found["from 65"], found["all"]) == ([1], [0], [0, 1])


def test_groups_of_every_variable_share_out_everybody(
    small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    settings, arrays = strata_of("male,age:65:80,asa"), draw_patients(50)

    members = stratum_members(small_study, settings, arrays, np.arange(50))

    strata = list_strata(small_study, settings)
    for variable in ("", "outcome", "male", "age", "asa"):
        own = [row for stratum, row in zip(strata, members, strict=True) if stratum.variable == variable]
        np.testing.assert_array_equal(np.sum(own, axis=0), 1)
    np.testing.assert_array_equal(members[2], arrays.outcome == 1)
