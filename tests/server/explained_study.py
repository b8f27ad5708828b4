"""Whole small studies for what explanations say, and the coordinator's side of one that has not been trained."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from server.protocol.hospitals import Hospitals
from server.protocol.link import Answer, Link
from server.protocol.plan import StudyPlan
from server.protocol.roster import shake_hands
from server.protocol.statistics import gather_statistics
from server.run_folder.checkpoints import Progress
from server.run_folder.folder import RunFolder
from server.study import start_progress
from shared_model.config import Settings
from shared_model.protocol.messages import PROTOCOL_VERSION, StudyReference
from shared_model.schema import load_schema

Content = dict[str, Any]


@dataclass
class SilencedLink:
    """Answers to some questions of some nodes are failures: (kind, node) to how many questions from the first on."""

    inner: Link
    silent: dict[tuple[str, int], int] = field(default_factory=dict)

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            left = self.silent.get((kind, answer.node), 0)
            self.silent[kind, answer.node] = left - 1
            yield Answer(answer.node, None, "no answer within 5 s") if left > 0 else answer


def open_plan(link: Link, cohort: Path, settings: Settings, *, seed: int = 0) -> tuple[StudyPlan, Progress]:
    """What a run knows before its first round, with weights drawn everywhere in place of the first ones."""
    schema = load_schema(cohort / "schema.toml")
    study = StudyReference(
        run_id="run", protocol=PROTOCOL_VERSION, schema_sha256=schema.sha256, settings=settings.to_config()
    )
    everyone = Hospitals(link, study, schema, settings, names={})
    hospitals = replace(everyone, names=shake_hands(everyone).names)
    plan = StudyPlan(hospitals, gather_statistics(hospitals), event_weight=1.0)
    progress = start_progress(plan)
    rng = np.random.default_rng(seed)
    for name in sorted(progress.weights):
        value = progress.weights[name]
        progress.weights[name] = (rng.normal(size=value.shape) / 3).astype(value.dtype)
    return plan, progress


def keep_patients(folder: Path, n: int) -> None:
    """Leave the first n patients of a hospital."""
    with (folder / "patients.csv").open(encoding="utf-8") as file:
        kept = {row["patient_id"] for row in list(csv.DictReader(file))[:n]}
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row for row in rows if row["patient_id"] in kept)


def read_explanations(folder: RunFolder) -> Content:
    """explanations.json, which must be JSON without NaN or infinity."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    content: Content = json.loads((folder.path / "explanations.json").read_text(), parse_constant=refuse)
    return content
