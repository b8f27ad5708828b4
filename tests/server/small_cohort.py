"""Small cohorts of made-up patients, and the workers and settings to run studies on them in one process."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from client.outbound import Gate
from client.quality.correlation import sum_correlations
from client.quality.measuring import measure_patients, sum_measures
from client.site import Site
from client.worker.answering import Worker
from server.protocol.link import Link
from server.run_folder.folder import RunFolder
from server.study import run_study
from shared_model.config import Phase, Scalar, Settings, parse_settings
from shared_model.model.fusion import build_model
from shared_model.preprocessing.standardisation import Preprocessing, pooled_preprocessing
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import (
    BACKGROUND,
    COMPONENTS,
    EVALUATE,
    EXPLAIN,
    HANDSHAKE,
    PROTOCOL_VERSION,
    QUALITY,
    REFERENCE,
    REFIT,
    SIZES,
    SPREAD,
    STATISTICS,
    TRAIN,
    BackgroundRequest,
    ComponentsRequest,
    EvaluateRequest,
    ExplainRequest,
    HandshakeRequest,
    Part,
    QualityRequest,
    ReferenceRequest,
    Request,
    SpreadRequest,
    StatisticsRequest,
    StudyReference,
    TrainRequest,
)
from shared_model.protocol.refit_messages import RefitRequest, SizesRequest
from shared_model.schema import load_schema
from shared_model.shapley.common_background import hash_background
from shared_model.training.updates import hash_weights, to_arrays
from simulation.in_process import InProcessLink
from tests.server.sum_requests import sum_requests

VARYING = ("seconds", "bytes_down", "bytes_up")
NAMES = ("east", "north", "south", "west", "centre")

STATIC_SCHEMA = """
[study]
name = "small"
title = "A small study"
outcome = "died"
patient_id = "patient_id"

[[static]]
name = "age"
kind = "numeric"
unit = "years"
range = [0, 120]

[[static]]
name = "male"
kind = "binary"

[[static]]
name = "asa"
kind = "categorical"
levels = ["1", "2", "3"]
"""

SERIES_SCHEMA = """
[series.vitals]
time_unit = "min"
start = 0.0
step = 5.0
steps = 4

[[series.vitals.channels]]
name = "hr"
unit = "/min"
range = [0, 300]
"""

EVENTS_SCHEMA = """
[events.drugs]
aggregate = "any"
items = ["opioid", "insulin"]
"""

IMAGE_SCHEMA = """
[images.{name}]
size = 33
"""


def write_small_cohort(
    folder: Path,
    *,
    hospitals: int = 3,
    patients: int = 60,
    series: bool = False,
    images: bool = False,
    image_names: Sequence[str] = ("hip",),
) -> Path:
    """Hospitals of equal size, three in ten patients of which die: those with the highest age plus noise."""
    folder.mkdir(parents=True)
    schema = STATIC_SCHEMA + (SERIES_SCHEMA + EVENTS_SCHEMA if series else "")
    if images:
        schema += "".join(IMAGE_SCHEMA.format(name=image) for image in image_names)
    (folder / "schema.toml").write_text(schema, encoding="utf-8")
    for index, name in enumerate(NAMES[:hospitals]):
        rng = np.random.default_rng(index)
        (folder / name).mkdir()
        table = _patients_table(name, patients, rng)
        table.to_csv(folder / name / "patients.csv", index=False)
        if series:
            _write_recordings(folder / name, table, rng)
        if images:
            _write_images(folder / name, table, rng, image_names)
    return folder


def _patients_table(name: str, patients: int, rng: np.random.Generator) -> pd.DataFrame:
    age = rng.normal(80, 8, patients).clip(50, 110)
    order = np.argsort(age + rng.normal(0, 5, patients))
    died = np.zeros(patients, dtype=int)
    died[order[patients - 3 * patients // 10 :]] = 1
    return pd.DataFrame(
        {
            "patient_id": [f"{name}-{number:03d}" for number in range(patients)],
            "died": died,
            "age": age.round(1),
            "male": rng.integers(0, 2, patients),
            "asa": rng.integers(1, 4, patients),
        }
    )


def _write_recordings(folder: Path, table: pd.DataFrame, rng: np.random.Generator) -> None:
    rate = 70 + 15 * table["died"] + rng.normal(0, 10, len(table))
    rows = [
        {"patient_id": patient, "time": 5.0 * step, "hr": round(value + step, 1)}
        for patient, value in zip(table["patient_id"], rate, strict=True)
        for step in range(4)
    ]
    pd.DataFrame(rows).to_csv(folder / "vitals.csv", index=False)
    given = table["patient_id"][rng.random(len(table)) < 0.5]
    pd.DataFrame({"patient_id": given, "item": "opioid"}).to_csv(folder / "drugs.csv", index=False)


def _write_images(folder: Path, table: pd.DataFrame, rng: np.random.Generator, names: Sequence[str]) -> None:
    """Gray noise, brighter for those who die."""
    rows = []
    for name in names:
        (folder / name).mkdir()
        for patient, died in zip(table["patient_id"], table["died"], strict=True):
            pixels = rng.integers(0, 180, size=(33, 33)) + 40 * died
            file = f"{name}/{patient}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / file)
            rows.append({"patient_id": patient, "image": name, "file": file})
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)


def small_settings(**changes: Scalar) -> Settings:
    """Two rounds of the head on the CPU; keys in snake case."""
    values: dict[str, Scalar] = {
        "device": "cpu",
        "rounds_unimodal": 0,
        "rounds_fusion": 2,
        "rounds_joint": 0,
        "strategy": "fedavg",
        "trust_coordinator": True,  # hospitals are so small
        "head": "32",
        "background_rows": 20,
        "share_refits": 0,
        "wait_s": 0.1,
        "deadline_s": 5.0,
    }
    merged = {**values, **changes}
    if merged["strategy"] == "newton":
        merged = {"adapt_penalty": False, **merged}
    return parse_settings({key.replace("_", "-"): value for key, value in merged.items()})


def open_workers(cohort: Path, cache_dir: Path, *, names: Sequence[str] = ()) -> list[Worker]:
    """The hospitals of a cohort folder in the order of their names, or those named."""
    chosen = names or sorted(folder.name for folder in cohort.iterdir() if folder.is_dir())
    return [Worker(Site(name, cohort / name, cache_dir)) for name in chosen]


def describe_study(site: Site, settings: Settings) -> StudyReference:
    """What every question to this hospital repeats."""
    return StudyReference(
        run_id="run", protocol=PROTOCOL_VERSION, schema_sha256=site.schema.sha256, settings=settings.to_config()
    )


def open_gate(site: Site, settings: Settings, request: Request, rule: SmallCellRule) -> Gate:
    """The gate of a hospital with this rule, for the answer to a question."""
    audit_log = site.state_dir / "audit.jsonl"
    return Gate.of(request, rule, schema=site.schema, settings=settings, audit_log=audit_log)


def fit_site(site: Site, settings: Settings) -> Preprocessing:
    """The preprocessing of a study of this hospital alone."""
    return pooled_preprocessing(site.patients, site.split(settings).train, site.schema)


def train_request(
    site: Site, settings: Settings, *, phase: Phase = "fusion", round_number: int = 0, with_frozen: bool = True
) -> TrainRequest:
    """The first question of a phase to this hospital alone, with the weights that the seed draws."""
    model = build_model(site.schema, settings)
    weights = to_arrays(model.state_dict(), model.learned_names())
    frozen = {name: weights[name] for name in model.frozen_in(phase)}
    networks = {name: weights[name] for name in model.fixed_networks()}
    return TrainRequest(
        study=describe_study(site, settings),
        phase=phase,
        round_number=round_number,
        weights_round=round_number,
        preprocessing=fit_site(site, settings).to_json(),
        event_weight=1.0,
        networks_sha256=hash_weights(networks),
        networks=networks if with_frozen else {},
        frozen_sha256=hash_weights(frozen),
        weights={name: weights[name] for name in model.travelling_in(phase)},
        frozen=frozen if with_frozen else {},
    )


def evaluate_request(
    site: Site, settings: Settings, *, part: Part = "test", release_row: bool = True, event_weight: float = 1.0
) -> EvaluateRequest:
    """A question about the model that the seed draws."""
    model = build_model(site.schema, settings)
    weights = to_arrays(model.state_dict(), model.learned_names())
    networks = {name: weights[name] for name in model.fixed_networks()}
    return EvaluateRequest(
        study=describe_study(site, settings),
        phase="fusion",
        weights_round=0,
        part=part,
        release_row=release_row,
        preprocessing=fit_site(site, settings).to_json(),
        event_weight=event_weight,
        networks_sha256=hash_weights(networks),
        networks=networks,
        weights_sha256=hash_weights(weights),
        weights={name: weights[name] for name in model.changing_names()},
    )


def run_small_study(
    cohort: Path,
    out: Path,
    *,
    settings: Settings,
    link: Link | None = None,
    cache_dir: Path | None = None,
    resume: bool = False,
    enrolled: Mapping[int, str] | None = None,
) -> RunFolder:
    """One study on a cohort folder; by default all its hospitals take part in this process."""
    folder = RunFolder(out)
    link = link or InProcessLink(open_workers(cohort, cache_dir or out.parent / f"{out.name}-cache"))
    schema = load_schema(cohort / "schema.toml")
    run_study(link, schema=schema, settings=settings, folder=folder, resume=resume, enrolled=enrolled)
    return folder


def read_rounds(folder: RunFolder, *, without: tuple[str, ...] = VARYING) -> list[dict[str, Any]]:
    """The lines of rounds.jsonl, without what differs between equal runs."""
    lines = (folder.path / "rounds.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in without} for line in lines]


def read_weights(folder: RunFolder) -> bytes:
    """The content of model.safetensors."""
    return (folder.path / "model.safetensors").read_bytes()


def explain_request(
    site: Site, settings: Settings, *, part: Part = "test", features: bool = True, n_rows: int = 20
) -> ExplainRequest:
    """A question about the model that the seed draws, against made-up reference patients."""
    given = evaluate_request(site, settings, part=part)
    rng = np.random.default_rng(0)
    widths = build_model(site.schema, settings).widths
    background = {name: rng.normal(size=(n_rows, width)).astype(np.float32) for name, width in widths.items()}
    present = {name: np.ones(n_rows, dtype=bool) for name in widths}
    return ExplainRequest(
        **dict(given),
        background_id=hash_background(given.weights_sha256, background, present),
        features=features,
        background=background,
        background_present=present,
    )


def quality_request(site: Site, settings: Settings) -> QualityRequest:
    """A question to this hospital as if it were alone."""
    chosen = settings.chosen_modalities(site.schema)
    rows = site.split(settings).train
    measured = measure_patients(site.patients, rows, schema=site.schema, chosen=chosen)
    sums = sum_measures(measured, schema=site.schema, chosen=chosen, rule=site.rule)
    sums |= sum_correlations(site.patients, rows, schema=site.schema, chosen=chosen, rule=site.rule)
    return QualityRequest(study=describe_study(site, settings), n_sites=1, reference=sums)


def refit_request(site: Site, settings: Settings, *, refits: Sequence[int] = (0, 3)) -> RefitRequest:
    """A question about heads that are drawn, for the model that the seed draws."""
    given = evaluate_request(site, settings, part="train")
    n_columns = sum(build_model(site.schema, settings).widths.values()) + 1
    heads = np.random.default_rng(0).normal(size=(len(refits), n_columns)) / 3
    return RefitRequest(
        **{k: v for k, v in dict(given).items() if k != "release_row"}, refits=tuple(refits), heads={"heads": heads}
    )


def sizes_request(site: Site, settings: Settings, *, refits: Sequence[int] = (0, 3)) -> SizesRequest:
    """The sizes of the phi of the same heads over the test part."""
    explain, given = explain_request(site, settings), refit_request(site, settings, refits=refits)
    kept = {k: v for k, v in dict(explain).items() if k not in {"features", "release_row"}}
    return SizesRequest(**kept, refits=given.refits, heads=given.heads)


def requests_of_every_kind(site: Site, settings: Settings) -> dict[str, Request]:
    """One question of each kind that this hospital answers."""
    study = describe_study(site, settings)
    given = evaluate_request(site, settings)
    explain = explain_request(site, settings)
    n_modalities = len(settings.chosen_modalities(site.schema))
    return {
        HANDSHAKE: HandshakeRequest(study=study),
        REFERENCE: ReferenceRequest(study=study),
        QUALITY: quality_request(site, settings),
        STATISTICS: StatisticsRequest(study=study),
        TRAIN: train_request(site, settings),
        EVALUATE: given,
        COMPONENTS: ComponentsRequest(
            **{k: v for k, v in dict(given).items() if k not in {"release_row", "part"}}, part="train"
        ),
        BACKGROUND: BackgroundRequest(
            **{k: v for k, v in dict(given).items() if k not in {"release_row", "part"}}, part="train"
        ),
        EXPLAIN: explain,
        SPREAD: SpreadRequest(
            **{k: v for k, v in dict(explain).items() if k not in {"features", "release_row"}},
            tau2=(0.01,) * n_modalities,
        ),
        REFIT: refit_request(site, settings),
        SIZES: sizes_request(site, settings),
        **sum_requests(study),
    }
