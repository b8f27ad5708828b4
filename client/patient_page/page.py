"""One patient's explanation as one self-contained page, and the pages around it: the list and messages."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from client.patient_page.content import Explained, read_explanation
from client.patient_page.pictures import Radiograph
from client.patient_page.rows import Row
from client.patient_page.sections.cohort import describe_cohort
from client.patient_page.sections.events import describe_events
from client.patient_page.sections.features import describe_features
from client.patient_page.sections.further import describe_further
from client.patient_page.sections.images import describe_images
from client.patient_page.sections.missing import describe_missing
from client.patient_page.sections.modalities import describe_modalities
from client.patient_page.sections.reading import describe_reading
from client.patient_page.sections.series import describe_series
from client.patient_page.sections.summary import describe_summary
from shared_model.pages.blocks import Section
from shared_model.pages.document import WORDS, page_environment, page_policy, render_page
from shared_model.pages.numbers import percent
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
    sections = _list_sections(explained, pictures, words)
    return _render("patient.html", sections, summary=describe_summary(explained, words), home=home)


def render_list(rows: Sequence[Row], *, site: str, study: str, doubts: Sequence[str] = ()) -> str:
    """The hospital's patients, as HTML; links lead to patient/PLACE-IN-THE-LIST.

    Args:
        rows: the patients; the outcome is shown where they tell it.
        site: what the hospital is called.
        study: its title.
        doubts: what speaks against all predictions.
    """
    with_outcomes = any(row.outcome is not None for row in rows)
    return _render(
        "list.html",
        (),
        rows=rows,
        site=site,
        study=study,
        doubts=doubts,
        columns=("id", "risk", "in_run", "lacks", *(["outcome"] if with_outcomes else [])),
        parts=sorted({row.part or "unknown" for row in rows}),
        with_outcomes=with_outcomes,
        risk_text=percent,
    )


def render_message(text: str, *, home: str = "") -> str:
    """A page that says one thing, as HTML.

    Args:
        text: what it says.
        home: address of the list; "" for none.
    """
    return _render("message.html", (), text=text, home=home)


def patient_policy() -> str:
    """The content security policy of all these pages."""
    return page_policy((_read("patient.js"),))


def _render(template: str, sections: tuple[Section, ...], **context: object) -> str:
    return render_page(
        page_environment(_HERE / "templates"),
        template,
        words=page_words(),
        sections=sections,
        style=_read("patient.css"),
        scripts=(_read("patient.js"),),
        allowed=None,
        **context,
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _list_sections(explained: Explained, pictures: Mapping[str, Radiograph], words: Words) -> tuple[Section, ...]:
    found = (
        describe_cohort(explained, words),
        describe_features(explained, words),
        describe_modalities(explained, words),
        describe_images(explained, pictures, words),
        describe_series(explained, words),
        *describe_events(explained, words),
        *describe_further(explained, words),
        describe_missing(explained, words),
        describe_reading(explained, words),
    )
    return tuple(section for section in found if section is not None)
