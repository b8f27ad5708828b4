import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from simulation.cohort.chest_image import render_chests
from simulation.cohort.hip_image import render_hips
from simulation.cohort.image_files import marker_pixels, rescan, stamp
from simulation.cohort.patients import SyntheticPatients, draw_patients
from simulation.cohort.recordings import medications_table, vitals_table
from simulation.cohort.shapes import PixelGrid, Plane, capsule, ellipse, fill, merge, pixel_points, rim
from simulation.cohort.sites import plan_sites
from simulation.scenarios import Marker, Scanner

SITE = plan_sites(hospitals=1, patients=300, equal_sizes=True)[0]
STILL = np.zeros((1, 1, 1), dtype=np.float32)


def grid(size: int = 200) -> PixelGrid:
    return pixel_points(size, scale=STILL + 1, right=STILL, down=STILL)


def area(shape: Plane) -> float:
    return float(fill(shape, softness=1 / 200).mean())


def test_ellipse_covers_pi_a_b() -> None:
    tilted = ellipse(grid(), centre=(0.5, 0.5), radii=(0.4, 0.2), turn=0.7)
    assert area(tilted) == pytest.approx(math.pi * 0.4 * 0.2, rel=0.005)


def test_capsule_covers_its_rod_and_its_two_ends() -> None:
    rod = capsule(grid(), start=(0.3, 0.5), end=(0.7, 0.5), radii=(0.1, 0.1))
    assert area(rod) == pytest.approx(0.4 * 0.2 + math.pi * 0.01, rel=0.005)


def test_union_of_two_separate_discs_covers_both() -> None:
    discs = [ellipse(grid(), centre=(x, 0.5), radii=(0.1, 0.1)) for x in (0.25, 0.75)]
    assert area(merge(*discs)) == pytest.approx(2 * math.pi * 0.01, rel=0.01)


def test_rim_covers_the_shell_inside_the_outline() -> None:
    disc = ellipse(grid(), centre=(0.5, 0.5), radii=(0.3, 0.3))
    shell = float(rim(disc, thickness=STILL + 0.1, softness=1 / 200).mean())
    assert shell == pytest.approx(math.pi * (0.09 - 0.04), rel=0.01)


def test_moved_shape_lies_where_it_was_moved_to() -> None:
    at = grid().moved(right=STILL + 0.2, down=STILL - 0.1, turn=STILL, about=(0.5, 0.5))
    disc = fill(ellipse(at, centre=(0.5, 0.5), radii=(0.1, 0.1)), softness=1 / 200)[0]
    rows, columns = np.nonzero(disc > 0.5)
    assert columns.mean() / 200 == pytest.approx(0.7, abs=0.01)
    assert rows.mean() / 200 == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("render", [render_hips, render_chests])
def test_both_causes_can_be_read_from_the_pixels_by_linear_regression(render: Callable[..., Plane]) -> None:
    rng = np.random.default_rng(4)
    causes = 1.05 * rng.standard_normal((2, 600))
    pixels = render(*causes, size=32, rng=rng).reshape(600, -1)
    for cause in causes:
        fitted = RidgeCV(alphas=np.logspace(-1, 3, 7)).fit(pixels[:400], cause[:400])
        assert np.corrcoef(fitted.predict(pixels[400:]), cause[400:])[0, 1] > 0.95


@pytest.mark.parametrize("render", [render_hips, render_chests])
@pytest.mark.parametrize("size", [16, 48, 130])
def test_pictures_have_the_size_asked_for_and_gray_from_0_to_1(render: Callable[..., Plane], size: int) -> None:
    extreme = np.array([-8.0, 0.0, 8.0])
    pictures = render(extreme, extreme, size=size, rng=np.random.default_rng(5))
    assert pictures.shape == (3, size, size)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_opacity_whitens_the_lungs_and_nothing_above_them() -> None:
    pair = [render_chests(np.array([o]), np.zeros(1), size=64, rng=np.random.default_rng(6))[0] for o in (-1.0, 2.0)]
    change = pair[1] - pair[0]
    assert change[36:46, 14:24].mean() > 0.15
    assert np.abs(change[:4]).max() < 1e-6


def test_displacement_moves_the_shaft_and_leaves_the_pelvis() -> None:
    pair = [render_hips(np.array([o]), np.zeros(1), size=64, rng=np.random.default_rng(7))[0] for o in (-1.0, 2.0)]
    change = np.abs(pair[1] - pair[0])
    assert change[22:60, 10:30].mean() > 0.05
    assert change[:, 50:].max() < 1e-6


def test_scanner_applies_gain_and_gamma_and_leaves_flat_fields_flat() -> None:
    flat = np.full((1, 20, 20), 0.25, dtype=np.float32)
    shifted = rescan(flat, Scanner(gain=0.8, gamma=0.5, blur_fraction=0.05))
    np.testing.assert_allclose(shifted, 0.8 * 0.5, rtol=1e-5)  # 0.8 * sqrt(0.25)


def test_scanner_spreads_a_point_by_its_standard_deviation() -> None:
    point = np.zeros((1, 41, 41), dtype=np.float32)
    point[0, 20, 20] = 1.0
    blurred = rescan(point, Scanner(gain=1.0, gamma=1.0, blur_fraction=2 / 41))[0]
    assert blurred.sum() == pytest.approx(1.0, abs=1e-5)
    assert (blurred.sum(axis=0) @ (np.arange(41) - 20) ** 2) == pytest.approx(4.0, rel=0.05)


def test_marker_whitens_its_box_and_nothing_else() -> None:
    marker = Marker(image="hip", box=(0.0, 0.5, 0.25, 1.0), in_deaths=1.0, in_survivors=0.0)
    assert marker_pixels(marker, 8) == (0, 4, 2, 8)
    stamped = stamp(np.zeros((1, 8, 8), dtype=np.float32), marker)[0]
    assert stamped[4:8, 0:2].min() == 1
    assert stamped.sum() == 8


def patients() -> SyntheticPatients:
    return draw_patients(SITE, patients=SITE.patients, seed=8)


def test_mean_systolic_pressure_shows_the_cause() -> None:
    drawn, ids = patients(), [str(number) for number in range(300)]
    table = vitals_table(ids, drawn, flat=False, rng=np.random.default_rng(8))
    mean = table[table["time"] >= 15].groupby("patient_id")["sbp_mmhg"].mean()
    expected = 118 - 9 * drawn.shown["hypotension"]
    difference = mean.to_numpy() - expected[mean.index.astype(int)]
    assert np.abs(difference).max() < 1.5
    assert set(mean.index) == {str(row) for row in np.nonzero(drawn.present["vitals"])[0]}


def test_flat_vitals_keep_their_first_value_and_show_nothing() -> None:
    drawn, ids = patients(), [str(number) for number in range(300)]
    table = vitals_table(ids, drawn, flat=True, rng=np.random.default_rng(8))
    by_patient = table.groupby("patient_id")["sbp_mmhg"]
    assert by_patient.nunique().max() == 1
    shown = drawn.shown["hypotension"][by_patient.mean().index.astype(int)]
    assert abs(np.corrcoef(by_patient.mean(), shown)[0, 1]) < 0.2


def test_noradrenaline_adds_up_to_what_shows_the_cause() -> None:
    drawn, ids = patients(), [str(number) for number in range(300)]
    table = medications_table(ids, drawn, np.random.default_rng(8))
    total = table[table["item"] == "noradrenaline_ug"].groupby("patient_id")["dose"].sum()
    expected = 80 * np.clip(drawn.shown["vasopressor_need"] + 1, 0, 5)
    assert np.abs(total.to_numpy() - expected[total.index.astype(int)]).max() < 0.3
    given = {int(row) for row in total.index}
    assert given == set(np.nonzero(drawn.present["medications"] & (expected > 0.25))[0]) | {
        row for row in given if expected[row] <= 0.25
    }
