"""The tasks of a comparison: one arm, seed and fold each; what is finished is kept and not done again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.cohort_folder import list_hospitals
from client.data import cohort_cache_dir
from client.site import Site
from shared_model.config import parse_settings
from shared_model.errors import HipfedError
from shared_model.process.files import replace_file
from shared_model.schema import load_schema
from shared_model.version import own_version
from simulation.compare.arms import Arm
from simulation.compare.network import train_networks
from simulation.compare.points import load_points
from simulation.compare.predictions import COLUMNS
from simulation.compare.reference import predict_reference

NETWORKS = ("federated", "pooled", "local", "held-out")


@dataclass(frozen=True)
class Task:
    """One piece of work; plain values, so that another process can do it.

    Attributes:
        arm: what to train.
        cohort: folder of hospitals.
        fingerprint: hash of the cohort's patients.
        assignments: settings by kebab-case key, seed and fold included.
        points: TOML file of the arm `points`; empty = none.
        path: where the result goes, without a suffix.
    """

    arm: Arm
    cohort: Path
    fingerprint: str
    assignments: Mapping[str, str]
    points: str
    path: Path

    @property
    def label(self) -> str:
        """For the screen."""
        return f"{self.arm.name} {self.path.name}"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result: a kept result with another identity is not this task's."""
        settings = {
            key: value for key, value in parse_settings(self.assignments).to_config().items() if key != "threads"
        }
        points = Path(self.points).read_text(encoding="utf-8") if self.arm.kind == "points" else ""
        weights = Path(str(settings["image-weights"])).read_bytes() if settings["image-weights"] else b""
        identity = {
            "kind": self.arm.kind,
            "cohort": self.fingerprint,
            "settings": settings,
            "points": points,
            "image_weights": hashlib.sha256(weights).hexdigest(),
        }
        return {"version": own_version(), **identity}

    @property
    def predictions_path(self) -> Path:
        """CSV of the predictions."""
        return self.path.with_suffix(".csv")

    @property
    def record_path(self) -> Path:
        """JSON of the identity and of what was trained; written last, so it tells that the task is done."""
        return self.path.with_suffix(".json")

    def is_done(self) -> bool:
        """True if a kept result is of this very task."""
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(record.get("identity") == self.identity) and self.predictions_path.exists()


def list_tasks(
    arms: Sequence[Arm],
    *,
    cohort: Path,
    out: Path,
    folds: int,
    seeds: int,
    assignments: Mapping[str, str],
    points: str,
) -> list[Task]:
    """Every arm on the same seeds and folds; `held-out` has no folds, for its test part is a whole hospital."""
    fingerprint = fingerprint_cohort(cohort)
    tasks = []
    for arm in arms:
        for seed in range(seeds):
            for fold in range(1 if arm.kind == "held-out" else folds):
                name = f"seed-{seed}" if arm.kind == "held-out" else f"seed-{seed}-fold-{fold}"
                # How far shares vary is seen between the models of folds and seeds.
                chosen = {"share-refits": "0", **assignments, **arm.settings, "explain": "modalities"}
                chosen |= {"seed": str(seed), "fold": str(fold), "folds": str(folds)}
                tasks.append(Task(arm, cohort, fingerprint, chosen, points, out / "tasks" / arm.name / name))
    return tasks


def do_task(task: Task) -> str:
    """Train, predict and keep the result.

    Returns:
        Why the arm cannot be trained; empty if it was. (An error of ours would not survive the way between processes.)
    """
    torch.set_num_threads(1)
    try:
        _train_and_keep(task)
    except HipfedError as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 - one arm's fault must not end the others; the report names it
        return f"{type(error).__name__}: {error}"
    return ""


def _train_and_keep(task: Task) -> None:
    sites, schema = open_sites(task.cohort), load_schema(task.cohort / "schema.toml")
    settings = parse_settings(task.assignments)
    runs: list[dict[str, Any]] = []
    untrained: dict[str, str] = {}
    if task.arm.kind in NETWORKS:
        found = train_networks(task.arm, sites, settings, schema)
        table, runs, untrained = found.predictions, found.runs, found.untrained
    else:
        points = load_points(Path(task.points), schema) if task.arm.kind == "points" else None
        table = predict_reference(task.arm.kind, sites, settings, schema, points=points)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    text = table.assign(seed=settings.seed).to_csv(index=False, columns=[*COLUMNS, "seed"])
    replace_file(task.predictions_path, text.encode())
    record = {"identity": task.identity, "runs": runs, "untrained": untrained}
    replace_file(task.record_path, (json.dumps(record, indent=1) + "\n").encode())


@cache
def open_sites(cohort: Path) -> tuple[Site, ...]:
    """The cohort's hospitals; read once in each process."""
    return tuple(Site(folder.name, folder, cohort_cache_dir(cohort)) for folder in list_hospitals(cohort))


@cache
def fingerprint_cohort(cohort: Path) -> str:
    """Hash of the study and of all patients, images included."""
    digest = hashlib.sha256(load_schema(cohort / "schema.toml").sha256.encode())
    for site in open_sites(cohort):
        patients = site.patients
        digest.update(f"{site.name}{patients.patient_ids}".encode())
        tables = (
            *patients.raw.values(), *patients.present.values()
        )  # fmt: skip
        for table in (patients.outcome, patients.numbers, patients.levels, *tables):
            digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()
