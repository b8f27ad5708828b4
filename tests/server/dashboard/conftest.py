"""Runs to look at, and a dashboard to ask."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.dashboard.app import Dashboard
from server.dashboard.guard import Access, name_hosts
from server.dashboard.reading import RunReader
from tests.server.dashboard.asking import Client
from tests.server.report.run_folders import write_run

BASE = "http://127.0.0.1:8780"
TLS_BASE = "https://127.0.0.1:8780"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one finished run."""
    folder = tmp_path / "runs"
    write_run(folder / "plain")
    return folder


@pytest.fixture
def connect(runs: Path) -> Callable[..., Client]:
    """A client of a dashboard of these runs."""

    def make(access: Access | None = None, *, folder: Path = runs) -> Client:
        local = Access(hosts=name_hosts(["127.0.0.1", "localhost"], 8780, is_tls=False))
        reader = RunReader(folder.resolve(), locked=frozenset)
        dashboard = Dashboard(reader, access=access or local)
        return Client(dashboard.app, BASE if access is None or not access.is_tls else TLS_BASE)

    return make
