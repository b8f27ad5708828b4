"""Measures of hand-made arrays."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from client.quality.images import find_blank, find_wrong_way
from client.quality.judging import judge_alone
from client.quality.measuring import measure_patients, sum_measures
from client.quality.outcome import region_auc, region_p
from shared_model.patient_arrays import PatientArrays
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.quantities import check_arrays
from shared_model.quality.image_measures import GRID, make_thumbnails, measure_images
from shared_model.quality.measure import to_level
from shared_model.quality.measures import Moments, reference_quantities, subtract_own
from shared_model.quality.series_measures import still_share
from shared_model.schema import Schema

NAN = np.nan
Draw = Callable[..., PatientArrays]


def _measure(arrays: PatientArrays, schema: Schema) -> dict[str, np.ndarray]:
    return measure_patients(arrays, np.arange(len(arrays)), schema=schema, chosen=schema.modalities)


# ------------------------------------------------------------------------------------------------------------- series


def test_still_share_counts_equal_successive_values_over_gaps() -> None:
    values = np.array([[1, 1, NAN, 1, 2, 2], [1, 2, 3, 4, 5, 6], [7, NAN, 7, 7, 7, 7], [1, 1, 1, NAN, NAN, NAN]])

    np.testing.assert_array_equal(still_share(values.astype(np.float64)), [3 / 4, 0, 1, NAN])


def test_recordings_are_measured_by_coverage_level_interval_and_span(small_study: Schema, draw_patients: Draw) -> None:
    vitals = np.full((2, 4, 2), NAN, dtype=np.float64)
    vitals[0, :, 0] = [60, NAN, NAN, 90]  # two of four cells, three cells apart
    vitals[1, 2, 1] = 98  # a single value
    drawn = draw_patients(2)
    arrays = replace(drawn, raw={**drawn.raw, "vitals": vitals}, present={**drawn.present, "vitals": np.ones(2, bool)})

    measured = _measure(arrays, small_study)

    np.testing.assert_array_equal(measured["vitals/known"], [[0.5, 0], [0, 0.25]])
    np.testing.assert_allclose(measured["vitals/level"], [[np.log(75), NAN], [NAN, np.log(98)]], rtol=1e-6)
    np.testing.assert_allclose(measured["vitals/interval"][:, 0], [np.log(3), NAN])
    np.testing.assert_allclose(measured["vitals/span"][:, 0], [np.log(4), 0])


def test_level_is_the_logarithm_of_what_is_positive_and_asinh_where_the_range_goes_below_zero() -> None:
    values = np.array([np.e, 1, 0, NAN])

    np.testing.assert_allclose(to_level(values, (0, 10)), [1, 0, NAN, NAN])
    for limits in ((-10, 10), (-1e9, 1e9)):
        np.testing.assert_allclose(to_level(values, limits), [np.arcsinh(np.e), np.arcsinh(1), 0, NAN])


# ------------------------------------------------------------------------------------------------------------- images


def _gradient(size: int = 32) -> np.ndarray:
    """Dark on top, and darker on the left."""
    down, right = np.mgrid[0:size, 0:size] / size
    return np.asarray(0.6 * down + 0.3 * right)


def _as_images(*gray: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(np.stack(gray) * 65_535), dtype=np.uint16)


def test_exposure_is_mean_gray_its_spread_and_the_share_of_white() -> None:
    half = np.zeros((32, 32))
    half[:, 16:] = 1.0

    numbers, _ = measure_images(_as_images(half), np.array([0]))

    assert numbers[0, [0, 1, 3]] == pytest.approx([0.5, 0.5, 0.5])


def test_blurred_image_is_less_sharp_and_a_darker_one_is_not() -> None:
    rough = np.random.default_rng(0).uniform(0.2, 0.8, (32, 32))
    smooth = (rough + np.roll(rough, 1, 0) + np.roll(rough, 1, 1) + np.roll(rough, (1, 1), (0, 1))) / 4

    sharpness = measure_images(_as_images(rough, smooth, 0.5 * rough), np.arange(3))[0][:, 2]

    assert sharpness[1] < sharpness[0] - 0.5
    assert sharpness[2] == pytest.approx(sharpness[0], abs=1e-3)


@pytest.mark.parametrize("side", [33, 40, 64])
def test_thumbnail_is_the_mean_of_each_region_and_keeps_the_whole_mean_where_regions_are_equal(side: int) -> None:
    image = np.arange(side * side, dtype=np.float64).reshape(1, side, side)

    thumbnail = make_thumbnails(image)

    assert thumbnail.shape == (1, GRID * GRID)
    first = image[0, : side // GRID, : side // GRID]
    assert thumbnail[0, 0] == pytest.approx(first.mean())
    if side % GRID == 0:
        assert thumbnail.mean() == pytest.approx(image.mean())


def test_blank_is_an_image_without_content_in_its_middle() -> None:
    framed = np.full((32, 32), 0.4)
    framed[0] = 1.0

    assert find_blank(_as_images(framed, _gradient(), np.zeros((32, 32))), np.arange(3)).tolist() == [True, False, True]


def test_wrong_way_tells_negatives_and_turned_images_and_takes_mirrored_ones_as_upright() -> None:
    sound = _gradient()
    images = [sound, sound[:, ::-1], 0.9 - sound, np.rot90(sound), sound[::-1, ::-1], np.full((32, 32), 0.5)]
    thumbnails = make_thumbnails(np.stack(images))
    asymmetric = make_thumbnails(np.stack([np.square(sound)]))[0]

    inverted, turned = find_wrong_way(thumbnails, asymmetric)

    assert not inverted[[0, 1, 3, 5]].any()
    assert not turned[[0, 1, 5]].any()
    assert (inverted | turned)[[2, 3, 4]].all()


def test_noise_is_neither_inverted_nor_turned() -> None:
    thumbnails = make_thumbnails(np.random.default_rng(1).uniform(0, 1, (200, 32, 32)))

    inverted, turned = find_wrong_way(thumbnails, thumbnails.mean(axis=0))

    assert not inverted.any()
    assert not turned.any()


# ------------------------------------------------------------------------------------------------------------ outcome


def test_region_auc_counts_brighter_pairs_and_halves_ties() -> None:
    thumbnails = np.array([[3.0, 1.0, 5.0], [2.0, 1.0, 1.0], [1.0, 1.0, 2.0]])

    np.testing.assert_allclose(region_auc(thumbnails, np.array([True, False, False])), [1.0, 0.5, 1.0])


def test_region_p_is_exact_for_few_events() -> None:
    gray = np.arange(10.0)

    assert region_p(gray, gray >= 8) == pytest.approx(2 / 45)  # one of 45 choices of two, on each side


# --------------------------------------------------------------------------------------------------------------- sums


def test_sums_of_two_hospitals_less_ones_own_are_the_others(small_study: Schema, draw_patients: Draw) -> None:
    quantities = reference_quantities(small_study, small_study.modalities)
    sums = []
    for seed in (1, 2):
        arrays = draw_patients(60, seed=seed)
        measured = _measure(arrays, small_study)
        sums.append(sum_measures(measured, schema=small_study, chosen=small_study.modalities, rule=SmallCellRule()))
    names = [name for name in quantities if not name.startswith("correlation/")]
    kept = {name: quantities[name] for name in names}
    total = {name: sums[0][name] + sums[1][name] for name in names}

    others = subtract_own(total, sums[0], kept)

    check_arrays(sums[1], kept, where="sums")
    for name in names:
        np.testing.assert_allclose(others[name], sums[1][name], atol=1e-6)
    level = Moments.read(others, "static/level")
    ages = np.log(draw_patients(60, seed=2).numbers[:, 0].astype(np.float64))
    assert level.n[0] == (~np.isnan(ages)).sum()
    assert level.mean[0] == pytest.approx(np.nanmean(ages))
    assert level.sd[0] == pytest.approx(np.nanstd(ages))


def test_sums_of_few_patients_are_zeros(small_study: Schema, draw_patients: Draw) -> None:
    arrays = draw_patients(19)  # ten X-rays, of which two of deaths; thirteen have vitals

    sums = sum_measures(
        _measure(arrays, small_study),
        schema=small_study,
        chosen=small_study.modalities,
        rule=SmallCellRule(min_patients=11),
    )

    assert sums["static/known/n"].tolist() == [19, 19, 19]
    assert not sums["hip/pixels/n"].any()
    assert not sums["hip/thumbnail-others/n"].any()  # needs events too
    assert not sums["outcome/n"].any()  # four deaths


# ------------------------------------------------------------------------------------------------------ hostile values


def _constant(arrays: PatientArrays) -> PatientArrays:
    return replace(
        arrays,
        numbers=np.ones_like(arrays.numbers),
        raw={
            "vitals": np.full_like(arrays.raw["vitals"], 60),
            "drugs": np.zeros_like(arrays.raw["drugs"]),
            "hip": np.zeros_like(arrays.raw["hip"]),
        },
        outcome=np.zeros_like(arrays.outcome),
    )


def _all_missing(arrays: PatientArrays) -> PatientArrays:
    return replace(
        arrays,
        numbers=np.full_like(arrays.numbers, NAN),
        levels=np.full_like(arrays.levels, -1),
        raw={**arrays.raw, "vitals": np.full_like(arrays.raw["vitals"], NAN)},
        present={name: np.zeros(len(arrays), dtype=bool) for name in arrays.present},
    )


def _same(arrays: PatientArrays) -> PatientArrays:
    return arrays


@pytest.mark.parametrize("change", [_constant, _all_missing, _same])
@pytest.mark.parametrize("n", [0, 1, 2, 12, 40])
@pytest.mark.filterwarnings("error")
def test_any_hospital_can_be_judged_alone(
    small_study: Schema, draw_patients: Draw, change: Callable[[PatientArrays], PatientArrays], n: int
) -> None:
    report = judge_alone(change(draw_patients(n)), small_study, rule=SmallCellRule())

    numbers = [number for finding in report.findings for number in (finding.value, finding.limit)]
    assert all(number is None or np.isfinite(number) for number in numbers)
    if n < 10:
        assert report.findings == ()


def test_constant_recordings_and_black_images_are_red_alone(small_study: Schema, draw_patients: Draw) -> None:
    drawn = draw_patients(40)
    long = replace(drawn, raw={**drawn.raw, "vitals": np.full((40, 6, 2), 60, dtype=np.float64)})

    report = judge_alone(_constant(long), small_study, rule=SmallCellRule())

    assert {(finding.check, finding.item) for finding in report.findings if finding.grade == "red"} == {
        ("flat-lines", "hr"),
        ("flat-lines", "spo2"),
        ("blank", ""),
    }
