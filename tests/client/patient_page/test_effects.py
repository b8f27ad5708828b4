"""One scale for all colours of a patient's page, and no colour for what has no effect on the prediction."""

import copy
from typing import Any

import pytest

from client.patient_page.content import read_explanation
from client.patient_page.effects import Scale
from client.patient_page.figures import NEITHER
from client.patient_page.page import page_words
from client.patient_page.sections.features import describe_features
from client.patient_page.sections.series import describe_series
from shared_model.pages.blocks import list_figures
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.explained_patients import parse
from tests.client.patient_page.parsed_page import ParsedPage


def _weakened(content: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same with all that is inside films and recordings so much weaker."""
    changed = copy.deepcopy(content)
    for image in changed["images"].values():
        image["pixels"] = [[value * factor for value in row] for row in image["pixels"]]
    for recording in changed["series"].values():
        recording["cells"]["phi"] = [[value * factor for value in row] for row in recording["cells"]["phi"]]
    return changed


@pytest.mark.parametrize(("total", "unit"), [(0.0, 0.01), (0.5, 0.01), (1.0, 0.01), (4.0, 0.04)])
def test_unit_of_colour_is_a_hundredth_of_the_prediction_and_never_less_than_a_hundredth(
    total: float, unit: float
) -> None:
    scale = Scale(total)

    assert scale.unit == pytest.approx(unit)
    assert scale.has_effect(0.0, -1.001 * unit)
    assert not scale.has_effect(0.999 * unit)


def test_scale_stands_on_the_page(content: dict[str, Any], page: ParsedPage) -> None:
    total = sum(abs(one["phi"]) for one in content["views"]["common"]["modalities"])

    assert f"all that moves this prediction sums to {total:.3f} log odds" in page.text
    assert f"a colour is full from {max(0.01, 0.01 * total):.3f} log odds up" in page.text


def test_film_without_effect_has_no_colours_and_says_so(finished: FinishedRun, content: dict[str, Any]) -> None:
    page = parse(finished, _weakened(content, 1e-9))

    assert not [one for one in page.of("img") if one.get("class") == "heat"]
    assert "No effect on this prediction, so no colours: raising parts of this film sum to 0.000" in page.text


def test_recording_without_effect_has_no_colours_and_says_so(content: dict[str, Any]) -> None:
    section = describe_series(read_explanation(_weakened(content, 1e-9)), page_words())

    assert section is not None
    colours = {str(trace["marker"]["color"]) for one in list_figures(section.blocks) for trace in one.data}  # type: ignore[index]
    assert colours == {"var(--line)"}
    assert "No effect on this prediction, so no colours" in str(section.blocks[0])


def test_points_of_a_recording_have_the_colours_of_the_page(content: dict[str, Any]) -> None:
    explained = read_explanation(_weakened(content, 1e6))

    section = describe_series(explained, page_words())

    assert section is not None
    ends = {trace["marker"]["cmax"] for one in list_figures(section.blocks) for trace in one.data}  # type: ignore[index]
    assert ends == {Scale.of(explained).unit}


def test_step_that_counts_as_none_has_no_colour(content: dict[str, Any]) -> None:
    explained = read_explanation(content)

    figure = list_figures(describe_features(explained, page_words()).blocks)[0]

    bars = figure.data[0]
    unit = Scale.of(explained).unit
    for step, colour in zip(bars["text"], bars["marker"]["color"], strict=True):  # type: ignore[index, call-overload]
        assert (colour == NEITHER) == (abs(float(step)) < unit)
