from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data.gray_image import GrayImage
from client.data.images import letterbox
from client.patient_page.pictures import LOWERS, RAISES, draw_heat_map, read_radiographs
from client.patient_page.sections.images import sum_ninths
from client.site import Site
from tests.client.finished_run import finish_run
from tests.client.patient_page.explained_patients import PATIENT, explain, parse
from tests.server.small_cohort import write_small_cohort

BOX = (slice(9, 14), slice(22, 28))


def test_heat_map_colours_the_pixels_that_carry_the_attribution() -> None:
    pixels = np.zeros((64, 64))
    pixels[8:12, 40:44] = 0.01
    pixels[60:64, 0:4] = -0.005

    colours = draw_heat_map(pixels, full=0.16).colours

    raising, lowering = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    raising[8:12, 40:44] = True
    lowering[60:64, 0:4] = True
    np.testing.assert_array_equal(colours[..., 3] > 0, raising | lowering)
    assert {tuple(colour) for colour in colours[raising].tolist()} == {(*RAISES, 255)}
    assert {tuple(colour) for colour in colours[lowering].tolist()} == {(*LOWERS, 128)}


@pytest.mark.parametrize("size", [33, 64, 100, 224])
def test_squares_and_ninths_keep_the_sum_of_the_pixels(size: int) -> None:
    pixels = np.random.default_rng(0).normal(size=(size, size))

    heat = draw_heat_map(pixels, full=0.01)

    assert heat.squares.sum() == pytest.approx(pixels.sum())
    assert sum_ninths(pixels).sum() == pytest.approx(pixels.sum())
    assert heat.raising + heat.lowering == pytest.approx(pixels.sum())


def test_weak_film_is_not_painted_as_a_strong_one() -> None:
    pixels = np.random.default_rng(0).normal(size=(32, 32))

    strong, weak = (draw_heat_map(pixels * factor, full=1.0).colours[..., 3] for factor in (1.0, 0.001))

    assert strong.max() == 255
    assert weak.max() <= 2


def test_ninths_are_told_from_the_upper_left() -> None:
    pixels = np.zeros((30, 30))
    pixels[3, 25] = 1.0

    assert int(np.abs(sum_ninths(pixels)).argmax()) == 2


def test_image_without_effect_is_not_coloured() -> None:
    heat = draw_heat_map(np.zeros((40, 40)), full=0.01)

    assert not heat.colours[..., 3].any()


@pytest.mark.parametrize(("height", "width", "size"), [(100, 60, 33), (61, 200, 40), (90, 90, 45), (50, 37, 34)])
def test_finer_picture_fills_the_part_of_the_square_that_the_models_fills(height: int, width: int, size: int) -> None:
    image = GrayImage(pixels=np.full((height, width), 40_000, dtype=np.uint16))

    seen, finer = letterbox(image, size=size), letterbox(image, size=size, enlarge=7)

    np.testing.assert_array_equal(finer > 0, np.kron(seen > 0, np.ones((7, 7), bool)))


def test_marker_is_at_the_same_place_in_the_finer_picture() -> None:
    pixels = np.full((400, 240), 9_000, dtype=np.uint16)
    pixels[80:120, 50:100] = 60_000
    image = GrayImage(pixels=pixels)

    seen, finer = letterbox(image, size=40), letterbox(image, size=40, enlarge=8)

    blocks = finer.reshape(40, 8, 40, 8).mean(axis=(1, 3))
    marker = np.zeros((40, 40), bool)
    marker[8:12, 13:18] = True  # a tenth of the file's pixels, after a margin of 8
    np.testing.assert_array_equal(seen > 34_500, marker)
    np.testing.assert_array_equal(blocks > 34_500, marker)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, images=True)
    picture = np.random.default_rng(5).integers(0, 256, (132, 132), dtype=np.uint8)
    Image.fromarray(picture).save(cohort / "east" / "hip" / f"{PATIENT}.png")
    return Site("east", cohort / "east", tmp_path / "cache")


def test_radiograph_is_shown_as_fine_as_its_file(site: Site) -> None:
    shown = read_radiographs(site, site.patients.patient_ids.index(PATIENT))["hip"]

    original = np.asarray(Image.open(site.folder / "hip" / f"{PATIENT}.png"))
    assert (shown.size, shown.is_sharp) == (33, True)
    np.testing.assert_allclose(shown.gray, original, atol=1)


def test_radiograph_whose_file_has_changed_is_shown_as_the_model_saw_it(site: Site) -> None:
    row = site.patients.patient_ids.index(PATIENT)
    seen = np.asarray(site.patients.raw["hip"][row])
    Image.fromarray(np.eye(90, dtype=np.uint8) * 200).save(site.folder / "hip" / f"{PATIENT}.png")

    shown = read_radiographs(site, row)["hip"]

    assert not shown.is_sharp
    np.testing.assert_array_equal(shown.gray, np.rint(seen / 257))


@pytest.mark.parametrize("damage", ["gone", "damaged", "table"])
def test_radiograph_whose_file_cannot_be_read_is_shown_as_the_model_saw_it(site: Site, damage: str) -> None:
    row = site.patients.patient_ids.index(PATIENT)
    file = site.folder / "hip" / f"{PATIENT}.png"
    if damage == "gone":
        file.unlink()
    elif damage == "damaged":
        file.write_bytes(file.read_bytes()[:200])
    else:
        (site.folder / "images.csv").unlink()

    shown = read_radiographs(site, row)["hip"]

    assert not shown.is_sharp


def test_heat_map_of_a_planted_marker_lies_on_it(tmp_path: Path) -> None:
    """Every hip film of the hospital is the same; the patient's has a bright marker. Only it can have an effect."""
    base = np.random.default_rng(3).integers(20, 120, (33, 33), dtype=np.uint8)
    marked = base.copy()
    marked[BOX] = 250

    def plant(cohort: Path) -> None:
        for file in (cohort / "east" / "hip").glob("*.png"):
            Image.fromarray(marked if file.stem == PATIENT else base).save(file)

    finished = finish_run(tmp_path, plant)
    page = parse(finished, explain(finished, PATIENT))

    picture, heat = page.picture("picture"), page.picture("heat")
    assert picture.shape == heat.shape[:2] == (33, 33)
    outside = np.ones((33, 33), bool)
    outside[8:14, 22:28] = False  # squares are two pixels wide, from the upper left corner
    assert (picture[BOX] == 250).all()
    assert heat[..., 3].max() > 200
    assert not heat[outside][:, 3].any()
