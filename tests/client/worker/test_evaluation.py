import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from client.site import Site
from client.worker.evaluation import answer_evaluate
from shared_model.errors import ProtocolError, SuppressedError
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.model.fusion import build_model
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import EvaluateReply, EvaluateRequest
from shared_model.training.updates import hash_weights
from tests.server.small_cohort import evaluate_request, fit_site, open_gate, small_settings

SETTINGS = small_settings()


def _evaluate(
    site: Site, request: EvaluateRequest, *, min_patients: int = 10, min_events: int = 1
) -> tuple[EvaluateReply, dict[str, Any]]:
    gate = open_gate(site, SETTINGS, request, SmallCellRule(min_patients, min_events, 5, 3))
    reply = answer_evaluate(site, SETTINGS, request, gate)
    return reply, json.loads(reply.row)


def _informative(request: EvaluateRequest) -> EvaluateRequest:
    """A model that looks at age (the first standardised number) only."""
    request.weights["head.linear.weight"][0, 0] = 1.0
    return request.model_copy(update={"weights_sha256": hash_weights(request.weights)})


def test_scores_are_those_of_the_model_on_the_asked_part(small_site: Site) -> None:
    request = _informative(evaluate_request(small_site, SETTINGS, part="train"))

    reply, row = _evaluate(small_site, request)

    rows = small_site.split(SETTINGS).train
    outcome = small_site.patients.outcome[rows]
    preprocessing = fit_site(small_site, SETTINGS)
    age = small_site.patients.numbers[rows, 0].astype(np.float64)
    logit = (age - preprocessing.number_mean[0]) / preprocessing.number_sd[0]
    assert (row["n"], row["events"]) == (36, int(outcome.sum()))
    assert unpack_scores(reply.arrays).concordant / unpack_scores(reply.arrays).pairs == pytest.approx(
        roc_auc_score(outcome, logit)
    )
    assert row["log_loss"] == pytest.approx(log_loss(outcome, 1 / (1 + np.exp(-logit))), rel=1e-5)


def test_logits_are_corrected_for_the_weight_of_an_event(small_site: Site) -> None:
    request = evaluate_request(small_site, SETTINGS, part="train", event_weight=4.0)

    reply, _ = _evaluate(small_site, request)

    # an untrained head says logit 0, which means odds of 1/4 when deaths counted four times
    scores = unpack_scores(reply.arrays)
    expected = scores.events * math.log(5) + (scores.n - scores.events) * math.log(5 / 4)
    assert scores.log_loss_sum == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("part", "n"), [("train", 36), ("val", 12), ("test", 12)])
def test_parts_are_three_one_and_one_of_five_folds(small_site: Site, part: Any, n: int) -> None:
    reply, _ = _evaluate(small_site, evaluate_request(small_site, SETTINGS, part=part))

    assert unpack_scores(reply.arrays).n == n


def test_row_is_hidden_when_the_part_has_too_few_deaths(small_site: Site) -> None:
    _, row = _evaluate(small_site, evaluate_request(small_site, SETTINGS), min_events=5)

    assert row == {"suppressed": True}


def test_row_is_hidden_when_it_was_not_asked_for(small_site: Site) -> None:
    _, row = _evaluate(small_site, evaluate_request(small_site, SETTINGS, part="train", release_row=False))

    assert row == {"suppressed": True}


def test_row_is_shown_when_the_part_is_large_enough(small_site: Site) -> None:
    _, row = _evaluate(small_site, evaluate_request(small_site, SETTINGS, part="train"))

    assert row["n"] == 36


def test_hospital_with_too_few_patients_sends_no_scores(small_site: Site) -> None:
    with pytest.raises(SuppressedError):
        _evaluate(small_site, evaluate_request(small_site, SETTINGS), min_patients=61)

    assert not (small_site.state_dir / "audit.jsonl").exists()


@pytest.mark.parametrize("change", ["missing", "unknown", "nan"])
def test_model_that_does_not_fit_is_refused(small_site: Site, change: str) -> None:
    request = evaluate_request(small_site, SETTINGS)
    if change == "missing":
        del request.weights["head.linear.bias"]
    elif change == "unknown":
        request.weights["head.more"] = np.zeros(1, dtype=np.float32)
    else:
        request.weights["head.linear.bias"][0] = np.nan

    with pytest.raises(ProtocolError, match="weights"):
        _evaluate(small_site, request)


def test_patient_without_a_modality_is_scored_by_its_absent_embedding(small_site: Site) -> None:
    (small_site.folder / "vitals.csv").unlink()
    site = Site("east", small_site.folder, small_site.cache_dir)
    request = evaluate_request(site, SETTINGS, part="train")
    first_of_vitals = build_model(site.schema, SETTINGS).widths["static"]  # the embeddings in schema order
    request.weights["head.linear.weight"][0, first_of_vitals] = 1.0
    request.weights["absent.vitals"][0] = 2.0
    request = request.model_copy(update={"weights_sha256": hash_weights(request.weights)})

    reply, _ = _evaluate(site, request)

    scores = unpack_scores(reply.arrays)
    # everyone's logit is 2
    expected = scores.events * math.log1p(math.exp(-2)) + (scores.n - scores.events) * math.log1p(math.exp(2))
    assert scores.log_loss_sum == pytest.approx(expected, rel=1e-6)
