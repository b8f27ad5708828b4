"""Studies whose sums are secure: the plain study's bytes, no hospital's own sums at the coordinator, losses borne."""

import json
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from client.worker.answering import Worker
from server.protocol.link import Answer, Link
from server.run_folder.folder import RunFolder
from shared_model.config import Scalar, Settings
from shared_model.errors import StudyError
from shared_model.protocol.messages import EVALUATE, TRAIN, Refusal, StudyReference, SumRound, is_message
from shared_model.protocol.quantities import MASKED
from shared_model.protocol.questions import QUESTIONS
from shared_model.protocol.sum_messages import KeysRequest
from simulation.in_process import InProcessLink
from tests.server.faulty_links import ARRAYS, InterruptedLink, RecordingLink
from tests.server.small_cohort import open_workers, run_small_study, small_settings, train_request, write_small_cohort

FILES = ("model.safetensors", "metrics.json", "explanations.json", "quality.json")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("secure") / "cohort", hospitals=5, series=True)


def run(cohort: Path, out: Path, settings: Settings, link: Link, *, resume: bool = False) -> RunFolder:
    return run_small_study(cohort, out, settings=settings, link=link, resume=resume)


@dataclass
class LosingLink:
    """Loses the answers of some hospitals to the n-th question of a kind, before or after they are at work."""

    inner: Link
    lost: Collection[int]
    kind: str
    nth: int = 1
    for_good: bool = False
    asked: dict[str, int] = field(default_factory=dict)
    is_struck: bool = False

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        self.asked[kind] = self.asked.get(kind, 0) + 1
        strikes = kind == self.kind and self.asked[kind] == self.nth
        self.is_struck |= strikes
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            if answer.node in self.lost and (strikes or (self.is_struck and self.for_good)):
                yield Answer(answer.node, None, "no answer")
            else:
                yield answer


def simulated_workers(cohort: Path, cache: Path) -> list[Worker]:
    return [Worker(worker.site, simulated=True) for worker in open_workers(cohort, cache)]


def link_to(cohort: Path, cache: Path) -> InProcessLink:
    return InProcessLink(simulated_workers(cohort, cache))


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "newton", "share_refits": 2, "rounds_fusion": 3, "head": ""},
        {"rounds_unimodal": 1, "explain_every": 1},
        {"strategy": "scaffold", "momentum": 0.0},
    ],
    ids=["newton", "fedavg", "scaffold"],
)
def test_secure_study_gives_the_plain_studys_bytes(cohort: Path, tmp_path: Path, changes: dict[str, Scalar]) -> None:
    plain = run_small_study(cohort, tmp_path / "plain", settings=small_settings(**changes))
    secure = run(
        cohort, tmp_path / "secure", small_settings(secure_sum=True, **changes), link_to(cohort, tmp_path / "cache")
    )

    for name in FILES:
        assert (secure.path / name).read_bytes() == (plain.path / name).read_bytes(), name


@dataclass
class KeepingLink:
    """Keeps every answer."""

    inner: Link
    answers: list[tuple[str, RecordDict]] = field(default_factory=list)

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            if answer.record is not None:
                self.answers.append((kind, answer.record))
            yield answer


def test_no_answer_holds_a_sum_that_can_be_read(cohort: Path, tmp_path: Path) -> None:
    link = KeepingLink(link_to(cohort, tmp_path / "cache"))
    run(cohort, tmp_path / "run", small_settings(secure_sum=True, share_refits=2, strategy="newton", head=""), link)

    summed = [(kind, record) for kind, record in link.answers if QUESTIONS[kind].has_sums]
    assert {kind for kind, _ in summed} > {"query.statistics", TRAIN, EVALUATE, "query.explain", "query.refit"}
    for kind, record in summed:
        arrays = record.array_records[ARRAYS]
        assert list(arrays) == [MASKED], kind
        values = arrays[MASKED].numpy()
        assert values.dtype == np.uint64
        if values.size > 500:  # zeros and small counts, of which most sums are made, are as random as the rest
            assert len(np.unique(values)) == values.size
            high = np.bincount((values >> np.uint64(56)).astype(int), minlength=256)
            assert high.max() < 10 + 4 * values.size / 256


@pytest.mark.parametrize("lost", [(0,), (2, 4)], ids=["one", "two"])
@pytest.mark.parametrize("kind", ["query.shares", "query.texts", TRAIN, "query.confirm", "query.open", "query.explain"])
def test_lost_hospitals_leave_the_sums_of_the_others(
    cohort: Path, tmp_path: Path, kind: str, lost: tuple[int, ...]
) -> None:
    """Two of five with no colluding hospital; the plain study loses the same answers."""
    changes: dict[str, Scalar] = {"strategy": "newton", "head": "", "rounds_fusion": 2, "explain": "modalities"}
    settings = small_settings(secure_sum=True, colluding_hospitals=0, **changes)
    link = LosingLink(link_to(cohort, tmp_path / "cache"), lost, kind)
    if kind == "query.confirm":  # which is asked where somebody else was lost
        link = LosingLink(LosingLink(link.inner, (1,), TRAIN), lost[:1], kind)
    secure = run(cohort, tmp_path / "run", settings, link)

    assert link.is_struck
    assert json.loads((secure.path / "metrics.json").read_text())["test"]["pooled"]["n"] >= 30
    if kind in {TRAIN, "query.explain"}:
        plain = run(
            cohort,
            tmp_path / "plain",
            small_settings(**changes),
            LosingLink(link_to(cohort, tmp_path / "cache"), lost, kind),
        )
        for name in ("model.safetensors", "explanations.json"):
            assert (secure.path / name).read_bytes() == (plain.path / name).read_bytes(), name


def test_too_few_answers_end_the_run_with_their_reasons_and_open_nothing(cohort: Path, tmp_path: Path) -> None:
    link = RecordingLink(LosingLink(link_to(cohort, tmp_path / "cache"), (0, 1), TRAIN, for_good=True))
    settings = small_settings(secure_sum=True, colluding_hospitals=1, min_sites=3)

    with pytest.raises(StudyError, match=r"a secure sum: expected answers of at least 4 hospitals .* got 3 of 5"):
        run(cohort, tmp_path / "run", settings, link)
    assert link.questions[-1][0] == TRAIN


def test_two_hospitals_have_no_secure_sum(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=2)
    settings = small_settings(secure_sum=True, min_sites=1)

    with pytest.raises(StudyError, match=r"secure sum: expected at least 3 hospitals .* got 2"):
        run(cohort, tmp_path / "run", settings, link_to(cohort, tmp_path / "cache"))


def test_worker_that_starts_again_goes_on_with_its_session(cohort: Path, tmp_path: Path) -> None:
    @dataclass
    class Restarting(InProcessLink):
        cache: Path

        def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
            yield from link_to(cohort, self.cache).ask(kind, questions, deadline_s=deadline_s)

        def nodes(self) -> frozenset[int]:
            return frozenset(range(5))

    settings = small_settings(secure_sum=True)
    again = run(cohort, tmp_path / "again", settings, Restarting(tmp_path / "cache"))
    once = run(cohort, tmp_path / "once", settings, link_to(cohort, tmp_path / "other"))

    assert (again.path / "model.safetensors").read_bytes() == (once.path / "model.safetensors").read_bytes()
    kept = list((tmp_path / "cache").rglob("secure-sums/*.json"))
    assert len(kept) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


@pytest.mark.parametrize("at", [9, 14, 19])
def test_interrupted_study_resumes_to_the_same_bytes(cohort: Path, tmp_path: Path, at: int) -> None:
    settings = small_settings(secure_sum=True)
    whole = run(cohort, tmp_path / "whole", settings, link_to(cohort, tmp_path / "other"))
    stopped = InterruptedLink(link_to(cohort, tmp_path / "cache"), at)
    with pytest.raises(KeyboardInterrupt):
        run(cohort, tmp_path / "run", settings, stopped)
    resumed = run(cohort, tmp_path / "run", settings, link_to(cohort, tmp_path / "cache"), resume=True)

    for name in FILES:
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def _refusal(worker: Worker, kind: str, question: RecordDict) -> str:
    answer = worker.answer(kind, question)
    assert is_message(answer, Refusal)
    return Refusal.from_record(answer).reason


def test_hospital_answers_no_plain_question_of_a_secure_study(cohort: Path, tmp_path: Path) -> None:
    worker = simulated_workers(cohort, tmp_path / "cache")[0]
    for settings, sum_round in (
        (small_settings(secure_sum=True), None),
        (small_settings(), SumRound(session="0" * 64, round=0)),
    ):
        request = train_request(worker.site, settings)
        study = request.study.model_copy(update={"sum_round": sum_round})
        reason = _refusal(worker, TRAIN, request.model_copy(update={"study": study}).to_record())
        assert reason == "train: expected a question as secure-sum says, got another."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"purpose": "another-run 1"}, "expected a session of this run"),
        ({"members": {}}, "expected at least 3 hospitals"),
        ({"threshold": 2}, "with 2t > 5"),
    ],
)
def test_hospital_begins_no_session_that_would_not_protect_it(
    cohort: Path, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    workers = simulated_workers(cohort, tmp_path / "cache")
    study: StudyReference = train_request(workers[0].site, small_settings(secure_sum=True)).study
    members = {worker.site.name: f"{i:064x}" for i, worker in enumerate(workers)}
    request = KeysRequest(study=study, purpose="run 1", members=members, threshold=4, rounds=2, colluding=0)

    assert reason in _refusal(workers[0], "query.keys", request.model_copy(update=change).to_record())
    assert "own signing key" in _refusal(workers[0], "query.keys", request.to_record())


def test_bytes_and_seconds_of_a_round_count_what_opens_its_sum(cohort: Path, tmp_path: Path) -> None:
    lines = {}
    for secure in (False, True):
        folder = run(
            cohort, tmp_path / f"run-{secure}", small_settings(secure_sum=secure), link_to(cohort, tmp_path / "cache")
        )
        lines[secure] = json.loads((folder.path / "rounds.jsonl").read_text().splitlines()[0])

    assert lines[True]["bytes_up"] > lines[False]["bytes_up"]
    assert lines[True]["bytes_down"] > lines[False]["bytes_down"]
    assert lines[True]["answered"] == lines[False]["answered"]
