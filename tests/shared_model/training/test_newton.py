"""Gradient and Hessian of a linear head against automatic differentiation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from shared_model.config import parse_settings
from shared_model.errors import SettingsError
from shared_model.model.fusion import build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import pooled_preprocessing
from shared_model.protocol.quantities import check_arrays
from shared_model.schema import Schema
from shared_model.training.epochs import encode_all
from shared_model.training.newton import GRADIENT, HESSIAN, newton_quantities, newton_sums, unpack_hessian


@pytest.mark.parametrize("event_weight", [1.0, 4.0])
def test_sums_are_the_derivatives_of_the_summed_log_loss(
    event_weight: float, small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    """Patients who lack a modality enter with its absent embedding, here not zero."""
    arrays, rows = draw_patients(24), np.arange(24)
    preprocessing = pooled_preprocessing(arrays, rows, small_study)
    model = build_model(small_study, parse_settings({"head": "", "image-embedding": 3, "series-embedding": 2})).eval()
    cpu = torch.device("cpu")
    encoded = encode_all(
        model, lambda chosen: preprocessing.batch(arrays, chosen, schema=small_study, device=cpu), rows, device=cpu
    )
    with torch.no_grad():
        for parameter in (model.head.linear.weight, *model.absent.values()):  # type: ignore[union-attr]
            parameter.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
        model.head.linear.bias.fill_(-0.7)  # type: ignore[operator,union-attr]
        fused = torch.cat(list(model.fused_inputs(encoded.embeddings, encoded.present).values()), dim=1).double()
    inputs = torch.cat([fused, torch.ones(24, 1, dtype=torch.float64)], dim=1)

    def loss(head: torch.Tensor) -> torch.Tensor:
        weight = torch.tensor(event_weight, dtype=torch.float64)
        return binary_cross_entropy_with_logits(
            inputs @ head, encoded.outcome.double(), pos_weight=weight, reduction="sum"
        )

    state = model.state_dict()
    head = torch.cat([state["head.linear.weight"][0], state["head.linear.bias"]]).double()

    sums = newton_sums(model, encoded, event_weight=event_weight)

    quantities = newton_quantities(len(head) - 1)
    check_arrays({name: sums[name] for name in quantities}, quantities, where="train")
    np.testing.assert_allclose(sums[GRADIENT], torch.autograd.functional.jacobian(loss, head).numpy(), rtol=1e-9)  # type: ignore[no-untyped-call]
    found = unpack_hessian(sums[HESSIAN], len(head))
    expected = torch.autograd.functional.hessian(loss, head).numpy()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert float(sums["train-loss-sum"]) == pytest.approx(float(loss(head)), rel=1e-12)


def test_half_of_the_hessian_travels() -> None:
    assert newton_quantities(3)[HESSIAN].shape == (10,)
    assert unpack_hessian(np.array([1.0, 2.0, 3.0]), 2).tolist() == [[1, 2], [2, 3]]


def test_fixed_point_keeps_a_gradient_to_1e_7_and_a_hessian_to_1e_4() -> None:
    quantities = newton_quantities(10)

    assert 2.0 ** -quantities[GRADIENT].fraction_bits < 1e-7
    assert 2.0 ** -quantities[HESSIAN].fraction_bits < 1e-4


def test_head_that_is_too_wide_is_refused() -> None:
    newton_quantities(1024)
    with pytest.raises(SettingsError, match=r"strategy=newton: expected .* at most 1024 columns, .* got 1025\. Lower"):
        newton_quantities(1025)
