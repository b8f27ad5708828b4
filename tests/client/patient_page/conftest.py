"""A finished run, one of its patients explained, and the page."""

from typing import Any

import pytest

from tests.client.finished_run import FinishedRun, finish_run
from tests.client.patient_page.explained_patients import PATIENT, explain, parse
from tests.client.patient_page.parsed_page import ParsedPage


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def content(finished: FinishedRun) -> dict[str, Any]:
    return explain(finished, PATIENT)


@pytest.fixture(scope="session")
def page(finished: FinishedRun, content: dict[str, Any]) -> ParsedPage:
    return parse(finished, content)
