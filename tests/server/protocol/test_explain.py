from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, RecordDict

from client.worker.answering import Worker
from server.protocol.explain import (
    CommonBackground,
    ExplainedPart,
    draw_background,
    explain_part,
)
from server.protocol.explanations import describe_explanation
from server.protocol.link import Answer, Link
from server.protocol.refits import ShareRefits
from server.protocol.whole_model import WholeModel
from shared_model.config import Scalar
from shared_model.errors import StudyError
from shared_model.model.fusion import build_model
from shared_model.protocol.messages import EXPLAIN, SPREAD, ExplainReply
from shared_model.shapley.common_background import hash_background
from simulation.in_process import InProcessLink
from tests.server.explained_study import SilencedLink, open_plan
from tests.server.faulty_links import FAULTS, FaultyLink
from tests.server.small_cohort import open_workers, small_settings, write_small_cohort

ALL = ("east", "north", "south", "west")
SETTINGS: dict[str, Scalar] = {"background_rows": 40, "strata": "male", "head": "4", "series_embedding": 3}


@pytest.fixture(scope="session")
def with_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("series") / "cohort", hospitals=4, series=True)


@pytest.fixture
def workers(with_series: Path, tmp_path: Path) -> list[Worker]:
    return open_workers(with_series, tmp_path / "cache")


def explain(
    link: Link, cohort: Path, *, min_sites: int = 3, features: bool = False
) -> tuple[WholeModel, CommonBackground, ExplainedPart]:
    plan, progress = open_plan(link, cohort, small_settings(min_sites=min_sites, **SETTINGS))
    model = WholeModel(plan, progress, phase="fusion")
    background = draw_background(model, progress.weights)
    return model, background, explain_part(model, background, part="test", features=features)


# ---------------------------------------------------------------------------------------------------------- background


def test_background_has_the_rows_and_the_id_of_its_model(with_series: Path, workers: list[Worker]) -> None:
    model, background, _ = explain(InProcessLink(workers), with_series)

    widths = build_model(model.plan.schema, model.plan.settings).widths
    assert {name: value.shape for name, value in background.embeddings.items()} == {
        name: (40, width) for name, width in widths.items()
    }
    found = hash_background(model.sha256, background.embeddings, background.present)
    assert background.background_id == found
    assert not background.present["drugs"].all()  # which half of the patients lack


def test_same_hospitals_give_the_same_background(with_series: Path, workers: list[Worker]) -> None:
    link = InProcessLink(workers)
    plan, progress = open_plan(link, with_series, small_settings(**SETTINGS))

    first, again = (draw_background(WholeModel(plan, progress, phase="fusion"), progress.weights) for _ in range(2))

    assert first.background_id == again.background_id


# --------------------------------------------------------------------------------------------------------------- totals


def test_total_is_that_of_all_hospitals_patients(with_series: Path, workers: list[Worker]) -> None:
    heard: dict[int, dict[str, np.ndarray]] = {}

    def listen(kind: str, answer: Answer) -> Answer:
        assert kind == EXPLAIN
        assert answer.record is not None
        heard[answer.node] = ExplainReply.from_record(answer.record).arrays
        return answer

    link: Link = InProcessLink(workers)
    for node in range(4):
        link = FaultyLink(link, node, listen, (EXPLAIN,))
    _, _, found = explain(link, with_series, features=True)

    assert len(heard) == 4
    for name, value in found.total.items():
        expected = np.sum([arrays[name] for arrays in heard.values()], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-4, err_msg=name)
    assert found.total["n"][0] == 48
    assert found.attendance.answered == list(ALL)


def test_spread_rests_on_the_estimated_variance_between_hospitals(with_series: Path, workers: list[Worker]) -> None:
    _, _, found = explain(InProcessLink(workers), with_series)

    assert found.spread is not None
    assert found.spread["between/k"].tolist() == [4, 4, 4]
    spread_out = found.tau2 > 0
    assert (found.spread["between/w"][spread_out] < found.total["between/w"][spread_out]).all()
    np.testing.assert_allclose(found.spread["between/w"][~spread_out], found.total["between/w"][~spread_out])
    assert spread_out.any()


def test_one_hospital_has_no_spread(with_series: Path, tmp_path: Path) -> None:
    link = InProcessLink(open_workers(with_series, tmp_path / "cache", names=["east"]))

    _, _, found = explain(link, with_series, min_sites=1)

    assert found.spread is None
    assert np.isnan(found.tau2).all()


# --------------------------------------------------------------------------------------------------- faulty hospitals


@pytest.fixture(scope="module")
def without_west(with_series: Path, tmp_path_factory: pytest.TempPathFactory) -> ExplainedPart:
    """Of the three hospitals that stay well; west gave its part of the background and no more."""
    link = InProcessLink(open_workers(with_series, tmp_path_factory.mktemp("three") / "cache"))
    return explain(SilencedLink(link, {(EXPLAIN, 3): 1, (SPREAD, 3): 1}), with_series)[2]


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"contradiction"}))
def test_hospital_with_a_faulty_answer_is_named_and_changes_nothing(
    fault: str, with_series: Path, workers: list[Worker], without_west: ExplainedPart
) -> None:
    _, _, found = explain(FaultyLink(InProcessLink(workers), 3, FAULTS[fault], (EXPLAIN,)), with_series)

    assert list(found.attendance.failed) == ["west"]
    assert found.rows.keys() == without_west.rows.keys() == {"east", "north", "south"}
    for name, value in without_west.total.items():
        np.testing.assert_array_equal(found.total[name], value)


def set_counts(n: float, events: float) -> Callable[[str, Answer], Answer]:
    def change(_: str, answer: Answer) -> Answer:
        assert answer.record is not None
        arrays = answer.record.array_records["arrays"]
        for name, value in (("n", n), ("events", events)):
            arrays[name] = Array(np.full(arrays[name].numpy().shape, value))
        return answer

    return change


@pytest.mark.parametrize(("n", "events"), [(0.0, 500.0), (3.0, 90.0), (12.5, 1.0)])
def test_hospital_whose_counts_contradict_each_other_is_named(
    n: float, events: float, with_series: Path, workers: list[Worker]
) -> None:
    """As in an evaluation: one hospital that tells nonsense must not end the run of the others."""
    link = FaultyLink(InProcessLink(workers), 3, set_counts(n, events), (EXPLAIN,))

    model, background, found = explain(link, with_series)

    shape = build_model(model.plan.schema, model.plan.settings)
    ranges = ShareRefits(np.empty((0, 3)), np.zeros(3, dtype=bool), "share-refits=0")
    content = describe_explanation(
        model.plan, shape, background, found, ranges=ranges, model_hash=model.sha256, evaluated=list(found.rows)
    )
    assert list(content["failed"]) == ["west"]
    assert content["n"] == 36


def test_hospital_that_fails_between_explanation_and_spread_is_named(
    with_series: Path, workers: list[Worker], caplog: pytest.LogCaptureFixture
) -> None:
    _, _, found = explain(SilencedLink(InProcessLink(workers), {(SPREAD, 2): 1}), with_series)

    assert "spread between hospitals: south is missing: no answer within 5 s" in caplog.text
    assert found.attendance.failed == {}
    assert found.spread is not None
    assert (found.total["between/k"].tolist(), found.spread["between/k"].tolist()) == ([4] * 3, [3] * 3)


def test_too_few_answers_to_the_spread_end_the_step_by_name(with_series: Path, workers: list[Worker]) -> None:
    link = SilencedLink(InProcessLink(workers), {(SPREAD, 1): 1, (SPREAD, 2): 1})

    with pytest.raises(StudyError) as caught:
        explain(link, with_series)

    assert str(caught.value).startswith("spread (test): expected answers of at least 3 hospitals")
    assert "  north: no answer" in str(caught.value)
    assert "  south: no answer" in str(caught.value)


def test_hospital_refuses_a_background_that_changed_on_the_way(with_series: Path, workers: list[Worker]) -> None:
    class Meddling(InProcessLink):
        def ask(self, kind: str, questions: Any, *, deadline_s: float) -> Any:
            if kind == EXPLAIN:
                _nudge(questions[0])  # one record for all
            yield from super().ask(kind, questions, deadline_s=deadline_s)

    with pytest.raises(StudyError) as caught:
        explain(Meddling(workers), with_series)

    assert str(caught.value).count("background: expected the id") == 4


def _nudge(record: RecordDict) -> None:
    rows = record.array_records["background"]
    value = rows["static"].numpy().copy()
    value[0, 0] += 1
    rows["static"] = Array(value)
