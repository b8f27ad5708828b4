"""One patient's explanation as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from client.patient_page.content import Explained, read_explanation
from client.patient_page.pictures import Radiograph
from client.patient_page.sections.cohort import describe_cohort
from client.patient_page.sections.events import describe_events
from client.patient_page.sections.features import describe_features
from client.patient_page.sections.images import describe_images
from client.patient_page.sections.missing import describe_missing
from client.patient_page.sections.modalities import describe_modalities
from client.patient_page.sections.reading import describe_reading
from client.patient_page.sections.series import describe_series
from client.patient_page.sections.summary import describe_summary
from shared_model.pages.blocks import Section
from shared_model.pages.document import WORDS, page_environment, render_page
from shared_model.pages.wording import Words

_HERE = Path(__file__).parent


@cache
def page_words() -> Words:
    """Every word of the page and of the viewer."""
    return Words(WORDS, _HERE / "english.toml")


def render_patient(content: Mapping[str, Any], pictures: Mapping[str, Radiograph], *, home: str = "") -> str:
    """A patient's page, as HTML.

    The id stands in the page and not in its title: browsers keep titles in their history, and some send it elsewhere.

    Args:
        content: from `explain_patient`.
        pictures: from `read_radiographs`.
        home: address of the list that the page belongs to; "" for a page that stands alone.

    Raises:
        StudyError: the content is not an explanation, or does not add up.
    """
    explained, words = read_explanation(content), page_words()
    return render_page(
        page_environment(_HERE / "templates"),
        "patient.html",
        words=words,
        sections=_list_sections(explained, pictures, words),
        style=(_HERE / "patient.css").read_text(encoding="utf-8"),
        script=(_HERE / "patient.js").read_text(encoding="utf-8"),
        summary=describe_summary(explained, words),
        home=home,
    )


def _list_sections(explained: Explained, pictures: Mapping[str, Radiograph], words: Words) -> tuple[Section, ...]:
    found = (
        describe_cohort(explained, words),
        describe_features(explained, words),
        describe_modalities(explained, words),
        describe_images(explained, pictures, words),
        describe_series(explained, words),
        *describe_events(explained, words),
        describe_missing(explained, words),
        describe_reading(explained, words),
    )
    return tuple(section for section in found if section is not None)
