import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from shared_model.config import Phase, Scalar, parse_settings
from shared_model.errors import SchemaError, SettingsError
from shared_model.model.batch import Batch
from shared_model.model.fusion import (
    EarlyFusionModel,
    LateFusionModel,
    MultimodalModel,
    build_model,
    empty_model,
    load_image_weights,
    set_base_rate,
)
from shared_model.model.heads import FusionHead, LateFusionWeights
from shared_model.schema import Schema, parse_schema

CPU = torch.device("cpu")
MODALITIES = ("static", "vitals", "drugs", "hip")
PARTIAL = ("vitals", "drugs", "hip")  # those that some of the drawn patients lack

Build = Callable[..., MultimodalModel]

both_fusions = pytest.mark.parametrize("fusion", ["early", "late"])


@pytest.fixture
def build(small_study: Schema) -> Build:
    def build(**settings: Scalar) -> MultimodalModel:
        chosen = {"image_training": "trained", **settings}
        return build_model(small_study, parse_settings({key.replace("_", "-"): value for key, value in chosen.items()}))

    return build


def scramble(model: MultimodalModel) -> MultimodalModel:
    """Random values in every parameter: the output layers of a new model are zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 4) ** 0.5)
    return model


def take(batch: Batch, rows: list[int]) -> Batch:
    return Batch(
        numbers=batch.numbers[rows],
        levels=batch.levels[rows],
        inputs={name: value[rows] for name, value in batch.inputs.items()},
        present={name: value[rows] for name, value in batch.present.items()},
        outcome=batch.outcome[rows],
    )


def spoil(batch: Batch, modality: str, *, present: bool) -> Batch:
    """Other inputs of one modality for the patients who have it (present) or lack it."""
    rows = batch.present[modality] == present
    spoiled = batch.inputs[modality].clone()
    spoiled[rows] = 3.0 if present else math.nan
    return dataclasses.replace(batch, inputs={**batch.inputs, modality: spoiled})


@both_fusions
@pytest.mark.parametrize("modality", PARTIAL)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_logit_does_not_depend_on_the_input_of_an_absent_modality(
    fusion: str, modality: str, mode: str, build: Build, twelve: Batch
) -> None:
    model = scramble(build(fusion=fusion)).train(mode == "train")
    assert not twelve.present[modality].all()
    assert torch.equal(model(spoil(twelve, modality, present=False)), model(twelve))


@both_fusions
@pytest.mark.parametrize("modality", PARTIAL)
def test_logit_depends_on_the_input_of_a_present_modality_and_on_no_other_patient(
    fusion: str, modality: str, build: Build, twelve: Batch
) -> None:
    model = scramble(build(fusion=fusion)).eval()
    changed = (model(spoil(twelve, modality, present=True)) - model(twelve)).abs() > 1e-6
    assert torch.equal(changed, twelve.present[modality])


@both_fusions
def test_late_and_early_ignore_the_embedding_of_an_absent_modality(fusion: str, build: Build, twelve: Batch) -> None:
    model = scramble(build(fusion=fusion)).eval()
    embeddings = model.encode(twelve)
    other = {
        name: torch.where(twelve.present[name][:, None], value, value + 100.0) for name, value in embeddings.items()
    }
    assert torch.equal(model.fuse(other, twelve.present), model.fuse(embeddings, twelve.present))


def test_encode_gives_zero_to_patients_without_the_modality(build: Build, twelve: Batch) -> None:
    embeddings = scramble(build()).encode(twelve)
    assert list(embeddings) == list(MODALITIES)
    for name, value in embeddings.items():
        assert torch.equal(value.abs().sum(dim=1) > 0, twelve.present[name]), name


def test_batch_norm_sees_only_patients_with_an_image(build: Build, twelve: Batch) -> None:
    first, second = build().train(), build().train()
    here = twelve.present["hip"]
    first.encode(twelve)
    second.encode(take(twelve, here.nonzero().flatten().tolist()))
    moments = [name for name in first.state_dict() if name.endswith(("running_mean", "running_var"))]
    assert len(moments) == 40  # of the 20 BatchNorm layers of a ResNet-18
    for name in moments:
        assert torch.allclose(first.state_dict()[name], second.state_dict()[name], rtol=1e-5, atol=1e-6), name


def test_batch_norm_stays_as_it_is_when_nobody_has_an_image(build: Build, twelve: Batch) -> None:
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embeddings = model.encode(take(twelve, [1, 3, 5]))
    assert not embeddings["hip"].any()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_patient_with_an_image_is_enough_to_train_on(build: Build, twelve: Batch) -> None:
    model = build().train()
    batch = take(twelve, [0, 1])
    assert batch.present["hip"].tolist() == [True, False]
    assert torch.isfinite(model.encode(batch)["hip"]).all()


def test_absent_embedding_learns_from_the_patients_who_lack_the_modality(build: Build, twelve: Batch) -> None:
    model = scramble(build()).eval()
    for rows, learns in (([1], True), ([0], False)):  # patient 1 lacks the X-ray, patient 0 has it
        slope = torch.autograd.grad(model(take(twelve, rows)).sum(), model.absent["hip"])[0]
        assert bool(slope.any()) == learns


@both_fusions
@pytest.mark.parametrize("modality", MODALITIES)
def test_model_of_one_modality_has_its_encoder_only(fusion: str, modality: str, build: Build, twelve: Batch) -> None:
    model = scramble(build(fusion=fusion, modalities=modality)).eval()
    assert model.modalities == (modality,)
    assert {name.split(".")[1] for name in model.learned_names() if name.startswith("encoders.")} <= {modality}
    logit = model(twelve)
    assert logit.shape == (12,)
    assert torch.isfinite(logit).all()


def test_early_fusion_concatenates_in_the_order_of_the_study(build: Build, twelve: Batch) -> None:
    model = build(head="", modalities="drugs,static")
    assert isinstance(model, EarlyFusionModel)
    assert list(model.widths.items()) == [("static", 2 * 2 + 3), ("drugs", 2)]
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0, 10]]))
        model.absent["drugs"].fill_(0.5)
    insulin = torch.where(twelve.present["drugs"], twelve.inputs["drugs"][:, 1], 0.5)
    assert torch.allclose(model(twelve), twelve.numbers[:, 0] + 10 * insulin)


def test_fusion_head_is_a_linear_short_cut_plus_a_perceptron() -> None:
    head = FusionHead(width=2, hidden=(2,), norm="none", dropout=0.0)
    first, last = head.perceptron[0], head.perceptron[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        head.linear.bias.fill_(0.5)
        first.weight.copy_(torch.eye(2))
        first.bias.zero_()
        last.weight.copy_(torch.tensor([[10.0, 100.0]]))
        last.bias.fill_(1.0)
    # 3 - 8 + 0.5 from the short cut, 10 * 3 + 100 * max(-4, 0) + 1 from the perceptron
    assert head(torch.tensor([[3.0, -4.0]])).tolist() == [-4.5 + 31]


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"head": ""}, []),
        ({"head": "8"}, ["Linear", "ReLU", "Linear"]),
        ({"head": "8,4"}, ["Linear", "ReLU", "Linear", "ReLU", "Linear"]),
        ({"head": "8", "head_norm": "layer"}, ["Linear", "LayerNorm", "ReLU", "Linear"]),
        ({"head": "8", "dropout": 0.5}, ["Linear", "ReLU", "Dropout", "Linear"]),
    ],
)
def test_fusion_head_has_the_layers_of_the_settings(
    settings: dict[str, Scalar], layers: list[str], build: Build
) -> None:
    model = build(modalities="static", **settings)
    assert isinstance(model, EarlyFusionModel)
    assert [type(layer).__name__ for layer in model.head.perceptron] == layers


def test_late_fusion_is_the_weighted_mean_over_present_modalities() -> None:
    weights = LateFusionWeights(2)
    weights.log_weights.data = torch.tensor([0.0, math.log(3)])
    logits = torch.tensor([[1.0, 2.0], [1.0, 99.0], [99.0, 2.0], [99.0, 99.0]])
    here = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    # (1 * 1 + 3 * 2) / 4 with both, the one logit with one, 0 with none.
    assert weights(logits, here).tolist() == pytest.approx([1.75, 1, 2, 0])


def test_late_fusion_starts_as_the_plain_mean(build: Build, twelve: Batch) -> None:
    model = build(fusion="late").eval()
    embeddings = model.encode(twelve)
    mean = model.mean_unimodal_logit(embeddings, twelve.present)
    assert torch.allclose(model.fuse(embeddings, twelve.present), mean, atol=1e-6)


def test_mean_unimodal_logit_counts_the_modalities_of_each_patient(build: Build, twelve: Batch) -> None:
    model = build(modalities="static,hip")
    for name, logit in (("static", 1.0), ("hip", 4.0)):
        model.unimodal[name].load_state_dict(
            {"weight": torch.zeros(1, model.widths[name]), "bias": torch.tensor([logit])}
        )
    mean = model.mean_unimodal_logit(model.encode(twelve), twelve.present)
    assert mean.tolist() == [2.5, 1.0] * 6  # every second patient has the X-ray


@pytest.mark.parametrize(
    ("fusion", "phase", "parts"),
    [
        ("early", "unimodal", {"encoders", "unimodal"}),
        ("early", "fusion", {"absent", "head"}),
        ("early", "joint", {"encoders", "absent", "head"}),
        ("late", "unimodal", {"encoders", "unimodal"}),
        ("late", "fusion", {"unimodal", "head"}),
        ("late", "joint", {"encoders", "unimodal", "head"}),
    ],
)
def test_phase_trains_whole_parts_of_the_model(fusion: str, phase: Phase, parts: set[str], build: Build) -> None:
    model = build(fusion=fusion)
    learned = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    trained = model.trained_in(phase)
    assert list(trained) == sorted(trained)
    assert set(trained) == {name for name in learned if name.split(".")[0] in parts}
    assert set(model.learned_names()) == learned


@both_fusions
@pytest.mark.parametrize("phase", ["unimodal", "fusion", "joint"])
def test_what_trains_travels_and_the_rest_of_the_encoders_goes_along_frozen(
    fusion: str, phase: Phase, build: Build
) -> None:
    model = build(fusion=fusion)
    travelling = model.travelling_in(phase)
    frozen = model.frozen_in(phase)
    assert travelling == model.trained_in(phase)
    encoders = {name for name in model.learned_names() if name.startswith("encoders.")}
    assert set(frozen) == (encoders if phase == "fusion" else set())


@pytest.mark.parametrize("phase", ["unimodal", "joint"])
def test_batch_norm_does_not_travel_when_it_stays_at_the_hospital(phase: Phase, build: Build) -> None:
    model = build(local_norm=True)
    norms = model.batch_norm_names()
    assert set(model.travelling_in(phase)) == set(model.trained_in(phase)) - norms
    assert set(model.frozen_in(phase)) == norms  # where a hospital starts from


@both_fusions
def test_head_does_not_travel_when_it_stays_at_the_hospital(fusion: str, build: Build) -> None:
    model = build(fusion=fusion, local_head=True)
    head = {name for name in model.learned_names() if name.startswith(model.fusion_parts)}
    encoders = {name for name in model.learned_names() if name.startswith("encoders.")}
    assert head
    assert model.travelling_in("fusion") == ()
    assert set(model.frozen_in("fusion")) == encoders | head  # where a hospital starts from
    assert set(model.travelling_in("joint")) == encoders
    assert set(model.frozen_in("joint")) == head


def test_batch_norm_names_are_those_of_the_image_encoders(build: Build) -> None:
    names = build().batch_norm_names()
    assert len(names) == 20 * 4  # ResNet-18 has 20 BatchNorm layers: weight, bias, mean, variance
    assert "encoders.hip.network.bn1.running_var" in names
    assert all(name.startswith("encoders.hip.network.") for name in names)
    assert build(modalities="static,vitals").batch_norm_names() == frozenset()


@pytest.mark.parametrize("head", ["", "16,8"])
def test_base_rate_makes_every_patient_start_at_the_prevalence(head: str, build: Build, twelve: Batch) -> None:
    model = build(head=head).eval()
    set_base_rate(model, odds=0.08 / 0.92)
    assert torch.sigmoid(model(twelve)).tolist() == pytest.approx([0.08] * 12)


@both_fusions
def test_base_rate_is_the_start_of_every_unimodal_head(fusion: str, build: Build) -> None:
    model = build(fusion=fusion)
    set_base_rate(model, odds=3.0)
    zero = {name: torch.zeros(2, width) for name, width in model.widths.items()}
    for logit in model.unimodal_logits(zero).values():
        assert torch.sigmoid(logit).tolist() == pytest.approx([0.75, 0.75])
    present = {name: torch.ones(2, dtype=torch.bool) for name in model.widths}
    assert torch.sigmoid(model.fuse(zero, present)).tolist() == pytest.approx([0.75, 0.75])


@both_fusions
def test_build_model_leaves_the_global_random_state_as_it_was(fusion: str, build: Build) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build(fusion=fusion, seed=4)
    assert torch.equal(torch.rand(3), expected)


def test_build_model_depends_on_the_seed_and_on_nothing_else(build: Build) -> None:
    torch.manual_seed(1)
    first = build(seed=4).state_dict()
    torch.manual_seed(2)
    second, other = build(seed=4).state_dict(), build(seed=5).state_dict()
    assert all(torch.equal(second[name], value) for name, value in first.items())
    name = "encoders.hip.network.layer1.0.conv1.weight"
    assert not torch.equal(other[name], first[name])


@both_fusions
def test_empty_model_predicts_as_the_model_whose_weights_it_is_given(
    fusion: str, build: Build, small_study: Schema, twelve: Batch
) -> None:
    full = scramble(build(fusion=fusion)).eval()
    empty = empty_model(small_study, parse_settings({"fusion": fusion}), device=CPU)
    state = full.state_dict()
    empty.set_weights({name: state[name] for name in full.learned_names()})
    assert torch.equal(empty.eval()(twelve), full(twelve))


def test_fixed_network_that_was_forgotten_cannot_be_used(build: Build, small_study: Schema, twelve: Batch) -> None:
    empty = empty_model(small_study, parse_settings({}), device=CPU)
    empty.set_weights({name: build().state_dict()[name] for name in empty.changing_names()})
    with pytest.raises(RuntimeError):
        empty.eval()(twelve)


def test_empty_model_on_no_device_has_the_names_and_shapes(build: Build, small_study: Schema) -> None:
    empty = empty_model(small_study, parse_settings({"image-training": "trained"}), device=torch.device("meta"))
    full = build()
    assert {name: value.shape for name, value in empty.state_dict().items()} == {
        name: value.shape for name, value in full.state_dict().items()
    }
    assert empty.trained_in("joint") == full.trained_in("joint")


def test_image_weights_reach_every_image_encoder(tmp_path: Path) -> None:
    text = (
        '[study]\nname="s"\ntitle="t"\noutcome="y"\npatient_id="id"\n[[static]]\nname="x"\nkind="binary"\n'
        "[images.hip]\nsize = 33\n[images.chest]\nsize = 33\n"
    )
    model = build_model(parse_schema(text, source="schema.toml"), parse_settings({}))
    network = resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    load_image_weights(model, tmp_path / "weights.pth")
    expected = network.state_dict()["layer4.1.conv2.weight"]
    for name in ("hip", "chest"):
        assert torch.equal(model.state_dict()[f"encoders.{name}.network.layer4.1.conv2.weight"], expected)


def test_image_weights_are_refused_when_there_is_no_file(build: Build, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="image-weights at"):
        load_image_weights(build(), tmp_path / "absent.pth")


@both_fusions
def test_fusion_names_its_class(fusion: str, build: Build) -> None:
    assert isinstance(build(fusion=fusion), {"early": EarlyFusionModel, "late": LateFusionModel}[fusion])


@pytest.mark.parametrize("name", ["items", "train", "training", "float"])
def test_modality_is_refused_when_pytorch_uses_its_name(name: str) -> None:
    text = (
        '[study]\nname="s"\ntitle="t"\noutcome="y"\npatient_id="id"\n[[static]]\nname="x"\nkind="binary"\n'
        f'[events.{name}]\naggregate = "any"\nitems = ["a"]\n'
    )
    with pytest.raises(SchemaError, match=f"expected names that PyTorch does not use itself, got {name}"):
        build_model(parse_schema(text, source="schema.toml"), parse_settings({}))
