import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from server.protocol.evaluation import describe_scores, evaluate_test
from server.protocol.hospitals import Hospitals
from server.protocol.link import Answer
from server.protocol.plan import StudyPlan
from server.protocol.whole_model import WholeModel
from server.run_folder.checkpoints import Progress
from shared_model.errors import StudyError
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_quantities import pack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import EvaluateReply, EvaluateRequest, StudyReference
from shared_model.schema import parse_schema
from tests.server.faulty_links import ScriptedLink
from tests.server.small_cohort import STATIC_SCHEMA, small_settings

HIDDEN = {"suppressed": True}
NAMES = ("east", "north", "south", "west")
RULE = SmallCellRule()

Site = tuple[np.ndarray, np.ndarray]


def _site(n: int, events: int, *, seed: int = 0) -> Site:
    rng = np.random.default_rng(seed)
    outcome = (np.arange(n) < events).astype(np.int64)
    return rng.normal(outcome - 1.5, 1.0), outcome


def _sums(site: Site) -> ScoreSums:
    return ScoreSums.from_scores(*site)


def _row(site: Site) -> dict[str, Any]:
    return dict(summarise(_sums(site)).to_dict())


def _pool(sites: Mapping[str, Site]) -> ScoreSums:
    total = ScoreSums.zero()
    for site in sites.values():
        total = total + _sums(site)
    return total


@pytest.fixture
def plan() -> StudyPlan:
    schema, settings = parse_schema(STATIC_SCHEMA, source="schema.toml"), small_settings(min_sites=2)
    empty: dict[str, Any] = {field: {} for field in Preprocessing.__dataclass_fields__}
    preprocessing = Preprocessing(
        **{**empty, "n": 1, "events": 1, "number_mean": [], "number_sd": [], "number_fill": []}
    )
    study = StudyReference(run_id="run", protocol=1, schema_sha256="0" * 64, settings={})
    names = dict(enumerate(NAMES))
    return StudyPlan(Hospitals(ScriptedLink(0, _no_answer), study, schema, settings, names), preprocessing, 1.0)


def _no_answer(kind: str, node: int, question: RecordDict) -> Answer:  # noqa: ARG001
    return Answer(node, None, "no answer")


@pytest.fixture
def sites() -> dict[str, Site]:
    sizes = [(100, 20), (60, 12), (50, 10), (80, 16)]
    return {name: _site(n, events, seed=i) for i, (name, (n, events)) in enumerate(zip(NAMES, sizes, strict=True))}


def _evaluate(plan: StudyPlan, reply: Callable[[int], EvaluateReply]) -> tuple[dict[str, Any], ScoreSums]:
    def answer(_: str, node: int, question: RecordDict) -> Answer:
        request = EvaluateRequest.from_record(question)
        assert (request.part, request.release_row) == ("test", True)
        assert request.weights_round == 3  # under FedBN hospitals look up their own layers of that round
        return Answer(node, reply(node).to_record())

    progress = Progress(weights={}, best_weights={}, round_number=7, weights_round=3)
    over = replace(plan, hospitals=replace(plan.hospitals, link=ScriptedLink(len(NAMES), answer)))
    return evaluate_test(WholeModel(over, progress, phase="joint"))


def test_pooled_metrics_are_those_of_scikit_learn_on_all_patients_together(
    plan: StudyPlan, sites: dict[str, Site]
) -> None:
    # logits on the centres of the bins, where the histogram rounds nothing
    on_grid = {name: (np.floor(logit / 0.02) * 0.02 + 0.01, outcome) for name, (logit, outcome) in sites.items()}

    test, _ = _evaluate(
        plan,
        lambda node: EvaluateReply(
            row=json.dumps(_row(on_grid[NAMES[node]])), arrays=pack_scores(_sums(on_grid[NAMES[node]]))
        ),
    )

    logit = np.concatenate([site[0] for site in on_grid.values()])
    outcome = np.concatenate([site[1] for site in on_grid.values()])
    risk = 1 / (1 + np.exp(-logit))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], outcome)
    pooled = test["pooled"]
    assert (pooled["n"], pooled["events"]) == (290, 58)
    assert pooled["auc"] == pytest.approx(roc_auc_score(outcome, logit), abs=1e-9)
    assert pooled["auprc"] == pytest.approx(average_precision_score(outcome, logit), abs=1e-9)
    assert pooled["brier"] == pytest.approx(brier_score_loss(outcome, risk), abs=1e-6)
    assert pooled["log_loss"] == pytest.approx(log_loss(outcome, risk), abs=1e-6)
    assert pooled["calibration_slope"] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
    pairs = {name: site[1].sum() * (1 - site[1]).sum() for name, site in on_grid.items()}
    within = sum(roc_auc_score(site[1], site[0]) * pairs[name] for name, site in on_grid.items())
    assert pooled["auc_within"] == pytest.approx(within / sum(pairs.values()), abs=1e-9)
    for name, site in on_grid.items():
        assert test["sites"][name]["auc"] == pytest.approx(roc_auc_score(site[1], site[0]), abs=1e-9)


def test_all_rows_are_shown_when_every_site_released_its_own(sites: dict[str, Site]) -> None:
    rows = {name: _row(site) for name, site in sites.items()}

    shown = describe_scores(_pool(sites), rows, RULE)

    assert shown["sites"] == rows
    assert shown["pooled"]["n"] == 290
    assert set(shown["curves"]) == {"roc", "precision_recall", "calibration", "decision"}


def test_one_hidden_site_of_four_hides_two_more_so_that_no_hospital_can_subtract(
    sites: dict[str, Site],
) -> None:
    rows = {name: HIDDEN if name == "west" else _row(site) for name, site in sites.items()}

    shown = describe_scores(_pool(sites), rows, RULE)

    # the smallest of the released ones go along: south knows its own row and must not be left with west's
    assert [name for name, row in shown["sites"].items() if row == HIDDEN] == ["north", "south", "west"]
    left = shown["pooled"]["n"] - sum(row["n"] for row in shown["sites"].values() if row != HIDDEN)
    assert left == 60 + 50 + 80


def test_more_sites_are_hidden_until_the_hidden_ones_together_are_a_group(sites: dict[str, Site]) -> None:
    small = {**sites, "south": _site(12, 1), "west": _site(11, 1)}
    rows = {name: HIDDEN if name in {"south", "west"} else _row(site) for name, site in small.items()}

    shown = describe_scores(_pool(small), rows, RULE)

    # south and west together have 2 events, fewer than the rule's 5, and north knows its own
    assert [name for name, row in shown["sites"].items() if row == HIDDEN] == ["east", "north", "south", "west"]
    assert shown["pooled"]["n"] == 183


def test_nothing_is_shown_when_even_all_together_are_too_few(sites: dict[str, Site]) -> None:
    few = {"east": _site(8, 2), "north": _site(9, 2)}

    shown = describe_scores(_pool(few), dict.fromkeys(few, HIDDEN), RULE)

    assert shown == {"pooled": HIDDEN, "sites": {"east": HIDDEN, "north": HIDDEN}}
    del sites


def test_row_of_a_site_without_patients_looks_like_a_suppressed_one(sites: dict[str, Site]) -> None:
    with_empty = {**sites, "west": (np.zeros(0), np.zeros(0, dtype=np.int64))}
    with_few = {**sites, "west": _site(9, 4)}

    shown = [
        describe_scores(
            _pool(group), {name: HIDDEN if name == "west" else _row(site) for name, site in group.items()}, RULE
        )["sites"]["west"]
        for group in (with_empty, with_few)
    ]

    assert shown == [HIDDEN, HIDDEN]


def test_coordinator_hides_a_row_that_a_site_should_not_have_released(plan: StudyPlan, sites: dict[str, Site]) -> None:
    small = {**sites, "west": _site(9, 4)}

    test, _ = _evaluate(
        plan,
        lambda node: EvaluateReply(
            row=json.dumps(_row(small[NAMES[node]])), arrays=pack_scores(_sums(small[NAMES[node]]))
        ),
    )

    assert test["sites"]["west"] == HIDDEN
    assert test["failed"] == {}


@pytest.mark.parametrize(
    "row",
    [
        "",
        "{",
        "null",
        "[]",
        '"suppressed"',
        '{"suppressed": false}',
        '{"n": 80}',
        '{"patient": "P1"}',
        "unknown-key",
        "text",
        "nan",
        "infinite-n",
        "huge-n",
        "more-events-than-patients",
    ],
)
def test_site_with_a_row_that_is_not_agreed_is_left_out_and_named(
    plan: StudyPlan, sites: dict[str, Site], row: str
) -> None:
    good = _row(sites["west"])
    special: dict[str, dict[str, Any]] = {
        "unknown-key": {**good, "patient": "P1"},
        "text": {**good, "auc": "high"},
        "nan": {**good, "auc": float("nan")},
        "infinite-n": {**good, "n": float("inf")},
        "huge-n": {**good, "n": 10**6, "events": 10**5},
        "more-events-than-patients": {**good, "events": good["n"] + 1},
    }
    text = json.dumps(special[row]) if row in special else row

    test, sums = _evaluate(
        plan,
        lambda node: EvaluateReply(
            row=text if NAMES[node] == "west" else json.dumps(_row(sites[NAMES[node]])),
            arrays=pack_scores(_sums(sites[NAMES[node]])),
        ),
    )

    assert list(test["failed"]) == ["west"]
    assert "row" in test["failed"]["west"]
    assert "P1" not in test["failed"]["west"]
    assert set(test["sites"]) == {"east", "north", "south"}
    assert sums.n == 210
    json.dumps(test, allow_nan=False)


def test_contradicting_sums_leave_out_their_site_and_add_nothing(plan: StudyPlan, sites: dict[str, Site]) -> None:
    def reply(node: int) -> EvaluateReply:
        sums = _sums(sites[NAMES[node]])
        sums = replace(sums, events=sums.events + 1) if NAMES[node] == "west" else sums
        return EvaluateReply(row=json.dumps(HIDDEN), arrays=pack_scores(sums))

    test, sums = _evaluate(plan, reply)

    assert list(test["failed"]) == ["west"]
    assert "row 1 of score-counts to add up to events" in test["failed"]["west"]
    np.testing.assert_array_equal(
        sums.counts, _pool({name: site for name, site in sites.items() if name != "west"}).counts
    )


def test_evaluation_fails_when_too_few_answer(plan: StudyPlan) -> None:
    with pytest.raises(StudyError, match=r"evaluate \(test\): expected answers of at least 2 hospitals"):
        _evaluate(plan, lambda _: EvaluateReply(row="nonsense", arrays=pack_scores(ScoreSums.zero())))
