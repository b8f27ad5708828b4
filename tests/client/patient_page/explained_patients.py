"""Explanations of patients of a finished run, and what can be changed in them to see how a page takes it."""

import copy
from typing import Any

from client.patient.cohort_risks import unseen_risks
from client.patient.explanation import explain_patient
from client.patient.run_evidence import gather_evidence
from client.patient_page.page import render_patient
from client.patient_page.pictures import read_radiographs
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.parsed_page import ParsedPage

PATIENT = "east-004"
LACKING = "east-001"  # finish_run leaves this one without an image
HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>\'"&\u202e\u05d0' + "x" * 150


def explain(finished: FinishedRun, patient: str) -> dict[str, Any]:
    run, site = finished.model(), finished.site()
    cohort = unseen_risks(run, site)
    return explain_patient(
        run,
        site,
        patient,
        evidence=gather_evidence(run, site),
        cohort=cohort,
        image_references=3,
        series_references=5,
    )


def render(finished: FinishedRun, content: dict[str, Any], patient: str = PATIENT) -> str:
    site = finished.site()
    return render_patient(content, read_radiographs(site, site.patients.patient_ids.index(patient)))


def parse(finished: FinishedRun, content: dict[str, Any], patient: str = PATIENT) -> ParsedPage:
    return ParsedPage(render(finished, content, patient))


def with_hostile_names(content: dict[str, Any]) -> dict[str, Any]:
    """Every text that comes from a study or a hospital, replaced by markup with quotes, a direction mark and length."""
    changed = copy.deepcopy(content)
    for key in ("study", "outcome", "site", "patient_id"):
        changed[key] = HOSTILE
    for view in changed["views"].values():
        for modality in view["modalities"]:
            for feature in modality["features"]:
                feature["name"] += HOSTILE
                feature["unit"] = HOSTILE
                if isinstance(feature["value"], str):
                    feature["value"] = HOSTILE
                if feature["kind"] == "category":
                    feature["reference"]["levels"] = {HOSTILE: 1.0}
    for missing in changed["missing"]:
        missing["feature"] = HOSTILE
    for recording in changed["series"].values():
        recording["time_unit"] = HOSTILE
        for channel in recording["channels"]:
            channel["name"] = channel["unit"] = HOSTILE
    return changed
