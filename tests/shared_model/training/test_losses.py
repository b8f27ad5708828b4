import math

import jaxtyping
import pytest
import torch

from shared_model.training.losses import balanced_event_weight, logit_correction, outcome_loss, unimodal_loss
from tests.type_checks import checked_anew


def test_outcome_loss_is_the_mean_negative_log_likelihood() -> None:
    logit = torch.tensor([0.0, math.log(3)])  # probabilities 1/2 and 3/4
    loss = outcome_loss(logit, torch.tensor([1.0, 0.0]), event_weight=1.0)
    assert float(loss) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_outcome_loss_counts_an_event_as_often_as_its_weight_says() -> None:
    logit = torch.tensor([0.0, math.log(3)])
    loss = outcome_loss(logit, torch.tensor([1.0, 0.0]), event_weight=5.0)
    assert float(loss) == pytest.approx((5 * math.log(2) + math.log(4)) / 2, rel=1e-6)


def test_outcome_loss_stays_finite_at_extreme_logits() -> None:
    loss = outcome_loss(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 1.0]), event_weight=1.0)
    assert float(loss) == pytest.approx(1e4)


def test_outcome_loss_refuses_other_shapes_while_types_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        checked_anew(outcome_loss)(torch.zeros(3), torch.zeros(2), event_weight=1.0)


def test_unimodal_loss_sums_over_modalities_the_mean_over_who_has_them() -> None:
    logits = {"static": torch.zeros(2), "hip": torch.tensor([math.log(3), 99.0])}
    present = {"static": torch.tensor([True, True]), "hip": torch.tensor([True, False])}
    loss = unimodal_loss(logits, present, torch.tensor([1.0, 1.0]), event_weight=1.0)
    assert float(loss) == pytest.approx(math.log(2) + math.log(4 / 3))


def test_unimodal_loss_leaves_out_a_modality_that_nobody_has() -> None:
    logits = {"static": torch.zeros(2), "hip": torch.tensor([math.nan, 99.0])}
    present = {"static": torch.tensor([True, True]), "hip": torch.tensor([False, False])}
    loss = unimodal_loss(logits, present, torch.tensor([1.0, 0.0]), event_weight=2.0)
    assert float(loss) == pytest.approx(1.5 * math.log(2))


def test_unimodal_loss_has_no_gradient_from_patients_without_the_modality() -> None:
    logit = torch.tensor([0.0, 5.0], requires_grad=True)
    present = {"hip": torch.tensor([True, False])}
    loss = unimodal_loss({"hip": logit}, present, torch.tensor([1.0, 0.0]), event_weight=1.0)
    assert torch.autograd.grad(loss, logit)[0].tolist() == [-0.5, 0]


def test_balanced_weight_gives_both_classes_the_same_total() -> None:
    weight = balanced_event_weight(n=50, events=10)
    assert weight == 4
    assert weight * 10 == 50 - 10


@pytest.mark.parametrize(("n", "events"), [(50, 10), (1000, 3), (7, 6)])
def test_logit_correction_recovers_the_calibrated_odds_of_a_balanced_model(n: int, events: int) -> None:
    weight = balanced_event_weight(n=n, events=events)
    outcome = (torch.arange(n) < events).float()
    logit = torch.zeros((), requires_grad=True)
    slope = torch.autograd.grad(outcome_loss(logit.expand(n), outcome, event_weight=weight), logit)[0]
    assert float(slope) == pytest.approx(0, abs=1e-6)  # balanced: the loss is least at even odds
    assert math.exp(0 + logit_correction(weight)) == pytest.approx(events / (n - events))


def test_logit_correction_recovers_the_calibrated_odds_in_each_group() -> None:
    # Two groups with odds 1:9 and 3:2 in one model; with weight w the loss is least at w times the odds.
    weight = 2.5
    for events, others in ((1, 9), (3, 2)):
        logit = torch.tensor(math.log(weight * events / others), requires_grad=True)
        outcome = torch.tensor([1.0] * events + [0.0] * others)
        slope = torch.autograd.grad(outcome_loss(logit.expand(len(outcome)), outcome, event_weight=weight), logit)[0]
        assert float(slope) == pytest.approx(0, abs=1e-6)
        assert math.exp(float(logit.detach()) + logit_correction(weight)) == pytest.approx(events / others)


def test_logit_correction_is_nothing_without_weights() -> None:
    assert logit_correction(1.0) == 0


def test_unimodal_loss_is_zero_with_a_gradient_when_nobody_has_any_modality() -> None:
    logit = torch.tensor([0.5, 2.0], requires_grad=True)
    present = {"hip": torch.tensor([False, False])}
    loss = unimodal_loss({"hip": logit}, present, torch.tensor([1.0, 0.0]), event_weight=1.0)
    assert float(loss.detach()) == 0
    assert torch.autograd.grad(loss, logit)[0].tolist() == [0, 0]
