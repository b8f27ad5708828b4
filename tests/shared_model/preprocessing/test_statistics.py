from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.errors import ProtocolError
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import Preprocessing, pooled_preprocessing
from shared_model.preprocessing.statistics import (
    HISTOGRAM,
    MAX_QUESTIONS,
    StatisticsFrame,
    ask_until_done,
    replay,
    split_totals,
    stack_totals,
    statistics_quantities,
    sum_features,
)
from shared_model.protocol.quantities import check_arrays
from shared_model.schema import Schema, parse_schema

NAN = np.nan
RANGES = [(0.0, 128.0), (-1e5, 1e5), (-1e9, 1e9), (0.0, 1e12)]


def one_number(limits: tuple[float, float]) -> Schema:
    return parse_schema(
        '[study]\nname="s"\ntitle="t"\noutcome="y"\npatient_id="id"\n'
        f'[[static]]\nname="x"\nkind="numeric"\nrange={list(limits)}\n'
        f'[series.v]\ntime_unit="min"\nstep=1\nsteps=2\n[[series.v.channels]]\nname="c"\nrange={list(limits)}\n',
        source="schema.toml",
    )


def patients(values: Sequence[float] | np.ndarray) -> PatientArrays:
    n, column = len(values), np.asarray(values, dtype=np.float64)
    return PatientArrays(
        patient_ids=tuple(f"P{i}" for i in range(n)),
        outcome=(np.arange(n) % 2).astype(np.int8),
        numbers=column[:, None],
        levels=np.zeros((n, 0), dtype=np.int64),
        raw={"v": np.stack([column, np.full(n, NAN)], axis=1)[:, :, None]},
        present={"static": np.ones(n, dtype=bool), "v": ~np.isnan(column)},
    )


def fit(values: Sequence[float] | np.ndarray, limits: tuple[float, float]) -> Preprocessing:
    arrays = patients(values)
    return pooled_preprocessing(arrays, np.arange(len(arrays)), one_number(limits))


def count_questions(values: np.ndarray, limits: tuple[float, float]) -> int:
    arrays, schema = patients(values), one_number(limits)
    frames: list[StatisticsFrame] = []

    def ask(frame: StatisticsFrame, _: object) -> dict[str, np.ndarray]:
        frames.append(frame)
        sums = sum_features(arrays, np.arange(len(arrays)), schema, frame)
        check_arrays(sums, statistics_quantities(schema, first=len(frames) == 1), where="statistics")
        return sums

    ask_until_done(ask, schema, min_patients=10)
    return len(frames)


def skewed(n: int) -> np.ndarray:
    """Like troponin: median 14, a long tail, two of five missing."""
    rng = np.random.default_rng(5)
    values = np.exp(rng.normal(np.log(14), 1.0, n)).clip(0, 128)
    values[rng.random(n) < 0.4] = NAN
    return values


@pytest.mark.parametrize("limits", RANGES)
def test_moments_do_not_depend_on_the_range(limits: tuple[float, float]) -> None:
    values = skewed(600)
    fitted = fit(values, limits)
    assert fitted.number_mean[0] == pytest.approx(np.nanmean(values), rel=1e-9)
    assert fitted.number_sd[0] == pytest.approx(np.nanstd(values), rel=1e-6)
    assert fitted.series_mean["v"][0] == pytest.approx(np.nanmean(values), rel=1e-9)
    assert fitted.series_sd["v"][0] == pytest.approx(np.nanstd(values), rel=1e-6)


@pytest.mark.parametrize("limits", RANGES)
def test_median_is_within_a_twentieth_of_the_interquartile_range_whatever_the_range(
    limits: tuple[float, float],
) -> None:
    values = skewed(2000)
    lower, middle, upper = np.nanquantile(values, [0.25, 0.5, 0.75])
    assert abs(fit(values, limits).number_fill[0] - middle) <= 0.05 * (upper - lower)


@given(values=st.lists(st.floats(0, 128, width=32), min_size=2, max_size=60))
def test_median_is_off_by_fewer_than_ten_patients_and_a_bin(values: list[float]) -> None:
    fill, ordered, middle = fit(values, (0.0, 128.0)).number_fill[0], np.sort(values), len(values) // 2
    assert ordered[max(middle - 10, 0)] - 2 <= fill  # a bin of the range is 2 wide
    assert fill <= ordered[min(middle + 10, len(ordered) - 1)] + 2


@given(values=st.lists(st.floats(0, 128, width=32), min_size=2, max_size=9))
def test_median_of_few_patients_is_within_a_standard_deviation_of_their_mean(values: list[float]) -> None:
    fill = fit(values, (-1e9, 1e9)).number_fill[0]  # where all of them are in one bin of 31 million
    assert abs(fill - np.mean(values)) <= np.std(values) + 1e-6


def test_large_numbers_keep_their_small_differences() -> None:
    seconds = 1.7e9 + 0.53 * np.arange(400)
    fitted = fit(seconds, (0, 4e9))
    assert fitted.number_mean[0] == pytest.approx(seconds.mean(), rel=1e-12)
    assert fitted.number_sd[0] == pytest.approx(seconds.std(), rel=1e-6)
    assert fitted.number_fill[0] == pytest.approx(np.median(seconds), abs=0.05 * 106)


@pytest.mark.parametrize("limits", RANGES)
@pytest.mark.parametrize("value", [0.0, 77.0])
def test_constant_number_has_its_value_as_mean_and_median_and_a_divisor_of_one(
    limits: tuple[float, float], value: float
) -> None:
    fitted = fit(np.full(30, value), limits)
    assert fitted.number_mean[0] == pytest.approx(value, abs=1e-9)
    assert fitted.number_fill[0] == pytest.approx(value, abs=1e-9)
    assert (fitted.number_sd, fitted.series_sd["v"]) == ([1.0], [1.0])


def test_value_of_most_patients_is_the_median_to_six_digits() -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random(500) < 0.8, 3.0, rng.uniform(0, 100, 500))
    assert fit(values, (-1e9, 1e9)).number_fill[0] == pytest.approx(3, abs=1e-4)


def test_one_far_value_is_within_the_agreed_limits_of_the_sums() -> None:
    values = np.append(np.full(99, 1.0), 1e9)
    assert count_questions(values, (-1e9, 1e9)) < MAX_QUESTIONS  # `ask` checks every answer
    assert fit(values, (-1e9, 1e9)).number_sd[0] == pytest.approx(values.std(), rel=1e-9)


@pytest.mark.parametrize(("limits", "most"), [((0.0, 128.0), 2), ((-1e9, 1e9), 6)])
def test_questions_are_few(limits: tuple[float, float], most: int) -> None:
    assert count_questions(skewed(2000), limits) <= most


def test_median_is_not_cut_finer_than_groups_of_min_patients() -> None:
    arrays, schema = patients(np.linspace(10, 100, 60)), one_number((0.0, 128.0))
    frames: list[StatisticsFrame] = []

    def ask(frame: StatisticsFrame, _: object) -> dict[str, np.ndarray]:
        frames.append(frame)
        return sum_features(arrays, np.arange(60), schema, frame)

    ask_until_done(ask, schema, min_patients=10)
    # 60 values over 90 units: a bin of 2 units holds one or two, fewer than 10.
    assert [bool(frame.quartiles.wanted[0]) for frame in frames] == [True]


@pytest.mark.parametrize("limits", [(0.0, 128.0), (-1e9, 1e9)])
def test_median_of_two_equal_halves_lies_between_them(limits: tuple[float, float]) -> None:
    values = np.repeat([0.0, 100.0], 50)
    assert fit(values, limits).number_fill[0] == pytest.approx(50, abs=5)


def test_binary_column_is_asked_for_once_and_without_a_histogram(small_study: Schema) -> None:
    frame = StatisticsFrame.start(small_study)
    male = [column.name for column in small_study.numbers].index("male")
    assert not frame.quartiles.wanted[male]
    assert frame.moments["numbers"].once[male]


def test_totals_travel_as_one_array_a_name_and_give_the_same_frame() -> None:
    arrays, schema = patients(skewed(300)), one_number((-1e9, 1e9))
    totals: list[dict[str, np.ndarray]] = []
    frame = StatisticsFrame.start(schema)
    for _ in range(4):
        totals.append(sum_features(arrays, np.arange(300), schema, frame))
        frame = frame.advance(totals[-1], min_patients=10)
    received = split_totals(stack_totals(totals, schema), schema)
    again = replay(schema, received, min_patients=10)
    assert again.quartiles.low.tobytes() == frame.quartiles.low.tobytes()
    assert again.moments["v"].scale.tobytes() == frame.moments["v"].scale.tobytes()
    assert split_totals(stack_totals([], schema), schema) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda stacked: {**stacked, "more": np.zeros((1, 1))},
        lambda stacked: {**stacked, HISTOGRAM: stacked[HISTOGRAM][:, :, 1:]},
        lambda stacked: {**stacked, HISTOGRAM: stacked[HISTOGRAM] * NAN},
        lambda stacked: {**stacked, HISTOGRAM: np.concatenate([stacked[HISTOGRAM]] * 2)},
        lambda stacked: {name: np.concatenate([value] * MAX_QUESTIONS) for name, value in stacked.items()},
        lambda stacked: {**stacked, "numbers/n": np.array(3.0)},
    ],
    ids=["another array", "another shape", "not finite", "more questions of one", "too many questions", "no question"],
)
def test_totals_that_no_question_can_have_are_refused(change: object) -> None:
    schema = one_number((0.0, 128.0))
    total = sum_features(patients(skewed(50)), np.arange(50), schema, StatisticsFrame.start(schema))
    stacked = stack_totals([total], schema)
    assert callable(change)
    with pytest.raises(ProtocolError):
        split_totals(change(stacked), schema)


def test_hospital_that_answers_no_more_leaves_the_median_as_it_was_known() -> None:
    schema = one_number((-1e9, 1e9))
    everyone, few = patients(skewed(500)), patients(np.full(20, 1e6))
    frame = StatisticsFrame.start(schema)
    for _ in range(2):
        frame = frame.advance(sum_features(everyone, np.arange(500), schema, frame), min_patients=10)
    known = frame.quartiles.median[0]
    later = frame.advance(sum_features(few, np.arange(20), schema, frame), min_patients=10)
    assert later.quartiles.median[0] == known
    assert not later.quartiles.wanted[0]


@pytest.mark.parametrize("value", [0.7, 0.8], ids=["lowest", "highest"])
def test_value_at_the_end_of_its_range_counts_though_float32_puts_it_outside(value: float) -> None:
    # In float32 0.7 is 0.699999988 and 0.8 is 0.800000012.
    text = (
        '[study]\nname="s"\ntitle="t"\noutcome="y"\npatient_id="id"\n'
        '[[static]]\nname="x"\nkind="numeric"\nrange=[0.7, 0.8]'
    )
    schema = parse_schema(text, source="schema.toml")
    arrays = PatientArrays(
        patient_ids=("A", "B"),
        outcome=np.array([0, 1], dtype=np.int8),
        numbers=np.full((2, 1), value, dtype=np.float32).astype(np.float64),
        levels=np.zeros((2, 0), dtype=np.int64),
        raw={},
        present={"static": np.ones(2, dtype=bool)},
    )
    sums = sum_features(arrays, np.arange(2), schema, StatisticsFrame.start(schema))
    check_arrays(sums, statistics_quantities(schema, first=True), where="statistics")
    assert sums["numbers/histogram"][:, 1:-1].sum() == 2
