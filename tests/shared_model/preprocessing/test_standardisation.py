import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.cohort_folder import list_hospitals
from client.data import load_hospital
from shared_model.errors import StudyError
from shared_model.model.batch import Batch
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import Preprocessing, fit_preprocessing, pooled_preprocessing
from shared_model.preprocessing.statistics import (
    StatisticsFrame,
    Sums,
    ask_until_done,
    replay,
    split_totals,
    stack_totals,
    statistics_quantities,
    sum_features,
)
from shared_model.protocol.quantities import check_arrays
from shared_model.schema import Schema, load_schema
from shared_model.splits import split_patients

CPU = torch.device("cpu")
NAN = np.nan

Draw = Callable[..., PatientArrays]


def four_patients() -> PatientArrays:
    """Of the small study: the third lacks the vitals, the second the drugs, the last two the X-ray."""
    hr: list[list[float]] = [[100, NAN, 120, NAN], [NAN, NAN, 80, NAN], [NAN] * 4, [NAN] * 4]
    spo2: list[list[float]] = [[NAN, 96, NAN, NAN], [100, 100, 100, 100], [NAN] * 4, [92, NAN, NAN, NAN]]
    images = np.zeros((4, 33, 33), dtype=np.uint16)
    images[0] = 65_535
    return PatientArrays(
        patient_ids=("A", "B", "C", "D"),
        outcome=np.array([0, 1, 0, 0], dtype=np.int8),
        numbers=np.array([[80, 1], [90, NAN], [NAN, 0], [70, 1]], dtype=np.float64),
        levels=np.array([[0], [2], [-1], [0]]),
        raw={
            "vitals": np.stack([np.array(hr), np.array(spo2)], axis=2).astype(np.float64),
            "drugs": np.array([[np.e - 1, 0], [0, 0], [0, 0], [np.e**4 - 1, 0]], dtype=np.float32),
            "hip": images,
        },
        present={
            "static": np.ones(4, dtype=bool),
            "vitals": np.array([True, True, False, True]),
            "drugs": np.array([True, False, True, True]),
            "hip": np.array([True, True, False, False]),
        },
    )


def fit(arrays: PatientArrays, schema: Schema, rows: np.ndarray | None = None) -> Preprocessing:
    return pooled_preprocessing(arrays, np.arange(len(arrays)) if rows is None else rows, schema)


def batch(preprocessing: Preprocessing, arrays: PatientArrays, schema: Schema, *rows: int) -> Batch:
    return preprocessing.batch(arrays, np.array(rows), schema=schema, device=CPU)


def test_moments_of_numbers_are_those_of_the_known_values(small_study: Schema) -> None:
    fitted = fit(four_patients(), small_study)
    assert fitted.number_mean == pytest.approx([80, 2 / 3])
    assert fitted.number_sd == pytest.approx([(200 / 3) ** 0.5, 2**0.5 / 3])


def test_missing_number_is_filled_with_the_median_and_missing_flag_with_the_mean(small_study: Schema) -> None:
    # Of 70, 80, 90 in bins of 128 / 64 = 2 years the middle one's bin begins at 80; its centre is 81.
    assert fit(four_patients(), small_study).number_fill == pytest.approx([81, 2 / 3])


def test_level_counts_end_with_the_missing_ones(small_study: Schema) -> None:
    sums = sum_features(four_patients(), np.arange(4), small_study, StatisticsFrame.start(small_study))
    assert sums["levels/asa"].tolist() == [2, 0, 1, 1]


def test_moments_of_series_are_those_of_the_measured_cells(small_study: Schema) -> None:
    fitted = fit(four_patients(), small_study)
    spo2 = [96, 100, 100, 100, 100, 92]
    assert fitted.series_mean["vitals"] == pytest.approx([100, 98])
    assert fitted.series_sd["vitals"] == pytest.approx([(800 / 3) ** 0.5, statistics.pstdev(spo2)])


def test_moments_of_events_are_of_the_log_doses_of_patients_with_records(small_study: Schema) -> None:
    fitted = fit(four_patients(), small_study)
    # log(1 + dose) of opioids: 1, 0, 4 over the three with records; nobody got insulin.
    assert fitted.event_mean["drugs"] == pytest.approx([5 / 3, 0])
    assert fitted.event_sd["drugs"] == pytest.approx([(26 / 9) ** 0.5, 1])


def test_moments_of_images_are_those_of_the_images_that_exist(small_study: Schema) -> None:
    fitted = fit(four_patients(), small_study)
    assert (fitted.image_mean["hip"], fitted.image_sd["hip"]) == pytest.approx((0.5, 0.5))


def test_counts_of_patients_are_kept(small_study: Schema) -> None:
    fitted = fit(four_patients(), small_study)
    assert (fitted.n, fitted.events) == (4, 1)


def test_sums_leave_out_patients_of_other_rows(small_study: Schema) -> None:
    fitted = fit(four_patients(), small_study, np.array([0, 1, 2]))
    assert (fitted.n, fitted.number_mean[0], fitted.series_mean["vitals"][1]) == pytest.approx((3, 85, 496 / 5))


def test_number_that_nobody_has_becomes_zero(small_study: Schema) -> None:
    arrays = four_patients()
    arrays.numbers[:, 0] = NAN
    numbers = batch(fit(arrays, small_study), arrays, small_study, 0, 1).numbers
    assert numbers[:, 0].tolist() == [0, 0]


def test_number_that_never_varies_becomes_zero(small_study: Schema) -> None:
    arrays = four_patients()
    arrays.numbers[:, 0] = 77
    numbers = batch(fit(arrays, small_study), arrays, small_study, 0, 1, 2, 3).numbers
    assert numbers[:, 0].tolist() == pytest.approx([0] * 4, abs=1e-5)


@given(data=st.data())
def test_sums_of_two_hospitals_are_those_of_their_patients_together(
    data: st.DataObject, small_study: Schema, draw_patients: Draw
) -> None:
    arrays = draw_patients(12, seed=3)
    here = np.array(data.draw(st.lists(st.booleans(), min_size=12, max_size=12)))
    frame = StatisticsFrame.start(small_study)
    whole = sum_features(arrays, np.arange(12), small_study, frame)
    first, second = (sum_features(arrays, np.flatnonzero(group), small_study, frame) for group in (here, ~here))
    for name, value in whole.items():
        assert np.allclose(first[name] + second[name], value, rtol=1e-12, atol=0), name


@pytest.mark.parametrize("rows", [[], [1], [0, 2]], ids=["nobody", "only deaths", "no death"])
def test_fit_is_refused_when_there_is_nothing_to_learn_from(rows: list[int], small_study: Schema) -> None:
    with pytest.raises(StudyError, match=f"expected patients with and without the outcome, got .* among {len(rows)} "):
        fit(four_patients(), small_study, np.array(rows, dtype=np.int64))


def test_batch_holds_standard_numbers_then_their_missing_flags(small_study: Schema) -> None:
    arrays = four_patients()
    numbers = batch(fit(arrays, small_study), arrays, small_study, 1, 2).numbers
    sd = (200 / 3) ** 0.5
    assert numbers[0].tolist() == pytest.approx([10 / sd, 0, 0, 1], abs=1e-6)
    assert numbers[1].tolist() == pytest.approx([1 / sd, -(2**0.5), 1, 0], abs=1e-6)


def test_batch_gives_a_missing_level_the_last_index(small_study: Schema) -> None:
    arrays = four_patients()
    assert batch(fit(arrays, small_study), arrays, small_study, 0, 1, 2, 3).levels.tolist() == [[0], [2], [3], [0]]


def test_batch_holds_series_as_value_measured_flag_and_gap(small_study: Schema) -> None:
    arrays = four_patients()
    value, measured, gap = torch.split(
        batch(fit(arrays, small_study), arrays, small_study, 0).inputs["vitals"][0], 2, dim=1
    )
    sd = (800 / 3) ** 0.5
    assert value[:, 0].tolist() == pytest.approx([0, 0, 20 / sd, 0], abs=1e-6)
    assert measured.T.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    # The time since the channel was last measured, in steps of a quarter of the grid; 1 before the first time.
    assert gap.T.tolist() == [[0, 0.25, 0, 0.25], [1, 0, 0.25, 0.5]]


def test_batch_holds_standard_log_doses(small_study: Schema) -> None:
    arrays = four_patients()
    drugs = batch(fit(arrays, small_study), arrays, small_study, 0, 3).inputs["drugs"]
    sd = (26 / 9) ** 0.5
    assert drugs.tolist() == [pytest.approx([(1 - 5 / 3) / sd, 0]), pytest.approx([(4 - 5 / 3) / sd, 0])]


def test_batch_holds_standard_gray_values(small_study: Schema) -> None:
    arrays = four_patients()
    hip = batch(fit(arrays, small_study), arrays, small_study, 0, 1).inputs["hip"]
    assert hip.shape == (2, 1, 33, 33)
    assert torch.allclose(hip[0], torch.ones(1, 33, 33))
    assert torch.allclose(hip[1], -torch.ones(1, 33, 33))


def test_batch_is_zero_where_a_modality_is_absent(small_study: Schema) -> None:
    arrays = four_patients()
    made = batch(fit(arrays, small_study), arrays, small_study, 1, 2)
    assert made.present["drugs"].tolist() == [False, True]
    assert made.inputs["drugs"][0].tolist() == [0, 0]
    assert made.present["hip"].tolist() == [True, False]
    assert not made.inputs["hip"][1].any()
    assert made.present["vitals"].tolist() == [True, False]
    assert not made.inputs["vitals"][1].any()


def test_batch_of_a_patient_does_not_depend_on_the_others(small_study: Schema, draw_patients: Draw) -> None:
    arrays = draw_patients(8)
    fitted = fit(arrays, small_study)
    together = batch(fitted, arrays, small_study, *range(8))
    alone = batch(fitted, arrays, small_study, 6)
    assert alone.outcome.tolist() == together.outcome[[6]].tolist()
    assert torch.equal(alone.numbers, together.numbers[[6]])
    assert torch.equal(alone.levels, together.levels[[6]])
    for kind in ("inputs", "present"):
        for name, value in getattr(alone, kind).items():
            assert torch.equal(value, getattr(together, kind)[name][[6]]), name


def test_json_brings_back_every_bit(small_study: Schema) -> None:
    awkward = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1 / 3, -0.0]
    fitted = dataclasses.replace(fit(four_patients(), small_study), number_mean=awkward, series_sd={"vitals": awkward})
    back = Preprocessing.from_json(fitted.to_json())
    assert back == fitted
    assert back.to_json() == fitted.to_json()
    assert [value.hex() for value in back.number_mean] == [value.hex() for value in awkward]


@dataclass(frozen=True)
class Cohort:
    """The training parts of the real hospitals: as the client reads them, and as pandas reads the same files."""

    schema: Schema
    hospitals: list[tuple[PatientArrays, np.ndarray]]
    patients: pd.DataFrame
    vitals: pd.DataFrame
    medications: pd.DataFrame


@pytest.fixture(scope="module")
def cohort(eicu_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    schema = load_schema(eicu_demo / "schema.toml")
    hospitals, tables = [], []
    for folder in list_hospitals(eicu_demo):
        arrays = load_hospital(folder, schema, cache_dir=tmp_path_factory.mktemp("cache"))
        rows = split_patients(arrays.patient_ids, arrays.outcome, fold=0, folds=5, seed=0).train
        hospitals.append((arrays, rows))
        ids = [arrays.patient_ids[row] for row in rows]
        vitals = pd.read_parquet(folder / "vitals.parquet")
        medications = pd.read_csv(folder / "medications.csv")
        tables.append(
            (
                pd.read_csv(folder / "patients.csv").set_index("patient_id").loc[ids],
                vitals[vitals.patient_id.isin(ids)],
                medications[medications.patient_id.isin(ids)],
            )
        )
    patients, vitals, medications = (pd.concat(list(parts)) for parts in zip(*tables, strict=True))
    return Cohort(schema, hospitals, patients, vitals, medications)


@pytest.fixture(scope="module")
def federated(cohort: Cohort) -> Preprocessing:
    """From the hospitals' sums, added as the coordinator adds them: in fixed point."""

    def ask(_: StatisticsFrame, totals: Sequence[Mapping[str, np.ndarray]]) -> Sums:
        quantities = statistics_quantities(cohort.schema, first=not totals)
        received = split_totals(stack_totals(totals, cohort.schema), cohort.schema)
        frame = replay(cohort.schema, received, min_patients=10)  # as a hospital finds it
        replies = [sum_features(arrays, rows, cohort.schema, frame) for arrays, rows in cohort.hospitals]
        for reply in replies:
            check_arrays(reply, quantities, where="statistics")
        return {
            name: quantity.decode(np.asarray(sum(quantity.encode(reply[name]) for reply in replies)))
            for name, quantity in quantities.items()
        }

    frame, sums = ask_until_done(ask, cohort.schema, min_patients=10)
    return fit_preprocessing(frame, sums, cohort.schema)


def pool(cohort: Cohort) -> PatientArrays:
    def join(arrays: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}

    parts, rows = zip(*cohort.hospitals, strict=True)
    taken = [
        dataclasses.replace(
            arrays,
            patient_ids=tuple(arrays.patient_ids[row] for row in kept),
            outcome=arrays.outcome[kept],
            numbers=arrays.numbers[kept],
            levels=arrays.levels[kept],
            raw={name: value[kept] for name, value in arrays.raw.items()},
            present={name: value[kept] for name, value in arrays.present.items()},
        )
        for arrays, kept in zip(parts, rows, strict=True)
    ]
    return PatientArrays(
        patient_ids=tuple(patient for arrays in taken for patient in arrays.patient_ids),
        outcome=np.concatenate([arrays.outcome for arrays in taken]),
        numbers=np.concatenate([arrays.numbers for arrays in taken]),
        levels=np.concatenate([arrays.levels for arrays in taken]),
        raw=join([arrays.raw for arrays in taken]),
        present=join([arrays.present for arrays in taken]),
    )


def flatten(preprocessing: Preprocessing) -> dict[str, float]:
    """Every number of a preprocessing by its place, e.g. `series_mean/vitals/0`."""
    flat: dict[str, float] = {}
    waiting = list(dataclasses.asdict(preprocessing).items())
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{place}/{i}", each) for i, each in enumerate(value)]
        elif isinstance(value, dict):
            waiting += [(f"{place}/{name}", each) for name, each in value.items()]
        else:
            flat[place] = value
    return flat


def test_hospitals_together_preprocess_as_their_pooled_patients(cohort: Cohort, federated: Preprocessing) -> None:
    pooled = fit(pool(cohort), cohort.schema)
    assert list(flatten(federated)) == list(flatten(pooled))
    assert flatten(federated) == pytest.approx(flatten(pooled), rel=1e-7, abs=1e-12)


def test_moments_of_real_numbers_equal_pandas(cohort: Cohort, federated: Preprocessing) -> None:
    names = [column.name for column in cohort.schema.numbers]
    values = cohort.patients[names].astype(float)
    sd = values.std(ddof=0)
    assert federated.number_mean == pytest.approx(values.mean().tolist(), rel=1e-6)
    assert federated.number_sd == pytest.approx(sd.where(sd > 0, 1.0).tolist(), rel=1e-5)


def test_medians_of_real_numbers_are_within_a_twentieth_of_the_interquartile_range_of_pandas(
    cohort: Cohort, federated: Preprocessing
) -> None:
    for fill, column in zip(federated.number_fill, cohort.schema.numbers, strict=True):
        values = cohort.patients[column.name].astype(float)
        if column.range is not None:
            between = values.quantile(0.75) - values.quantile(0.25)
            # In rank the median's bin holds fewer than 10 values where it is wider than that.
            middle = values.count() // 2
            low, high = values.dropna().sort_values().iloc[[middle - 10, middle + 10]]
            assert abs(fill - values.median()) <= 0.05 * between or low <= fill <= high, column.name
        else:
            assert fill == pytest.approx(values.mean(), rel=1e-6), column.name


def test_moments_of_real_vital_signs_equal_pandas(cohort: Cohort, federated: Preprocessing) -> None:
    channels = [channel.name for channel in cohort.schema.series["vitals"].channels]
    values = cohort.vitals[channels].astype(float)  # one row an hour, as the grid
    assert federated.series_mean["vitals"] == pytest.approx(values.mean().tolist(), rel=1e-6)
    assert federated.series_sd["vitals"] == pytest.approx(values.std(ddof=0).tolist(), rel=1e-5)


def test_moments_of_real_medications_equal_pandas(cohort: Cohort, federated: Preprocessing) -> None:
    recorded = cohort.patients.index[cohort.patients.medications_recorded == 1]
    items = list(cohort.schema.events["medications"].items)
    given = pd.crosstab(cohort.medications.patient_id, cohort.medications.item).clip(upper=1)
    given = given.reindex(index=recorded, columns=items, fill_value=0)
    assert federated.event_mean["medications"] == pytest.approx(given.mean().tolist(), rel=1e-9)
    assert federated.event_sd["medications"] == pytest.approx(given.std(ddof=0).tolist(), rel=1e-9)


def test_real_batch_has_mean_0_and_sd_1_over_all_hospitals(cohort: Cohort, federated: Preprocessing) -> None:
    arrays = pool(cohort)
    made = federated.batch(arrays, np.arange(len(arrays)), schema=cohort.schema, device=CPU)
    values, missing = made.numbers.double().chunk(2, dim=1)
    for i, column in enumerate(cohort.schema.numbers):
        known = values[missing[:, i] == 0, i]
        assert float(known.mean()) == pytest.approx(0, abs=1e-5), column.name
        varies = bool((known != known[0]).any())  # AIDS is so rare that no training patient has it
        assert float(known.std(correction=0)) == pytest.approx(float(varies), abs=1e-5), column.name
    signs, measured, _ = made.inputs["vitals"].double().chunk(3, dim=2)
    for i in range(signs.shape[2]):
        known = signs[..., i][measured[..., i] == 1]
        assert float(known.mean()) == pytest.approx(0, abs=1e-5)
        assert float(known.std(correction=0)) == pytest.approx(1, abs=1e-5)
    items = made.inputs["medications"][made.present["medications"]].double()
    assert items.mean(dim=0).tolist() == pytest.approx([0] * items.shape[1], abs=1e-5)
    assert items.std(dim=0, correction=0).tolist() == pytest.approx([1] * items.shape[1], abs=1e-5)
