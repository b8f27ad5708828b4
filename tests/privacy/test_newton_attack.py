"""The coordinator's attack on Newton's sums, before and after secure sums.

Two Hessians of one hospital, X'W1X and X'W2X, are diagonalised at once, which gives the rows of X where the hospital
has no more training patients than independent columns; the first gradient then gives the outcomes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import RecordDict

from client.worker.answering import Worker
from server.protocol.link import Answer, Link
from server.run_folder.folder import RunFolder
from shared_model.config import Scalar, Settings
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import TRAIN, SumsReply
from shared_model.protocol.quantities import MASKED, unpack_integers
from shared_model.training.newton import GRADIENT, HESSIAN, newton_quantities, unpack_hessian
from shared_model.training.updates import N_TRAIN, round_quantities
from simulation.in_process import InProcessLink
from tests.server.small_cohort import open_workers, run_small_study, small_settings

HOSPITALS = ("east", "north", "south", "west")
N_COLUMNS = 30
SETTINGS: dict[str, Scalar] = {"strategy": "newton", "head": "", "rounds_fusion": 4, "explain": "none"}


@dataclass
class Listening:
    """A coordinator that keeps each hospital's answers to the training questions."""

    inner: Link
    answers: list[dict[str, np.ndarray]] = field(default_factory=list)

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            if kind == TRAIN and answer.node == 0 and answer.record is not None:
                self.answers.append(dict(SumsReply.from_record(answer.record).arrays))
            yield answer


@dataclass(frozen=True)
class Known:
    """What the attacker knows and what is true of the hospital's training patients."""

    heard: list[dict[str, np.ndarray]]
    preprocessing: Preprocessing
    truth: set[tuple[float, int]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hospitals of 40 patients, of whom 30 numbers are known: fewer train than there are columns."""
    folder = tmp_path_factory.mktemp("attacked")
    columns = "".join(f'[[static]]\nname = "x{i}"\nkind = "numeric"\nrange = [-9, 9]\n' for i in range(N_COLUMNS))
    study = '[study]\nname = "wide"\ntitle = "Wide"\noutcome = "died"\npatient_id = "id"\n'
    (folder / "schema.toml").write_text(study + columns, encoding="utf-8")
    for hospital in range(4):
        rng = np.random.default_rng(hospital)
        values = rng.normal(size=(40, N_COLUMNS)).round(3)
        table = pd.DataFrame(values, columns=[f"x{i}" for i in range(N_COLUMNS)])
        died = (values[:, 0] + rng.normal(size=40) > np.quantile(values[:, 0], 0.6)).astype(int)
        (folder / HOSPITALS[hospital]).mkdir()
        table.assign(died=died, id=[f"p{i}" for i in range(40)]).to_csv(
            folder / HOSPITALS[hospital] / "patients.csv", index=False
        )
    return folder


def listen(cohort: Path, out: Path, settings: Settings) -> Known:
    workers = [Worker(worker.site, simulated=True) for worker in open_workers(cohort, out.parent / "cache")]
    link = Listening(InProcessLink(workers))
    run_small_study(cohort, out, settings=settings, link=link)
    site = workers[0].site
    assert site.name == "east"
    rows = site.split(settings).train
    table = pd.read_csv(cohort / "east" / "patients.csv").iloc[rows]
    truth = set(zip(table["x0"].round(2), table["died"], strict=True))
    described = RunFolder(out).read_json("model.json")
    return Known(link.answers, Preprocessing.from_json(described["preprocessing"]), truth)


def attack(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], known: Known) -> set[tuple[float, int]]:
    """First number and outcome of every patient that the two answers give away."""
    width = len(first[GRADIENT])
    one, two = (unpack_hessian(np.asarray(each[HESSIAN], dtype=float), width) for each in (first, second))
    values, vectors = np.linalg.eigh(one)
    kept = values > values[-1] * 1e-11
    values, vectors = values[kept], vectors[:, kept]
    whiten = (vectors / np.sqrt(values)).T
    _, rotation = np.linalg.eigh(whiten @ two @ whiten.T)
    rows = (rotation.T * np.sqrt(values)) @ vectors.T
    with np.errstate(all="ignore"):
        rows = rows / rows[:, -1:]  # the intercept's column is 1
        n = float(np.asarray(first[N_TRAIN]))
        risk = (1 - np.sqrt(1 - 4 * one[-1, -1] / n)) / 2
        outcome = risk - np.linalg.lstsq(rows.T, first[GRADIENT], rcond=None)[0]
        number = rows[:, 0] * known.preprocessing.number_sd[0] + known.preprocessing.number_mean[0]
        good = np.isfinite(number) & np.isfinite(outcome)
    return set(zip(number[good].round(2).tolist(), (outcome[good] > 0.5).astype(int).tolist(), strict=True))


def test_plain_sums_of_a_small_hospital_give_its_patients_away(cohort: Path, tmp_path: Path) -> None:
    known = listen(cohort, tmp_path / "run", small_settings(**SETTINGS))

    found = attack(known.heard[0], known.heard[1], known)

    assert len(found & known.truth) >= 0.8 * len(known.truth)


def test_masked_sums_give_nobody_away(cohort: Path, tmp_path: Path) -> None:
    known = listen(cohort, tmp_path / "run", small_settings(secure_sum=True, **SETTINGS))
    assert all(set(answer) == {MASKED} for answer in known.heard)
    size = len(known.heard[0][MASKED])
    width = next(w for w in range(1, 500) if _count(w) == size)
    quantities = {**newton_quantities(width), **round_quantities({}, counted=())}
    answers = [unpack_integers(answer[MASKED], quantities) for answer in known.heard]

    found = attack(answers[0], answers[1], known)

    assert not found & known.truth


def _count(width: int) -> int:
    quantities = {**newton_quantities(width), **round_quantities({}, counted=())}
    return sum(int(np.prod(quantity.shape)) for quantity in quantities.values())
