"""Option II of SCAFFOLD's algorithm 1, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from shared_model.training.scaffold import correct_gradients, gradient_corrections, next_control, pack_control


def _array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_correction_is_what_the_others_gradient_has_more() -> None:
    corrections = gradient_corrections({"w": _array(1, 2)}, {"w": _array(4, 1)})

    assert corrections["w"].tolist() == [-3, 1]
    assert gradient_corrections({"w": _array(1, 2)}, {})["w"].tolist() == [1, 2]  # its own is still zero
    assert gradient_corrections({}, {}) == {}


def test_control_is_the_mean_gradient_of_each_parameter_by_its_own_learning_rate() -> None:
    """Two steps of gradients 3 and 5, corrected by 2: each parameter moves by -lr (3 + 2 + 5 + 2)."""
    rates = {"filter": 0.01, "head": 0.5}
    before = {"filter": _array(1), "head": _array(1), "bn.running_mean": _array(0)}
    after = {"filter": _array(1 - 0.12), "head": _array(1 - 6), "bn.running_mean": _array(9)}

    control = next_control({"filter": _array(2), "head": _array(2)}, before=before, after=after, rates=rates, n_steps=2)

    assert set(control) == {"filter", "head"}  # a moment has no gradient
    assert control["filter"] == pytest.approx(4, rel=1e-5)
    assert control["head"] == pytest.approx(4, rel=1e-6)


def test_what_leaves_is_the_change_times_the_patients() -> None:
    assert pack_control({"w": _array(1)}, {"w": _array(4)}, n=10)["control/w"].tolist() == [30]
    assert pack_control({}, {"w": _array(4)}, n=10)["control/w"].tolist() == [40]


def test_parameter_that_a_batch_did_not_use_is_corrected_all_the_same() -> None:
    used, unused = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    used.grad = torch.tensor([1.0])

    correct_gradients({"used": used, "unused": unused}, {"used": torch.tensor([2.0]), "unused": torch.tensor([3.0])})

    assert (used.grad.tolist(), unused.grad.tolist()) == ([3.0], [3.0])  # type: ignore[union-attr]
