import json
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from client.cli import app
from client.patient_page.content import read_explanation
from client.patient_page.page import page_words
from client.patient_page.sections.verdict import describe_verdict
from shared_model.errors import SettingsError
from shared_model.pages.serving import listen
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.explained_patients import PATIENT
from tests.client.patient_page.parsed_page import ParsedPage
from tests.waiting import PATIENCE_S


@pytest.fixture
def explain(finished: FinishedRun) -> Callable[..., Result]:
    def run(out: Path, patient: str = PATIENT) -> Result:
        places = ["--run", finished.run, "--data", finished.cohort / "east", "--cache", finished.cache]
        words = [str(word) for word in ("explain", *places, "--patient", patient, "--out", out)]
        return CliRunner().invoke(app, [*words, "--image-references", "3"], env={"COLUMNS": "200"})

    return run


def test_explain_writes_a_page_that_only_its_owner_reads(explain: Callable[..., Result], tmp_path: Path) -> None:
    result = explain(tmp_path / "p.html")

    assert result.exit_code == 0, result.output
    page = tmp_path / "p.html"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert PATIENT in ParsedPage(page.read_text(encoding="utf-8")).text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html"]


def test_explain_says_first_whether_the_prediction_can_be_trusted(
    explain: Callable[..., Result], tmp_path: Path
) -> None:
    told = " ".join(explain(tmp_path / "p.json").output.split())

    content = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert told.startswith(describe_verdict(read_explanation(content), page_words()).headline)


def test_page_and_json_have_the_same_numbers(explain: Callable[..., Result], tmp_path: Path) -> None:
    explain(tmp_path / "p.html")
    explain(tmp_path / "p.json")

    content = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    rows = ParsedPage((tmp_path / "p.html").read_text(encoding="utf-8")).tables["features-common"][1:]
    shown = {row[0]: float(row[3]) for row in rows}
    for modality in content["views"]["common"]["modalities"]:
        for feature in modality["features"]:
            name = feature["name"] if feature["kind"] != "whole" else f"{modality['name']} ({feature['name']})"
            assert shown[name] == pytest.approx(feature["phi"], abs=0.000051)


@pytest.mark.parametrize("name", ["p.txt", "p", "p.htm", "p.html.gz"])
def test_explain_refuses_another_suffix(explain: Callable[..., Result], tmp_path: Path, name: str) -> None:
    result = explain(tmp_path / name)

    assert result.exit_code == 1
    assert "expected a name that ends with .html or .json" in result.output
    assert not list(tmp_path.iterdir())


def test_unknown_patient_gets_no_page(explain: Callable[..., Result], tmp_path: Path) -> None:
    result = explain(tmp_path / "p.html", patient="<b>nobody</b>")

    assert result.exit_code == 1
    assert "expected one of its 60 patient ids" in result.output
    assert not list(tmp_path.iterdir())


def test_viewer_listens_on_this_machine_only() -> None:
    listener = listen(0)
    with listener:
        address, port = listener.getsockname()

        assert address == "127.0.0.1"
        with pytest.raises(SettingsError, match=f"--port {port}: expected a port that is free"):
            listen(port)


def test_viewer_refuses_a_run_of_another_study(finished: FinishedRun, tmp_path: Path) -> None:
    schema = (finished.cohort / "schema.toml").read_text(encoding="utf-8")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "schema.toml").write_text(schema.replace("A small study", "Another"), encoding="utf-8")
    for file in ("patients.csv",):
        (folder / file).write_bytes((finished.cohort / "east" / file).read_bytes())

    result = CliRunner().invoke(
        app, ["viewer", str(folder), "--run", str(finished.run), "--cache", str(tmp_path / "c")]
    )

    assert result.exit_code == 1
    assert "expected the study of" in result.output


def test_viewer_serves_until_it_is_interrupted(finished: FinishedRun) -> None:
    words = ["viewer", finished.cohort / "east", "--run", finished.run, "--cache", finished.cache]
    code = "from client.cli import app; app()"
    command = [sys.executable, "-c", code, *(str(word) for word in words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as viewer:
        try:
            text = _look_at(viewer)
            viewer.send_signal(signal.SIGINT)
            output, errors = viewer.communicate(timeout=PATIENCE_S)
        finally:
            viewer.kill()

    assert PATIENT in text
    assert (viewer.returncode, output, errors) == (0, "ended\n", "")


def _look_at(viewer: subprocess.Popen[str]) -> str:
    """The list, as the start address gives it; on another loopback address nobody answers."""
    assert viewer.stdout is not None
    assert viewer.stdout.readline().startswith("60 patients of east")
    viewer.stdout.readline()
    address = viewer.stdout.readline().strip()
    port = int(address.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.2", port)):
        pass
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with opener.open(address) as answer:
        text: str = answer.read().decode()
    return text
