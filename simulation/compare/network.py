"""One network of a comparison: trained over the whole protocol in this process, then asked for its test patients."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from client.patient.run_model import open_run
from client.site import Site
from client.worker.answering import Worker
from client.worker.encoding import encode_patients
from server.run_folder.folder import RunFolder
from server.study import run_study
from shared_model.config import Settings
from shared_model.errors import HipfedError
from shared_model.schema import Schema
from shared_model.training.epochs import predict_logits
from shared_model.training.losses import logit_correction
from simulation.compare.arms import Arm
from simulation.in_process import InProcessLink, accept_all
from simulation.pooled import PooledSite

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TaskOutcome:
    """What one task of an arm found.

    Attributes:
        predictions: site, patient_id, outcome, logit; one row for each test patient.
        runs: of each model trained: rounds, seconds, bytes, shares of the modalities where they may be shown.
        untrained: by hospital, why it has no model (local training of a hospital with too few patients).
    """

    predictions: pd.DataFrame
    runs: list[dict[str, Any]]
    untrained: dict[str, str]


def train_networks(arm: Arm, sites: Sequence[Site], settings: Settings, schema: Schema) -> TaskOutcome:
    """Train what the arm asks for, and predict the test part of every hospital (`held-out`: all its patients).

    Args:
        arm: a network's.
        sites: all hospitals.
        settings: of the run, fold and seed included.
        schema: the study.
    """
    if arm.kind == "held-out":
        return _join(_held_out(site, sites, settings, schema) for site in sites)
    if arm.kind == "local":
        return _join(_alone(site, settings, schema) for site in sites)
    if arm.kind == "pooled":
        pooled = PooledSite("pooled", sites[0].folder, sites[0].cache_dir, hospitals=tuple(sites))
        settings = settings.model_copy(update={"min_sites": 1})
        return _train((pooled,), sites, settings, schema)
    return _train(sites, sites, settings, schema)


def _join(parts: Any) -> TaskOutcome:
    found = list(parts)
    return TaskOutcome(
        predictions=pd.concat([part.predictions for part in found], ignore_index=True),
        runs=[run for part in found for run in part.runs],
        untrained={site: why for part in found for site, why in part.untrained.items()},
    )


def _held_out(site: Site, sites: Sequence[Site], settings: Settings, schema: Schema) -> TaskOutcome:
    """External validation: a model of all other hospitals predicts every patient of this one."""
    others = [other for other in sites if other is not site]
    settings = settings.model_copy(update={"min_sites": min(settings.min_sites, len(others))})
    return _train(others, [site], settings, schema, everyone=True)


def _alone(site: Site, settings: Settings, schema: Schema) -> TaskOutcome:
    """A hospital's own model; none where the hospital lacks what training needs."""
    train = site.split(settings).train
    has = [name for name in settings.chosen_modalities(schema) if site.patients.present[name][train].any()]
    settings = settings.model_copy(update={"min_sites": 1, "modalities": ",".join(has)})
    try:
        return _train([site], [site], settings, schema)
    except HipfedError as error:
        return TaskOutcome(
            pd.DataFrame(columns=["site", "patient_id", "outcome", "logit"]), [], {site.name: str(error)}
        )


def _train(
    trainers: Sequence[Site],
    tested: Sequence[Site],
    settings: Settings,
    schema: Schema,
    *,
    everyone: bool = False,
) -> TaskOutcome:
    with tempfile.TemporaryDirectory(prefix="hipfed-compare-") as folder:
        path = Path(folder)
        link = InProcessLink([Worker(site, simulated=True) for site in trainers])
        accepting = accept_all(settings, [site.name for site in trainers])
        run_study(link, schema=schema, settings=accepting, folder=RunFolder(path))
        tables = [predict(path, site, everyone=everyone) for site in tested]
        return TaskOutcome(pd.concat(tables, ignore_index=True), [describe_run(path)], {})


def predict(run: Path, site: Site, *, everyone: bool = False) -> pd.DataFrame:
    """Logits, the event weight taken out, that a finished, explained run gives a hospital's test patients, or all."""
    model = open_run(run, site, device=CPU)
    split = site.split(model.settings)
    rows = pd.RangeIndex(len(site.patients)).to_numpy() if everyone else split.test
    encoded = encode_patients(site, model.model, model.preprocessing, rows, networks_sha256=model.networks_sha256)
    logit = predict_logits(model.model, encoded, phase=model.phase, correction=logit_correction(model.event_weight))
    return pd.DataFrame(
        {
            "site": site.name,
            "patient_id": [site.patients.patient_ids[row] for row in rows],
            "outcome": site.patients.outcome[rows],
            "logit": logit,
        }
    )


def describe_run(run: Path) -> dict[str, Any]:
    """Rounds, seconds and bytes of a run, and the shares of its modalities; None where they may not be shown."""
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    explanations: Mapping[str, Any] = json.loads((run / "explanations.json").read_text(encoding="utf-8"))
    shares = {name: entry.get("share") for name, entry in explanations.get("modalities", {}).items()}
    trained = [line for line in lines if line["train_loss"] is not None]
    return {
        "rounds": len(trained),
        "seconds": sum(line["seconds"] for line in lines),
        "bytes": sum(line["bytes_down"] + line["bytes_up"] for line in lines),
        "shares": shares or None,
    }
