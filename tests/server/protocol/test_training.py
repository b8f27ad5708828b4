"""Training rounds against hospitals that follow a script, so that every loss and weight is known beforehand."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from server.protocol.hospitals import Hospitals
from server.protocol.link import Answer, Link
from server.protocol.plan import StudyPlan
from server.protocol.training import train_phase
from server.run_folder.checkpoints import Progress, load_progress, save_progress
from server.study import start_progress
from shared_model.config import Scalar
from shared_model.errors import StudyError
from shared_model.evaluation.score_quantities import pack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import (
    EVALUATE,
    PROTOCOL_VERSION,
    TRAIN,
    EvaluateReply,
    EvaluateRequest,
    Refusal,
    StudyReference,
    SumsReply,
    TrainRequest,
)
from shared_model.schema import parse_schema
from tests.server.faulty_links import ScriptedLink
from tests.server.small_cohort import STATIC_SCHEMA, small_settings

NO_LINK = ScriptedLink(0, lambda _, node, __: Answer(node, None, "no answer"))
NAMES = {0: "east", 1: "north", 2: "south"}
N_TRAIN = 10
HEAD_BIAS = "head.linear.bias"
UNIMODAL_BIAS = "unimodal.static.bias"
ENCODER = "encoders.static.tables.0.weight"

Losses = Mapping[str, Sequence[float]]


@pytest.fixture
def make_plan() -> Callable[..., StudyPlan]:
    def make(**changes: Scalar) -> StudyPlan:
        schema, settings = parse_schema(STATIC_SCHEMA, source="schema.toml"), small_settings(**changes)
        preprocessing = Preprocessing(
            n=100,
            events=30,
            number_mean=[80.0, 0.5],
            number_sd=[8.0, 0.5],
            number_fill=[80.0, 0.5],
            series_mean={},
            series_sd={},
            event_mean={},
            event_sd={},
            image_mean={},
            image_sd={},
        )
        study = StudyReference(
            run_id="run", protocol=PROTOCOL_VERSION, schema_sha256=schema.sha256, settings=settings.to_config()
        )
        return StudyPlan(Hospitals(NO_LINK, study, schema, settings, NAMES), preprocessing, 1.0)

    return make


def _scores(log_loss: float) -> dict[str, np.ndarray]:
    sums = ScoreSums.from_scores(np.tile([-1.0, 0.0, 1.0, 2.0], 2), np.tile([0, 1, 0, 1], 2))
    return pack_scores(replace(sums, log_loss_sum=log_loss * sums.n))


@dataclass
class Script:
    """Hospitals whose training adds 1 to every weight; a model's validation loss is that of its number of steps."""

    plan: StudyPlan
    start: Progress
    losses: Losses
    refusals: Mapping[tuple[int, int], str] = field(default_factory=dict)
    asked: list[tuple[str, int, Any]] = field(default_factory=list)

    def __call__(self, kind: str, node: int, question: RecordDict) -> Answer:
        request = (TrainRequest if kind == TRAIN else EvaluateRequest).from_record(question)
        self.asked.append((kind, node, request))
        if isinstance(request, TrainRequest) and (code := self.refusals.get((node, request.round_number))):
            return Answer(node, Refusal(site=NAMES[node], code=code, reason="no").to_record())  # type: ignore[arg-type]
        bias = UNIMODAL_BIAS if request.phase == "unimodal" else HEAD_BIAS
        steps = round(float((request.weights[bias] - self.start.weights[bias])[0]))
        scores = _scores(self.losses[request.phase][steps])
        if isinstance(request, EvaluateRequest):
            return Answer(node, EvaluateReply(row='{"suppressed": true}', arrays=scores).to_record())
        update = {f"update/{name}": np.full_like(value, N_TRAIN) for name, value in request.weights.items()}
        counts = {"n-train": np.array(float(N_TRAIN)), "train-loss-sum": np.array(4.0)}
        return Answer(node, SumsReply(arrays={**update, **counts, **scores}).to_record())


def _train(
    plan: StudyPlan,
    losses: Losses,
    *,
    keep: Callable[[Progress], None] = lambda _: None,
    progress: Progress | None = None,
    refusals: Mapping[tuple[int, int], str] | None = None,
) -> tuple[Progress, Script]:
    script = Script(plan, start_progress(plan), losses, refusals or {})
    progress = progress or start_progress(plan)
    _train_phases(ScriptedLink(len(NAMES), script), plan, progress, keep=keep)
    return progress, script


def _train_phases(link: Link, plan: StudyPlan, progress: Progress, *, keep: Callable[[Progress], None]) -> None:
    over = replace(plan, hospitals=replace(plan.hospitals, link=link))
    while progress.phase_index < len(plan.settings.phases):
        train_phase(over, progress, keep=keep)


def _steps(progress: Progress, plan: StudyPlan, name: str = HEAD_BIAS) -> float:
    return float((progress.weights[name] - start_progress(plan).weights[name])[0])


def test_training_stops_when_patience_is_over_and_keeps_the_best_weights(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_fusion=9, patience=2)

    progress, _ = _train(plan, {"fusion": [0.6, 0.5, 0.55, 0.56, 0.1]})

    assert [line["val_loss"] for line in progress.rounds] == pytest.approx([0.6, 0.5, 0.55, 0.56])
    assert progress.best_round == 1
    assert _steps(progress, plan) == pytest.approx(1.0)


def test_training_counts_an_equal_loss_as_no_better(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_fusion=9, patience=2)

    progress, _ = _train(plan, {"fusion": [0.5, 0.5, 0.5, 0.1]})

    assert len(progress.rounds) == 3
    assert (progress.best_round, _steps(progress, plan)) == (0, 0.0)


def test_patience_starts_again_after_a_better_round(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_fusion=9, patience=2)

    progress, _ = _train(plan, {"fusion": [0.6, 0.61, 0.5, 0.51, 0.4, 0.41, 0.42, 0.1]})

    assert progress.best_round == 4
    assert _steps(progress, plan) == pytest.approx(4.0)
    assert len(progress.rounds) == 7


@pytest.mark.parametrize(("last", "best"), [(0.4, 2), (0.7, 1)])
def test_weights_of_the_last_round_are_validated_too(
    make_plan: Callable[..., StudyPlan], last: float, best: int
) -> None:
    plan = make_plan(rounds_fusion=2)

    progress, script = _train(plan, {"fusion": [0.6, 0.5, last]})

    assert [kind for kind, node, _ in script.asked if node == 0] == ["train", "train", "evaluate"]
    assert [(line["round"], line["train_loss"] is None) for line in progress.rounds] == [
        (1, False),
        (2, False),
        (2, True),
    ]
    assert progress.best_round == best
    assert _steps(progress, plan) == pytest.approx(best)


def test_line_of_a_round_tells_what_design_promises(make_plan: Callable[..., StudyPlan]) -> None:
    progress, _ = _train(make_plan(rounds_fusion=1, min_sites=2), {"fusion": [0.6, 0.5]}, refusals={(1, 0): "refused"})

    line = progress.rounds[0]
    assert set(line) == {
        *("round", "phase", "asked", "answered", "failed", "n", "train_loss"),
        *("val_loss", "val_auc", "seconds", "bytes_down", "bytes_up"),
    }
    assert line["asked"] == ["east", "north", "south"]
    assert line["answered"] == ["east", "south"]
    assert line["failed"] == {"north": "no"}
    assert line["n"] == 16  # eight validation patients at each of two hospitals
    assert line["train_loss"] == pytest.approx(0.4)
    # pooled pairs, each logit at both hospitals: (0 and 2) against (-1 and 1): 3 of 4 are concordant
    assert line["val_auc"] == pytest.approx(0.75)


def test_validation_of_few_who_had_the_event_stays_with_the_coordinator(
    make_plan: Callable[..., StudyPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ScoreSums.from_scores(np.linspace(-3, 1, 8), np.array([0, 0, 0, 0, 0, 0, 1, 0]))
    monkeypatch.setattr(
        sys.modules[__name__], "_scores", lambda loss: pack_scores(replace(few, log_loss_sum=loss * few.n))
    )

    progress, _ = _train(make_plan(rounds_fusion=3), {"fusion": [0.6, 0.4, 0.5, 0.7]})

    assert [line["n"] for line in progress.rounds] == [24] * 4  # three of them with the event
    assert {line[key] for line in progress.rounds for key in ("val_loss", "val_auc")} == {None}
    assert progress.best_round == 1  # the losses choose it all the same


def test_next_phase_starts_from_the_best_weights_of_the_last(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_unimodal=2, rounds_fusion=1)

    progress, script = _train(plan, {"unimodal": [0.6, 0.5, 0.7], "fusion": [0.8, 0.75]})

    assert _steps(progress, plan, UNIMODAL_BIAS) == pytest.approx(1.0)
    assert _steps(progress, plan) == pytest.approx(1.0)
    fusion = [request for _, node, request in script.asked if node == 0 and request.phase == "fusion"]
    np.testing.assert_allclose(fusion[0].frozen[ENCODER], start_progress(plan).weights[ENCODER] + 1, rtol=1e-6)
    assert [line["phase"] for line in progress.rounds] == ["unimodal"] * 3 + ["fusion"] * 2


def test_best_round_is_that_which_made_the_weights_when_a_phase_brings_nothing(
    make_plan: Callable[..., StudyPlan],
) -> None:
    plan = make_plan(rounds_unimodal=3, rounds_fusion=2)

    progress, _ = _train(plan, {"unimodal": [0.6, 0.5, 0.7, 0.8], "fusion": [0.5, 0.9, 0.9]})

    assert _steps(progress, plan, UNIMODAL_BIAS) == pytest.approx(1.0)
    assert _steps(progress, plan) == 0.0
    assert progress.best_round == 1


def test_a_phase_sends_what_it_trains_and_the_encoders_that_it_needs(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_unimodal=1, rounds_fusion=1, rounds_joint=1)
    losses = [0.6, 0.5]

    _, script = _train(plan, {"unimodal": losses, "fusion": losses, "joint": [0.6, 0.5, 0.4]})

    parts = {
        request.phase: [{name.split(".")[0] for name in weights} for weights in (request.weights, request.frozen)]
        for kind, _, request in script.asked
        if kind == TRAIN
    }
    assert parts == {
        "unimodal": [{"encoders", "unimodal"}, set()],
        "fusion": [{"absent", "head"}, {"encoders"}],
        "joint": [{"encoders", "absent", "head"}, set()],
    }


def test_frozen_weights_go_once_to_a_site_and_again_after_it_failed(make_plan: Callable[..., StudyPlan]) -> None:
    refusals = {(1, 1): "needs-weights", (2, 0): "refused"}

    _, script = _train(
        make_plan(rounds_fusion=4, min_sites=2), {"fusion": [0.6, 0.5, 0.4, 0.3, 0.2]}, refusals=refusals
    )

    sent = {(node, request.round_number): bool(request.frozen) for kind, node, request in script.asked if kind == TRAIN}
    assert [sent[0, round_number] for round_number in range(4)] == [True, False, False, False]
    # asked again within the round, with them; the script refuses that, too
    assert [node for kind, node, request in script.asked if kind == TRAIN and request.round_number == 1].count(1) == 2
    assert [sent[1, round_number] for round_number in range(4)] == [True, True, True, False]
    assert [sent[2, round_number] for round_number in range(4)] == [True, True, False, False]


def test_server_optimiser_keeps_its_moments_through_a_phase(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_fusion=2, strategy="fedadam", server_learning_rate=0.01, server_tau=0.001)

    _, script = _train(plan, {"fusion": [0.6]})

    # algorithm 2 of Reddi et al. 2021 with a change of 1 in both rounds; v starts at tau^2
    v1 = 0.99 * 1e-6 + 0.01
    v2 = 0.99 * v1 + 0.01
    expected = 0.01 * 0.1 / (math.sqrt(v1) + 0.001) + 0.01 * 0.19 / (math.sqrt(v2) + 0.001)
    last = script.asked[-1][2]
    assert isinstance(last, EvaluateRequest)
    assert last.weights[HEAD_BIAS][0] - start_progress(plan).weights[HEAD_BIAS][0] == pytest.approx(expected, rel=1e-4)


def test_server_optimiser_starts_anew_in_each_phase(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_unimodal=1, rounds_fusion=0, rounds_joint=1, strategy="fedadam")

    # no model is better than the first, so both phases take their step from the same weights
    _, script = _train(plan, {"unimodal": [0.6], "joint": [0.6]})

    scored = [request for kind, node, request in script.asked if kind == EVALUATE and node == 0]
    unimodal, joint = (request.weights[ENCODER] - start_progress(plan).weights[ENCODER] for request in scored)
    assert np.abs(unimodal).min() > 1e-3
    np.testing.assert_allclose(joint, unimodal, rtol=1e-6)


def test_training_fails_by_name_when_too_few_answer(make_plan: Callable[..., StudyPlan]) -> None:
    refusals = dict.fromkeys([(0, 1), (2, 1)], "refused")

    with pytest.raises(StudyError) as caught:
        _train(make_plan(rounds_fusion=3, min_sites=2), {"fusion": [0.6, 0.5, 0.4]}, refusals=refusals)

    assert str(caught.value).startswith("round 2 (fusion): expected answers of at least 2 hospitals")
    assert "east: no" in str(caught.value)
    assert "south: no" in str(caught.value)


def test_line_of_a_round_without_an_answer_has_the_number_that_the_error_names(
    make_plan: Callable[..., StudyPlan],
) -> None:
    plan = make_plan(rounds_fusion=3, min_sites=1)
    progress = start_progress(plan)
    silent = ScriptedLink(3, lambda _, node, __: Answer(node, None, "no answer"))

    with pytest.raises(StudyError, match=r"^round 1 \(fusion\): "):
        _train_phases(silent, plan, progress, keep=lambda _: None)

    (line,) = progress.rounds
    assert (line["round"], line["train_loss"], line["val_loss"], line["answered"]) == (1, None, None, [])


def test_training_fails_when_nobody_has_validation_patients(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(rounds_fusion=1, min_sites=1)

    def reply(_: str, node: int, question: RecordDict) -> Answer:
        weights = TrainRequest.from_record(question).weights
        update = {f"update/{name}": np.zeros_like(value) for name, value in weights.items()}
        counts = {"n-train": np.array(1.0), "train-loss-sum": np.array(1.0)}
        return Answer(node, SumsReply(arrays={**update, **counts, **pack_scores(ScoreSums.zero())}).to_record())

    with pytest.raises(StudyError, match="expected patients in the validation part, got none"):
        _train_phases(ScriptedLink(3, reply), plan, start_progress(plan), keep=lambda _: None)


class KilledError(Exception):
    """The process ended right after a checkpoint."""


def _without_seconds(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    varying = ("seconds", "bytes_down", "bytes_up")
    return [{key: value for key, value in line.items() if key not in varying} for line in rounds]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_killed_after_any_checkpoint_a_run_resumes_to_the_same_end(
    make_plan: Callable[..., StudyPlan], tmp_path: Path, strategy: str
) -> None:
    plan = make_plan(rounds_unimodal=2, rounds_fusion=5, patience=2, strategy=strategy, server_learning_rate=1e-6)
    losses: Losses = {"unimodal": [0.6, 0.5, 0.4], "fusion": [0.6, 0.5, 0.7, 0.8, 0.9]}
    if strategy == "fedadam":  # its small steps count as none, so every model has the first one's loss
        losses = {"unimodal": [0.6], "fusion": [0.6]}
    kept: list[int] = []
    whole, _ = _train(plan, losses, keep=lambda _: kept.append(1))
    assert len(kept) >= 5

    for stop in range(1, len(kept) + 1):
        folder, left = tmp_path / str(stop), iter(range(stop - 1))

        def keep(progress: Progress, folder: Path = folder, left: Iterator[int] = left) -> None:
            save_progress(folder, progress)
            if next(left, None) is None:
                raise KilledError

        with pytest.raises(KilledError):
            _train(plan, losses, keep=keep)
        resumed, _ = _train(plan, losses, progress=load_progress(folder))

        assert _without_seconds(resumed.rounds) == _without_seconds(whole.rounds), f"killed after checkpoint {stop}"
        assert resumed.best_round == whole.best_round
        for name, value in whole.weights.items():
            np.testing.assert_array_equal(resumed.weights[name], value)
