import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_model.config import Phase, Scalar, parse_settings
from shared_model.errors import SettingsError
from shared_model.model.batch import Batch
from shared_model.model.fusion import EarlyFusionModel, MultimodalModel, build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import pooled_preprocessing
from shared_model.schema import Schema
from shared_model.training.epochs import (
    Encoded,
    Objective,
    build_optimiser,
    choose_device,
    encode,
    encode_all,
    predict_logits,
    prepare_phase,
    seeded_rng,
    shuffled_batches,
    train_one_epoch,
)

CPU = torch.device("cpu")
PHASES: tuple[Phase, ...] = ("unimodal", "fusion", "joint")
PARTS = {  # what may move, by fusion and phase
    ("early", "unimodal"): {"encoders", "unimodal"},
    ("early", "fusion"): {"absent", "head"},
    ("early", "joint"): {"encoders", "absent", "head"},
    ("late", "unimodal"): {"encoders", "unimodal"},
    ("late", "fusion"): {"unimodal", "head"},
    ("late", "joint"): {"encoders", "unimodal", "head"},
}
ALL = np.arange(12)

Build = Callable[..., MultimodalModel]


@dataclass(frozen=True)
class Hospital:
    """Twelve patients of the small study."""

    schema: Schema
    batch_of: Callable[[np.ndarray], Batch]

    def build(self, **settings: Scalar) -> MultimodalModel:
        chosen = {key.replace("_", "-"): value for key, value in {"image_training": "trained", **settings}.items()}
        return build_model(self.schema, parse_settings(chosen))


@pytest.fixture(scope="module")
def hospital(small_study: Schema, draw_patients: Callable[..., PatientArrays]) -> Hospital:
    arrays = draw_patients(12)
    preprocessing = pooled_preprocessing(arrays, ALL, small_study)
    return Hospital(small_study, lambda rows: preprocessing.batch(arrays, rows, schema=small_study, device=CPU))


def objective(phase: Phase = "joint", *, event_weight: float = 1.0, mu: float = 0.0, **anchor: Tensor) -> Objective:
    return Objective(phase=phase, event_weight=event_weight, proximal_mu=mu, anchor=anchor)


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def run_epoch(
    model: MultimodalModel, hospital: Hospital, phase: Phase, *, batch_size: int = 5, **settings: Scalar
) -> float:
    """One epoch of a phase over the twelve patients, always in the same batches."""
    chosen = parse_settings({key.replace("_", "-"): value for key, value in settings.items()})
    parameters = prepare_phase(model, phase)
    return train_one_epoch(
        model,
        lambda rows: encode(model, hospital.batch_of(rows), device=CPU),
        shuffled_batches(12, batch_size=batch_size, rng=np.random.default_rng(0)),
        optimiser=build_optimiser(model, parameters, chosen, n_train=700),
        objective=objective(phase),
        max_gradient_norm=chosen.max_gradient_norm,
    )


@given(n=st.integers(2, 200), batch_size=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
def test_batches_hold_each_row_once_and_none_is_of_one_row(n: int, batch_size: int, seed: int) -> None:
    batches = list(shuffled_batches(n, batch_size=batch_size, rng=np.random.default_rng(seed)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    sizes = [len(rows) for rows in batches]
    assert min(sizes) >= 2
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sizes[-1] <= batch_size + 1


@pytest.mark.parametrize(("n", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (1, [1])], ids=str)
def test_last_batch_of_one_row_joins_the_one_before(n: int, sizes: list[int]) -> None:
    batches = shuffled_batches(n, batch_size=4, rng=np.random.default_rng(0))
    assert [len(rows) for rows in batches] == sizes


def test_batches_depend_on_the_generator_alone() -> None:
    def order(seed: int) -> list[int]:
        batches = shuffled_batches(50, batch_size=8, rng=np.random.default_rng(seed))
        return [int(row) for rows in batches for row in rows]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != list(range(50))


def test_generator_depends_on_every_part_and_on_where_it_ends() -> None:
    def first(*parts: str | int) -> int:
        return int(seeded_rng(*parts).integers(2**62))

    assert first(0, "north", "joint", 3) == first(0, "north", "joint", 3)
    others = [(1, "north", "joint", 3), (0, "south", "joint", 3), (0, "north", "fusion", 3), (0, "north", "joint", 4)]
    assert len({first(*parts) for parts in [(0, "north", "joint", 3), *others]}) == 5
    assert first("ab", "c") != first("a", "bc")


def linear_model(hospital: Hospital) -> EarlyFusionModel:
    model = hospital.build(head="", modalities="drugs")
    assert isinstance(model, EarlyFusionModel)
    return model


def pair(outcome: tuple[float, float]) -> Encoded:
    """Two patients with drugs (1, 0) and (0, 2)."""
    return Encoded(
        {"drugs": torch.tensor([[1.0, 0.0], [0.0, 2.0]])},
        {"drugs": torch.ones(2, dtype=torch.bool)},
        torch.tensor(outcome),
    )


def test_loss_has_half_mu_times_the_squared_distance_to_the_anchor(hospital: Hospital) -> None:
    model, encoded = linear_model(hospital), pair((1.0, 0.0))
    anchor = {name: parameter.detach().clone() for name, parameter in model.head.named_parameters(prefix="head")}
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.tensor([[3.0, 0.0]]))
        model.head.linear.bias.fill_(4.0)
    plain = Objective(phase="joint", event_weight=1.0, proximal_mu=0.0, anchor=anchor).loss(model, encoded)
    near = Objective(phase="joint", event_weight=1.0, proximal_mu=0.2, anchor=anchor).loss(model, encoded)
    assert float((near - plain).detach()) == pytest.approx(
        0.2 / 2 * (9 + 16), rel=1e-5
    )  # of the norm itself it would be 0.5


def test_proximal_term_pulls_towards_the_anchor_with_mu_times_the_distance(hospital: Hospital) -> None:
    model, encoded = linear_model(hospital), pair((1.0, 0.0))
    bias = model.head.linear.bias
    anchor = {"head.linear.bias": torch.tensor([-2.0])}
    slopes = [
        torch.autograd.grad(
            Objective(phase="joint", event_weight=1.0, proximal_mu=mu, anchor=anchor).loss(model, encoded), bias
        )[0]
        for mu in (0.0, 0.3)
    ]
    assert float(slopes[1] - slopes[0]) == pytest.approx(0.3 * 2)


def test_loss_of_the_unimodal_phase_is_that_of_the_unimodal_heads(hospital: Hospital) -> None:
    model, encoded = linear_model(hospital), pair((1.0, 1.0))
    model.unimodal["drugs"].load_state_dict({"weight": torch.tensor([[0.0, 0.5]]), "bias": torch.tensor([0.0])})
    # Logits 0 and 1 of the unimodal head; 0 and 0 of the fused one.
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert float(objective("unimodal").loss(model, encoded).detach()) == pytest.approx(expected)
    assert float(objective("joint").loss(model, encoded).detach()) == pytest.approx(math.log(2))


def test_loss_counts_events_by_their_weight(hospital: Hospital) -> None:
    model, encoded = linear_model(hospital), pair((1.0, 0.0))
    assert float(objective(event_weight=3.0).loss(model, encoded).detach()) == pytest.approx(2 * math.log(2))


def step_once(model: EarlyFusionModel, *, learning_rate: float, max_gradient_norm: float) -> float:
    """One step on two patients of whom the first dies."""
    return train_one_epoch(
        model,
        pair((1.0, 0.0)).select,
        [np.array([0, 1])],
        optimiser=torch.optim.SGD(model.head.parameters(), lr=learning_rate),
        objective=objective(),
        max_gradient_norm=max_gradient_norm,
    )


def test_step_follows_the_gradient_of_the_log_loss(hospital: Hospital) -> None:
    model = linear_model(hospital)
    loss_sum = step_once(model, learning_rate=0.5, max_gradient_norm=100.0)
    assert loss_sum == pytest.approx(2 * math.log(2))  # at the start the logits are zero
    # The slope is the mean of (1/2 - outcome) x: of (1, 0) and (0, 2) this is (-1/4, 1/2), and 0 of the bias.
    assert model.head.linear.weight.tolist()[0] == pytest.approx([0.125, -0.25])
    assert model.head.linear.bias.tolist() == pytest.approx([0], abs=1e-7)


def test_step_is_no_longer_than_the_largest_gradient(hospital: Hospital) -> None:
    model = linear_model(hospital)
    step_once(model, learning_rate=1.0, max_gradient_norm=0.1)
    weight = model.head.linear.weight.detach()
    assert float(weight.norm()) == pytest.approx(0.1, rel=1e-3)
    assert float(weight[0, 1] / weight[0, 0]) == pytest.approx(-2, rel=1e-3)  # and it keeps its direction


def test_epochs_lower_the_loss(hospital: Hospital) -> None:
    model = hospital.build(head="8", modalities="static,vitals,drugs")
    losses = [run_epoch(model, hospital, "joint", learning_rate=0.1) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fusion", ["early", "late"])
def test_phase_moves_what_it_trains_and_nothing_else(fusion: str, phase: Phase, hospital: Hospital) -> None:
    model = hospital.build(fusion=fusion, image_embedding=4)
    before = copy_state(model)
    for _ in range(2):  # a zero output layer hides what is below it from the first step
        run_epoch(model, hospital, phase, batch_size=12)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    learned = {name for name in before if not name.endswith("num_batches_tracked")}
    trained = {name for name in learned if name.split(".")[0] in PARTS[fusion, phase]}
    assert moved & learned <= trained
    assert trained - moved <= {"absent.static"}  # everybody has the static variables
    assert (moved > learned & moved) == (phase != "fusion")  # frozen BatchNorm does not even count its steps


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fusion", ["early", "late"])
def test_prepared_parameters_are_those_that_train(fusion: str, phase: Phase, hospital: Hospital) -> None:
    model = hospital.build(fusion=fusion)
    prepare_phase(model, PHASES[0])  # an earlier phase leaves no trace
    parameters = prepare_phase(model, phase)
    expected = {name for name, _ in model.named_parameters() if name.split(".")[0] in PARTS[fusion, phase]}
    assert set(parameters) == expected
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == expected
    encoders = [module for encoder in model.encoders.values() for module in encoder.modules()]
    assert all(module.training == (phase != "fusion") for module in encoders)


def optimiser_values(hospital: Hospital, key: str, **settings: Scalar) -> dict[str, object]:
    """One value of the optimiser's groups by the name of each parameter."""
    model = hospital.build(head="8")
    chosen = parse_settings({name.replace("_", "-"): value for name, value in settings.items()})
    optimiser = build_optimiser(model, dict(model.named_parameters()), chosen, n_train=100)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    values = {names[id(each)]: group[key] for group in optimiser.param_groups for each in group["params"]}
    assert set(values) == set(names.values())
    return values


def test_optimiser_decays_heads_and_encoders_by_their_own_weight_and_no_bias_or_norm(hospital: Hospital) -> None:
    decay = optimiser_values(hospital, "weight_decay", weight_decay=0.25, head_penalty=50.0)
    assert decay["head.linear.weight"] == decay["head.perceptron.0.weight"] == decay["unimodal.hip.weight"] == 0.5
    assert decay["encoders.hip.network.conv1.weight"] == decay["encoders.vitals.lstm.weight_ih_l0"] == 0.25
    assert decay["head.linear.bias"] == decay["unimodal.hip.bias"] == decay["encoders.hip.projection.bias"] == 0
    assert decay["encoders.hip.network.bn1.weight"] == 0


def test_optimiser_trains_image_encoders_at_their_own_rate(hospital: Hospital) -> None:
    rate = optimiser_values(hospital, "lr", learning_rate=0.5, image_learning_rate=0.125)
    assert {name for name, value in rate.items() if value == 0.125} == {
        name for name in rate if name.startswith("encoders.hip.")
    }
    assert set(rate.values()) == {0.5, 0.125}


def test_optimiser_has_the_momentum_of_the_settings(hospital: Hospital) -> None:
    assert set(optimiser_values(hospital, "momentum", momentum=0.75).values()) == {0.75}


@pytest.mark.parametrize("batch_size", [1, 5, 128])
def test_encode_all_equals_one_batch_in_the_order_of_the_rows(batch_size: int, hospital: Hospital) -> None:
    model, rows = hospital.build().eval(), np.array([7, 0, 4, 11, 3])
    encoded = encode_all(model, hospital.batch_of, rows, device=CPU, batch_size=batch_size)
    batch = hospital.batch_of(rows)
    assert encoded.outcome.tolist() == batch.outcome.tolist()
    for name, value in model.encode(batch).items():
        assert encoded.present[name].tolist() == batch.present[name].tolist()
        assert torch.allclose(encoded.embeddings[name], value, rtol=1e-4, atol=1e-5), name


def mixed_mode(hospital: Hospital) -> tuple[MultimodalModel, dict[str, bool]]:
    """A model that trains with frozen encoders, and the mode of each of its modules."""
    model = hospital.build()
    prepare_phase(model, "fusion")
    return model, {name: module.training for name, module in model.named_modules()}


def test_encode_all_restores_the_mode_of_every_module(hospital: Hospital) -> None:
    model, modes = mixed_mode(hospital)
    encode_all(model, hospital.batch_of, ALL, device=CPU)
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_encode_all_restores_the_mode_when_reading_fails(hospital: Hospital) -> None:
    def fail(rows: np.ndarray) -> Batch:
        raise OSError(len(rows))

    model, modes = mixed_mode(hospital)
    with pytest.raises(OSError, match="12"):
        encode_all(model, fail, ALL, device=CPU)
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_encode_all_leaves_batch_norm_and_gradients_alone(hospital: Hospital) -> None:
    model = hospital.build().train()
    before = copy_state(model)
    encoded = encode_all(model, hospital.batch_of, ALL, device=CPU)
    assert not any(value.requires_grad for value in encoded.embeddings.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_selected_rows_come_in_the_given_order() -> None:
    selected = pair((1.0, 0.0)).select(np.array([1, 1, 0]))
    assert selected.outcome.tolist() == [0, 0, 1]
    assert selected.embeddings["drugs"].tolist() == [[0, 2], [0, 2], [1, 0]]
    assert selected.present["drugs"].tolist() == [True] * 3


def test_predicted_logits_are_those_of_the_phase_plus_the_correction(hospital: Hospital) -> None:
    model, encoded = linear_model(hospital), pair((1.0, 0.0))
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
    model.unimodal["drugs"].load_state_dict({"weight": torch.tensor([[5.0, 0.0]]), "bias": torch.tensor([0.5])})
    by_phase: dict[Phase, list[float]] = {"unimodal": [5.5, 0.5], "fusion": [1.0, 4.0], "joint": [1.0, 4.0]}
    for phase, expected in by_phase.items():
        logits = predict_logits(model, encoded, phase=phase, correction=-0.25)
        assert logits.dtype == np.float64
        assert logits.tolist() == pytest.approx([value - 0.25 for value in expected])


def test_predicted_logits_have_no_dropout_and_the_model_goes_on_training(hospital: Hospital) -> None:
    model = hospital.build(dropout=0.9, head="64", modalities="static,drugs").train()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    encoded = encode_all(model, hospital.batch_of, ALL, device=CPU)
    first, second = (predict_logits(model, encoded, phase="joint", correction=0.0) for _ in range(2))
    assert first.tolist() == second.tolist()
    assert model.training


def trained_with(seed: int, hospital: Hospital, *, dropout: float) -> Iterator[float]:
    model = hospital.build(dropout=dropout, head="16", modalities="static,drugs")
    torch.manual_seed(seed)
    for _ in range(2):
        run_epoch(model, hospital, "joint")
    for parameter in model.parameters():
        yield from parameter.detach().flatten().tolist()


def test_dropout_is_the_same_for_the_same_seed_and_differs_for_another(hospital: Hospital) -> None:
    first = list(trained_with(1, hospital, dropout=0.5))
    assert list(trained_with(1, hospital, dropout=0.5)) == first
    assert list(trained_with(2, hospital, dropout=0.5)) != first


def test_training_without_dropout_does_not_depend_on_the_global_random_state(hospital: Hospital) -> None:
    assert list(trained_with(1, hospital, dropout=0.0)) == list(trained_with(2, hospital, dropout=0.0))


@pytest.mark.parametrize(
    ("wanted", "there", "device"),
    [("cpu", True, "cpu"), ("auto", True, "cuda"), ("auto", False, "cpu"), ("cuda", True, "cuda")],
)
def test_device_is_the_gpu_where_there_is_one_unless_the_cpu_is_wanted(
    wanted: str, there: object, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(wanted) == torch.device(device)


def test_device_is_refused_when_the_wanted_gpu_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="device: expected a CUDA GPU as asked for, got none"):
        choose_device("cuda")
