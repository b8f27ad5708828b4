"""Refits of the head on resampled patients, and the ranges of shares that they give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from client.worker.answering import Worker
from server.protocol.explain import draw_background, explain_part
from server.protocol.explanations import describe_modalities, describe_share_interval
from server.protocol.newton import PENALTY_RANGE, NewtonStep
from server.protocol.refits import MOST_COLUMNS, ShareRefits, fit_heads, refit_shares, share_ranges
from server.protocol.strategy import RoundTotal
from server.protocol.whole_model import WholeModel
from server.run_folder.folder import RunFolder
from shared_model.errors import StudyError
from shared_model.protocol.messages import REFIT, SIZES, Refusal
from shared_model.protocol.refit_messages import SizesRequest
from shared_model.training.newton import HEAD_BIAS, HEAD_WEIGHT
from shared_model.training.refits import refit_sums
from simulation.in_process import InProcessLink
from tests.server.explained_study import Content, SilencedLink, open_plan, read_explanations
from tests.server.small_cohort import (
    open_workers,
    refit_request,
    run_small_study,
    sizes_request,
    small_settings,
    write_small_cohort,
)

NEWTON: dict[str, Any] = {"strategy": "newton", "head": "", "explain": "modalities", "strata": "male"}
RNG = np.random.default_rng(1)
N, WIDTH, PENALTY = 300, 6, 5.0
INPUTS = np.column_stack([RNG.normal(size=(N, WIDTH)), np.ones(N)])
OUTCOME = (RNG.random(N) < 1 / (1 + np.exp(-INPUTS @ [1.0, -0.8, 0, 0, 0, 0, -1.0]))).astype(np.float64)
COUNTS = np.concatenate([np.ones((1, N)), RNG.poisson(1.0, size=(4, N))])


def ask_pooled(numbers: Any, heads: np.ndarray) -> dict[str, np.ndarray]:
    given = (torch.from_numpy(value) for value in (INPUTS, OUTCOME, COUNTS[list(numbers)], heads))
    return refit_sums(*given, event_weight=1.0)


@pytest.mark.parametrize("refit", range(5))
def test_refitted_head_is_that_of_weighted_logistic_regression(refit: int) -> None:
    found = fit_heads(ask_pooled, np.zeros(WIDTH + 1), n_refits=4, penalty=PENALTY, groups=(), settled_gain=1e-12)

    model = LogisticRegression(C=1 / PENALTY, solver="newton-cholesky", tol=1e-12, max_iter=200)
    model.fit(INPUTS[:, :-1], OUTCOME, sample_weight=COUNTS[refit])
    np.testing.assert_allclose(found[refit].next_head, np.append(model.coef_[0], model.intercept_), atol=1e-6)


def test_penalties_of_a_refit_are_chosen_by_evidence_again() -> None:
    groups = (slice(0, 2), slice(2, 6))

    found = fit_heads(ask_pooled, np.zeros(WIDTH + 1), n_refits=4, penalty=70.0, groups=groups)

    assert all(refit.gain <= 1e-3 for refit in found)
    assert len({float(refit.penalty[0]) for refit in found}) == 5
    for refit in found:
        assert PENALTY_RANGE[0] <= refit.penalty[0] < refit.penalty[2] <= PENALTY_RANGE[1]


def test_refit_of_every_patient_once_is_the_fit_itself() -> None:
    groups = [slice(0, 2), slice(2, 6)]
    step, weights = NewtonStep(penalty=70.0, groups=groups), {HEAD_WEIGHT: np.zeros((1, 6)), HEAD_BIAS: np.zeros(1)}
    for number in range(20):
        head = np.append(weights[HEAD_WEIGHT][0], weights[HEAD_BIAS]).astype(np.float64)
        sums = {name: value[0] for name, value in ask_pooled([0], head[None]).items()}
        sums["train-loss-sum"] = sums.pop("refit/loss")
        weights = step.advance(weights, RoundTotal(sums, ["all"], number))

    (found,) = fit_heads(ask_pooled, head, n_refits=0, penalty=70.0, groups=groups, settled_gain=1e-10)

    np.testing.assert_allclose(found.next_head, head, atol=1e-4)  # penalties come to rest within a thousandth
    np.testing.assert_allclose(found.penalty[[0, 2]], step.penalties, rtol=1e-2)


def test_step_that_raises_the_loss_is_halved() -> None:
    """From weights this far off, full Newton steps on a logistic loss diverge."""
    start = np.append(np.full(WIDTH, 30.0), 0.0)

    found = fit_heads(ask_pooled, start, n_refits=0, penalty=PENALTY, groups=(), settled_gain=1e-12)
    expected = fit_heads(ask_pooled, np.zeros(WIDTH + 1), n_refits=0, penalty=PENALTY, groups=(), settled_gain=1e-12)

    np.testing.assert_allclose(found[0].next_head, expected[0].next_head, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- studies


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("refits") / "cohort", series=True, patients=100)


def run(cohort: Path, out: Path, **changes: Any) -> RunFolder:
    settings = small_settings(**{**NEWTON, "rounds_fusion": 12, "patience": 50, "adapt_penalty": True, **changes})
    return run_small_study(cohort, out, settings=settings)


@pytest.fixture(scope="module")
def refitted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(cohort, tmp_path_factory.mktemp("refitted") / "run", share_refits=40)


@pytest.fixture(scope="module")
def content(refitted: RunFolder) -> Content:
    return read_explanations(refitted)


def test_range_over_refits_is_wider_than_the_interval_with_the_model_kept(content: Content) -> None:
    assert content["share_interval"] == {"method": "refits", "replicates": 40, "reason": None}
    for name in ("static", "vitals"):
        low, high = content["modalities"][name]["share_range"]
        kept = content["modalities"][name]["share_ci"]
        assert 0 < low < high < 1
        assert high - low > kept[1] - kept[0]


def test_range_holds_the_share_itself(content: Content) -> None:
    for entry in content["modalities"].values():
        low, high = entry["share_range"]
        assert low <= entry["share"] <= high


def test_range_reaches_as_far_as_quantiles_or_as_the_same_spread_about_the_share() -> None:
    refitted = np.linspace([0.4, 0.6], [0.6, 0.4], 41)  # sd 0.06; central 95 %: 0.405 to 0.595
    reach = 1.959964 * refitted[:, 0].std(ddof=1)
    found = share_ranges(np.array([0.9, np.nan]), refitted)
    np.testing.assert_allclose(found[0], [0.405, 1.0], atol=1e-6)  # not above 1
    np.testing.assert_allclose(found[1], [0.405, 0.595], atol=1e-6)
    np.testing.assert_allclose(share_ranges(np.array([0.45, 0.5]), refitted)[0], [0.45 - reach, 0.595], atol=1e-6)


def test_modality_that_is_alike_in_all_who_have_it_has_no_evidence(content: Content) -> None:
    """Whoever has drugs was given the same one: no weight of it changes a prediction."""
    assert content["modalities"]["drugs"]["share_range"] == [0.0, 0.0]
    assert content["modalities"]["drugs"]["evidence"] is False


def test_two_runs_give_the_same_ranges(cohort: Path, content: Content, tmp_path: Path) -> None:
    again = read_explanations(run(cohort, tmp_path / "again", share_refits=40))

    assert again["modalities"] == content["modalities"]


def test_more_refits_keep_the_first_ones(cohort: Path, tmp_path: Path) -> None:
    model, weights, background = explained_model(cohort, tmp_path / "cache", share_refits=3)
    few = refit_shares(model, weights, background, answered=["east", "north", "south"])
    model, weights, background = explained_model(cohort, tmp_path / "cache", share_refits=6)
    many = refit_shares(model, weights, background, answered=["east", "north", "south"])

    np.testing.assert_array_equal(many.shares[:3], few.shares)


def explained_model(cohort: Path, cache: Path, link: Any = None, **changes: Any) -> Any:
    link = link or InProcessLink(open_workers(cohort, cache))
    settings = small_settings(**{**NEWTON, "share_refits": 2, **changes})
    plan, progress = open_plan(link, cohort, settings)
    model = WholeModel(plan, progress, phase="fusion")
    return model, progress.weights, draw_background(model, progress.weights)


def test_sizes_of_the_explained_head_are_those_of_its_shapley_values(cohort: Path, tmp_path: Path) -> None:
    model, weights, background = explained_model(cohort, tmp_path / "cache")
    explained = explain_part(model, background, part="test", features=False)
    worker = open_workers(cohort, tmp_path / "cache", names=["east"])[0]
    head = np.append(weights[HEAD_WEIGHT][0], weights[HEAD_BIAS]).astype(np.float64)

    answers = model.ask(
        SizesRequest,
        part="test",
        refits=(0,),
        heads={"heads": head[None]},
        background_id=background.background_id,
        background=background.embeddings,
        background_present=background.present,
    )

    assert worker.site.name == "east"
    np.testing.assert_allclose(answers.sums["refit/sizes"][0], explained.total["abs"][0], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"share_refits": 0}, "share-refits=0"),
        ({"fusion": "late"}, "only a model that ends with Newton's steps"),
        ({"strategy": "fedavg"}, "only a model that ends with Newton's steps"),
        ({"local_head": True}, "only a model that ends with Newton's steps"),
        ({"rounds_joint": 1}, "only a model that ends with Newton's steps"),
    ],
)
def test_run_without_refits_says_why_and_shows_no_range(
    cohort: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    found = read_explanations(run(cohort, tmp_path / "run", **{"share_refits": 3, "rounds_fusion": 1, **changes}))

    assert found["share_interval"]["method"] == "none"
    assert found["share_interval"]["reason"].startswith(reason)
    for entry in found["modalities"].values():
        assert (entry["share_range"], entry["evidence"]) == (None, None)


def test_deployment_asks_no_hospital_for_refits(cohort: Path, tmp_path: Path) -> None:
    folder = run_small_study(
        cohort,
        tmp_path / "run",
        settings=small_settings(**NEWTON, share_refits=3, trust_coordinator=False),
        enrolled={0: "east", 1: "north", 2: "south"},
    )

    assert "refits need trust-coordinator=true" in read_explanations(folder)["share_interval"]["reason"]
    for name in ("east", "north", "south"):
        (audit,) = (tmp_path / "run-cache" / "sites").glob(f"{name}-*/audit.jsonl")
        assert REFIT not in audit.read_text()


def test_head_that_is_too_wide_is_left_out_by_name(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.protocol.refits.MOST_COLUMNS", 3)
    model, weights, background = explained_model(cohort, tmp_path / "cache")

    found = refit_shares(model, weights, background, answered=["east", "north", "south"])

    assert MOST_COLUMNS >= 256
    assert "columns; up to 3 are refitted" in found.reason
    assert len(found.shares) == 0


def test_refits_of_other_hospitals_than_were_explained_give_no_range(cohort: Path, tmp_path: Path) -> None:
    link = SilencedLink(InProcessLink(open_workers(cohort, tmp_path / "cache")), {(REFIT, 2): 1})
    model, weights, background = explained_model(cohort, tmp_path / "cache", link, min_sites=2)

    found = refit_shares(model, weights, background, answered=["east", "north", "south"])

    assert found.reason.endswith("differing: south")


def test_too_few_answers_to_a_refit_end_the_run_by_name(cohort: Path, tmp_path: Path) -> None:
    link = SilencedLink(InProcessLink(open_workers(cohort, tmp_path / "cache")), {(REFIT, 2): 1})
    model, weights, background = explained_model(cohort, tmp_path / "cache", link)

    with pytest.raises(StudyError, match=r"refit \(train\): expected answers of at least 3 hospitals"):
        refit_shares(model, weights, background, answered=["east", "north", "south"])


# ------------------------------------------------------------------------------------------------------- the hospital


@pytest.mark.parametrize(
    "fault", ["shape", "width", "not finite", "no head", "part", "number", "other model", "background"]
)
def test_hospital_refuses_refits_that_do_not_fit(cohort: Path, tmp_path: Path, fault: str) -> None:
    settings = small_settings(**{**NEWTON, "strategy": "fedavg" if fault == "other model" else "newton"})
    worker: Worker = open_workers(cohort, tmp_path / "cache", names=["east"])[0]
    request = sizes_request(worker.site, settings) if fault == "background" else refit_request(worker.site, settings)
    heads = request.heads["heads"]
    wrong: dict[str, dict[str, Any]] = {
        "shape": {"refits": (0, 1, 2)},
        "width": {"heads": {"heads": heads[:, 1:]}},
        "not finite": {"heads": {"heads": np.full_like(heads, np.nan)}},
        "no head": {"heads": {}},
        "part": {"part": "val"},
        "number": {"refits": (*request.refits[:-1], settings.share_refits + 1)},
        "other model": {},
        "background": {"background_id": "0" * 64},
    }

    kind = SIZES if fault == "background" else REFIT
    reply = worker.answer(kind, request.model_copy(update=wrong[fault]).to_record())

    assert "expected" in Refusal.from_record(reply).reason
    assert "internal error" not in Refusal.from_record(reply).reason


# -------------------------------------------------------------------------------------------------------- no evidence


@pytest.mark.parametrize(
    ("second", "at_limit", "evidence"),
    [([0.3] * 10, False, True), ([0.3] * 10, True, False), ([0.001] * 5 + [0.3] * 5, False, False)],
)
def test_modality_without_evidence_is_marked(
    cohort: Path, tmp_path: Path, second: list[float], *, at_limit: bool, evidence: bool
) -> None:
    model, _, background = explained_model(cohort, tmp_path / "cache")
    explained = explain_part(model, background, part="test", features=False)
    names = model.plan.schema.modalities
    shares = np.array([[0.7 - share, share, 0.3] for share in second])
    ranges = ShareRefits(shares, np.array([False, at_limit, False]))

    found = describe_modalities(names, explained, model.plan.rule, ranges=ranges, sites={}, counted=True)

    assert [found[name]["evidence"] for name in names] == [True, evidence, True]
    assert describe_share_interval(ranges)["replicates"] == 10
