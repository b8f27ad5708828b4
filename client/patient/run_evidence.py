"""Evidence for and against a finished run's predictions at this hospital: test, data quality, unused inputs."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.patient.run_model import RunModel
from client.quality.judging import judge_alone
from client.site import Site
from shared_model.errors import StudyError
from shared_model.model.untrained_encoders import describe_encoder, is_untrained
from shared_model.quality.checks import CORRELATED, accepted_names

SMALLEST_SHARE = 0.0005  # of all attribution: a kind of data with less is not used
_TEST = ("n", "events", "auc", "auc_ci", "calibration_slope", "calibration_slope_ci")


def gather_evidence(run: RunModel, site: Site) -> dict[str, Any]:
    """All that the run folder and the hospital's own check say, as JSON.

    Args:
        run: the finished run; a file that its folder lacks is a fact that is not known.
        site: the hospital.

    Raises:
        StudyError: a file of the run folder is damaged.
    """
    quality, settings = _read(run.folder / "quality.json"), run.settings.to_config()
    modalities = _read(run.folder / "explanations.json").get("modalities", {})
    unused = [name for name, entry in modalities.items() if _is_unused(entry)]
    images = [name for name in run.model.modalities if name in site.schema.images]
    return {
        "test": _test(_read(run.folder / "metrics.json")),
        "site": site.name,
        "is_judged": site.name in quality.get("hospitals", {}),
        "findings": _findings(quality, site, accepted_names(run.settings)),
        "unused": unused,
        "unproven": [
            name for name, entry in modalities.items() if entry.get("evidence") is False and name not in unused
        ],
        "untrained": images if is_untrained(settings) else [],
        "encoder": describe_encoder(settings),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: expected a JSON file of a run, got: {error}. Copy the run again.") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path}: expected a JSON object, got another value. Copy the run again.")
    return content


def _test(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of all hospitals' test patients; all None where they are suppressed or the run has none."""
    pooled = (metrics.get("test") or {}).get("pooled") or {}
    return {key: pooled.get(key) for key in _TEST}


def _findings(quality: Mapping[str, Any], site: Site, accepted: Collection[str]) -> list[dict[str, Any]]:
    """Findings of hospitals that the model learned from and of this one, many items of one check in one entry."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for hospital, found in [*_of_the_run(quality, site), *_of_the_hospital(quality, site)]:
        key = (hospital, found["check"], found["modality"], found["grade"])
        groups.setdefault(key, []).append(found)
    return [
        {
            "hospital": hospital,
            "check": check,
            "modality": modality,
            "grade": grade,
            "items": [found["item"] for found in group if found["item"]],
            "value": max((found["value"] for found in group if found["value"] is not None), key=abs, default=None),
            "accepted": grade == "red" and hospital in accepted,
        }
        for (hospital, check, modality, grade), group in groups.items()
        if check != CORRELATED
    ]


def _of_the_run(quality: Mapping[str, Any], site: Site) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, row in quality.get("hospitals", {}).items():
        if name == site.name or not row.get("refused"):
            yield from ((name, finding) for finding in row.get("findings", ()))


def _of_the_hospital(quality: Mapping[str, Any], site: Site) -> Iterator[tuple[str, dict[str, Any]]]:
    """What its own check finds in all its patients, without any other hospital, beyond what the run knows."""
    row = quality.get("hospitals", {}).get(site.name, {})
    known = {(one["check"], one["modality"]) for one in row.get("findings", ())}
    for found in judge_alone(site.patients, site.schema, rule=site.rule).findings:
        if (found.check, found.modality) not in known:
            yield site.name, asdict(found)


def _is_unused(entry: Mapping[str, Any]) -> bool:
    """True if a kind of data moved no prediction of the test patients."""
    share = entry.get("share")
    return (share is not None and share < SMALLEST_SHARE) or entry.get("mean_abs") == 0
