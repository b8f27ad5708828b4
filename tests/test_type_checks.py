"""Every test runs under checks of types and shapes; these hold the checks themselves."""

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from shared_model.training.losses import balanced_event_weight, outcome_loss
from tests.type_checks import check_first_calls, checked_anew


def test_argument_of_another_type_is_found_in_the_packages() -> None:
    with pytest.raises(TypeCheckError):
        checked_anew(balanced_event_weight)(n="10", events=5)


def test_argument_of_another_shape_is_found_in_the_packages() -> None:
    with pytest.raises(TypeCheckError):
        checked_anew(outcome_loss)(torch.zeros(3), torch.zeros(4), event_weight=1.0)


def test_function_is_checked_in_its_first_calls_and_then_left_alone() -> None:
    def double(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        return 2 * x

    checked = check_first_calls(double, typechecker=beartype, most=2)
    assert checked(torch.ones(1)).item() == 2
    with pytest.raises(TypeCheckError):
        checked(torch.ones(1, 1))

    assert checked(torch.ones(1, 1)).item() == 2  # the third call
