"""A package adds a kind of modality: a study with it is checked, trained, explained and reported."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from client.cli import app as client_app
from client.patient.cohort_risks import unseen_risks
from client.patient.explanation import explain_patient
from client.patient.run_evidence import gather_evidence
from client.patient.run_model import open_run
from client.patient_page.page import render_patient
from client.site import Site
from server.report.writing import write_report
from shared_model.errors import SchemaError
from shared_model.extensions import entry_points_of
from shared_model.schema import load_schema, parse_schema
from tests.packages import install
from tests.server.explained_study import read_explanations
from tests.server.small_cohort import STATIC_SCHEMA, run_small_study, small_settings, write_small_cohort

SCHEMA = STATIC_SCHEMA + "\n[text.notes]\ncolumns = 8\n"
WORDS = ("stable", "frail", "confused", "walks", "independent", "delirium", "transfused")


@pytest.fixture
def text_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install("hipfed_text", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points_of.cache_clear()
    yield
    entry_points_of.cache_clear()
    sys.modules.pop("hipfed_text", None)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    folder = write_small_cohort(tmp_path / "cohort")
    (folder / "schema.toml").write_text(SCHEMA, encoding="utf-8")
    rng = np.random.default_rng(0)
    for table in folder.glob("*/patients.csv"):
        patients = pd.read_csv(table)[["patient_id", "died"]][::2]
        texts = [" ".join([*rng.choice(WORDS[:5], 6), *["delirium"] * int(died)]) for died in patients["died"]]
        pd.DataFrame({"patient_id": patients["patient_id"], "text": texts}).to_csv(
            table.with_name("notes.csv"), index=False
        )
    return folder


@pytest.mark.usefixtures("text_package")
def test_study_with_a_kind_of_its_own_package_is_checked_trained_explained_and_reported(
    cohort: Path, tmp_path: Path
) -> None:
    schema = load_schema(cohort / "schema.toml")
    assert schema.modalities == ("static", "notes")
    assert parse_schema(SCHEMA, source="s").sha256 == schema.sha256 != parse_schema(STATIC_SCHEMA, source="s").sha256

    checked = CliRunner().invoke(client_app, ["check", str(cohort / "east")])
    assert checked.exit_code == 0, checked.output
    assert "notes (text): present for 30 of 60 patients" in checked.output

    settings = small_settings(rounds_unimodal=1, explain="features")
    run = run_small_study(cohort, tmp_path / "run", settings=settings, cache_dir=tmp_path / "cache")
    content = read_explanations(run)
    shares = {name: entry["share"] for name, entry in content["modalities"].items()}
    assert set(shares) == {"static", "notes"}
    assert 0 < shares["notes"] < 1
    fitted = json.loads(json.loads((run.path / "model.json").read_text())["preprocessing"])
    assert len(fitted["further"]["notes"]["mean"]) == 8

    run.write_json("status.json", {"state": "completed", "reason": ""})
    write_report(run.path, tmp_path / "report.html")
    assert "text notes" in (tmp_path / "report.html").read_text(encoding="utf-8")

    site = Site("east", cohort / "east", tmp_path / "cache")
    model = open_run(run.path, site, device=torch.device("cpu"))
    explained = explain_patient(
        model,
        site,
        site.patients.patient_ids[0],
        evidence=gather_evidence(model, site),
        cohort=unseen_risks(model, site),
        image_references=2,
        series_references=2,
    )
    page = render_patient(explained, {})
    assert "Text notes" in page
    assert "Effect on the log odds:" in page


def test_kind_that_no_package_has_is_refused_by_name() -> None:
    with pytest.raises(SchemaError, match=r"kind of modality that is installed \(static, series, events, images"):
        parse_schema(SCHEMA, source="schema.toml")
