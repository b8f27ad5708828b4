"""Hospitals and certificates change around a run."""

import json
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.chaos.conftest import Ground
from tests.end_to_end.chaos.strikes import assert_completed, assert_same_results, read_lines, running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def test_certificate_renewed_between_two_runs_keeps_every_enrolment(usual: Ground, tmp_path: Path) -> None:
    deployment = usual.deployment
    home = deployment.coordinator
    before = (home.tls / "server.crt").read_bytes()
    deployment.must("hipfed-server", "stop", "--home", home.folder)
    deployment.must("hipfed-server", "provision", "--home", home.folder, "--renew")
    deployment.start_coordinator()
    assert (home.tls / "server.crt").read_bytes() != before

    with running(deployment, tmp_path / "run") as run:
        done = run.finish()

    assert_completed(done, tmp_path / "run")
    assert_same_results(tmp_path / "run", usual.expected)


def test_hospital_revoked_in_a_run_gives_no_more_answers_and_the_others_finish(usual: Ground, tmp_path: Path) -> None:
    """The last test of the suite's deployment: north comes back with new keys."""
    deployment, out = usual.deployment, tmp_path / "run"
    usual.use({"min-sites": "2"})
    with running(deployment, out) as run:
        run.wait_for("train", 2, hospital="north")
        home = deployment.coordinator.folder
        deployment.must("hipfed-server", "revoke", "--home", home, "north", "--reason", "a test")
        done = run.finish()

    assert_completed(done, out)
    assert read_lines(out)[-1]["answered"] == ["east", "south"]
    explained = json.loads((out / "explanations.json").read_text())
    assert "north" not in explained["sites"]

    deployment.must("hipfed-client", "stop", "--home", deployment.hospital("north").folder)
    shutil.move(deployment.hospital("north").folder, deployment.folder / "north-before")
    deployment.enrol("north")
    usual.studies.clear()
    usual.use({})
    deployment.start_hospital("north")
    with running(deployment, tmp_path / "again") as run:
        assert_completed(run.finish(), tmp_path / "again")
    assert_same_results(tmp_path / "again", usual.expected)
