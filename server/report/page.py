"""The report as one page."""

from pathlib import Path

from server.report.content import RunContent, read_run
from server.report.first_screen import describe_first_screen
from server.report.sections.data_quality import describe_data_quality
from server.report.sections.features import describe_features
from server.report.sections.groups import describe_drift, describe_groups
from server.report.sections.importance import describe_importance
from server.report.sections.model_card import describe_model_card
from server.report.sections.performance import describe_performance
from server.report.sections.reading import describe_reading
from server.report.sections.reproducing import describe_reproducing
from server.report.sections.training import describe_training
from server.report.sections.tripod import describe_tripod
from server.report.sections.withheld import describe_withheld
from shared_model.pages.blocks import Section
from shared_model.pages.document import WORDS, page_environment, render_page
from shared_model.pages.wording import Words

_HERE = Path(__file__).parent
WORDS_FILES = (WORDS, _HERE / "english.toml")


def render_report(path: Path) -> str:
    """The report of a run folder, as HTML.

    Raises:
        StudyError: not a run folder, or a file in it cannot be read.
    """
    content = read_run(path)
    words = Words(*WORDS_FILES)
    return render_page(
        page_environment(_HERE / "templates"),
        "report.html",
        words=words,
        sections=list_sections(content, words),
        first=describe_first_screen(content, words),
    )


def list_sections(content: RunContent, words: Words) -> tuple[Section, ...]:
    """The page below its first screen; every run has all sections, and one without numbers says why."""
    return (
        describe_performance(content, words),
        describe_importance(content, words),
        describe_features(content, words),
        describe_groups(content, words),
        describe_drift(content, words),
        describe_training(content, words),
        describe_data_quality(content, words),
        describe_withheld(content, words),
        describe_reading(content, words),
        describe_model_card(content, words),
        describe_tripod(content, words),
        describe_reproducing(content, words),
    )
