"""Who is sent the weights of a whole model, who is not, and who is asked again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from client.worker.answering import Worker
from server.protocol.explain import draw_background, explain_part
from server.protocol.whole_model import WholeModel
from shared_model.errors import StudyError
from shared_model.protocol.messages import (
    BACKGROUND,
    EXPLAIN,
    SPREAD,
    BackgroundRequest,
    ExplainRequest,
    SpreadRequest,
    WholeModelRequest,
)
from shared_model.protocol.questions import QUESTIONS
from simulation.in_process import InProcessLink
from tests.server.explained_study import SilencedLink, open_plan
from tests.server.faulty_links import RecordingLink
from tests.server.small_cohort import open_workers, small_settings

NODES = (0, 1, 2, 3)  # east, north, south, west


@dataclass
class Asked:
    """A whole model on the four static hospitals, and what was put to them about it."""

    model: WholeModel
    weights: dict[str, np.ndarray]
    workers: list[Worker]
    link: RecordingLink
    silenced: SilencedLink

    def ask_background(self) -> list[str]:
        return self.model.ask(BackgroundRequest, part="train").attendance.answered

    def questions(self, kind: str) -> list[tuple[int, bool]]:
        """Node, and whether the weights went along."""
        return [
            (node, bool(record.array_records["weights"]))
            for asked, node, record in self.link.questions
            if asked == kind
        ]

    def lose_state(self, node: int) -> None:
        shutil.rmtree(self.workers[node].site.state_dir / "runs")


@pytest.fixture
def asked(cohort: Path, tmp_path: Path) -> Asked:
    return open_asked(cohort, tmp_path, min_sites=3)


def open_asked(cohort: Path, cache_dir: Path, *, min_sites: int) -> Asked:
    workers = open_workers(cohort, cache_dir / "cache")
    silenced = SilencedLink(InProcessLink(workers))
    plan, progress = open_plan(silenced, cohort, small_settings(min_sites=min_sites))
    link = RecordingLink(silenced)
    over = replace(plan, hospitals=replace(plan.hospitals, link=link))
    return Asked(WholeModel(over, progress, phase="fusion"), progress.weights, workers, link, silenced)


def test_weights_travel_once_and_later_questions_are_light(asked: Asked) -> None:
    asked.ask_background()
    asked.ask_background()

    assert asked.questions(BACKGROUND) == [*((node, True) for node in NODES), *((node, False) for node in NODES)]


def test_hospital_that_lost_the_weights_is_asked_again_with_them(asked: Asked) -> None:
    asked.ask_background()
    asked.lose_state(1)

    answered = asked.ask_background()

    assert asked.questions(BACKGROUND)[4:] == [*((node, False) for node in NODES), (1, True)]
    assert answered == ["east", "north", "south", "west"]


def test_hospital_that_was_asked_again_counts_once_and_has_not_failed(asked: Asked) -> None:
    asked.ask_background()
    asked.lose_state(2)
    n_train = sum(len(worker.site.split(asked.model.plan.settings).train) for worker in asked.workers)

    answers = asked.model.ask(BackgroundRequest, part="train")

    assert answers.sums["patterns"].sum() == n_train
    assert answers.attendance.failed == {}
    assert answers.attendance.asked == ["east", "north", "south", "west"]


def test_all_hospitals_may_have_lost_the_weights(asked: Asked) -> None:
    asked.ask_background()
    for node in NODES:
        asked.lose_state(node)

    assert asked.ask_background() == ["east", "north", "south", "west"]


def test_hospital_that_did_not_answer_is_sent_the_weights_with_the_next_question(asked: Asked) -> None:
    asked.silenced.silent[BACKGROUND, 3] = 1

    first, second = asked.ask_background(), asked.ask_background()

    assert (first, second) == (["east", "north", "south"], ["east", "north", "south", "west"])
    assert asked.questions(BACKGROUND)[4:] == [(0, False), (1, False), (2, False), (3, True)]


def test_too_few_answers_end_the_step_by_name(asked: Asked) -> None:
    asked.silenced.silent |= {(BACKGROUND, 1): 9, (BACKGROUND, 3): 9}

    with pytest.raises(StudyError) as caught:
        asked.ask_background()

    assert str(caught.value).splitlines() == [
        "background (train): expected answers of at least 3 hospitals (min-sites), got 2 of 4. Failed:",
        "  north: no answer within 5 s",
        "  west: no answer within 5 s",
    ]


def test_explanation_of_a_model_sends_its_weights_once_over_its_three_questions(asked: Asked) -> None:
    explain_part(asked.model, draw_background(asked.model, asked.weights), part="test", features=False)

    assert asked.questions(BACKGROUND) == [(node, True) for node in NODES]
    assert asked.questions(EXPLAIN) == asked.questions(SPREAD) == [(node, False) for node in NODES]


@pytest.mark.parametrize("kind", [ExplainRequest, SpreadRequest])
def test_hospital_that_loses_the_weights_on_the_way_changes_nothing(
    kind: type[WholeModelRequest], cohort: Path, tmp_path: Path
) -> None:
    def explain(folder: str, *, lose: bool) -> tuple[Asked, object]:
        asked = open_asked(cohort, tmp_path / folder, min_sites=4)
        original: Callable[..., object] = asked.model.ask

        def ask(request: type[WholeModelRequest], **fields: object) -> object:
            if lose and request is kind:
                asked.lose_state(1)
            return original(request, **fields)

        asked.model.ask = ask  # type: ignore[method-assign,assignment]
        background = draw_background(asked.model, asked.weights)
        return asked, explain_part(asked.model, background, part="test", features=False)

    (asked, lost), (_, kept) = explain("lost", lose=True), explain("kept", lose=False)

    assert (1, True) in asked.questions(next(name for name, row in QUESTIONS.items() if row.request is kind))
    for part in ("total", "spread"):
        for name, value in getattr(kept, part).items():
            assert (getattr(lost, part)[name] == value).all(), name
