from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from shared_model.errors import SettingsError
from shared_model.model.encoders import EventsEncoder, ImageEncoder, SeriesEncoder, StaticEncoder
from shared_model.model.encoders.resnet import ResNet
from shared_model.model.encoders.series import summarise_channels


def channel(*values: float | None) -> tuple[Tensor, Tensor]:
    """One channel of one patient; None = not measured, with a number that must not be read."""
    known = torch.tensor([1e6 if value is None else value for value in values]).view(1, -1, 1)
    measured = torch.tensor([value is not None for value in values]).view(1, -1, 1)
    return known, measured


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # mean, min, max, population sd, last, fraction measured
        pytest.param((1.0, 3.0, 5.0, None), [3, 1, 5, (8 / 3) ** 0.5, 5, 0.75], id="three"),
        pytest.param((None, 4.0, None, -2.0), [1, -2, 4, 3, -2, 0.5], id="two"),
        pytest.param((None, -2.0, None, None), [-2, -2, -2, 0, -2, 0.25], id="one measurement"),
        pytest.param((0.1, 0.1, 0.1, 0.1), [0.1, 0.1, 0.1, 0, 0.1, 1], id="constant"),
        pytest.param((None, None, None, None), [0, 0, 0, 0, 0, 0], id="no measurement"),
    ],
)
def test_summaries_of_a_channel_are_those_of_its_measurements(
    values: tuple[float | None, ...], expected: list[float]
) -> None:
    assert summarise_channels(*channel(*values))[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_summaries_are_ordered_by_kind_then_channel() -> None:
    first, second = channel(1.0, 3.0), channel(None, 7.0)
    summary = summarise_channels(*(torch.cat(pair, dim=2) for pair in zip(first, second, strict=True)))
    assert summary[0].tolist() == pytest.approx([2, 7, 1, 7, 3, 7, 1, 0, 3, 7, 1, 0.5])


@given(seed=st.integers(0, 2**32 - 1))
def test_summaries_equal_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 3, (4, 9, 2))
    measured = rng.random(values.shape) < 0.5
    measured[:, 4] = True  # NumPy warns of a channel without values
    known = np.where(measured, values, np.nan)
    last_row = [[known[i, np.flatnonzero(measured[i, :, c])[-1], c] for c in range(2)] for i in range(4)]
    reference = [
        np.nanmean(known, axis=1),
        np.nanmin(known, axis=1),
        np.nanmax(known, axis=1),
        np.nanstd(known, axis=1),
        np.array(last_row),
        measured.mean(axis=1),
    ]
    summary = summarise_channels(torch.from_numpy(values), torch.from_numpy(measured))
    assert np.allclose(summary.numpy(), np.concatenate(reference, axis=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [(2.0, 2.0, 2.0), (None, 2.0, None), (None, None, None), (0.1, 0.1, 0.1)],
    ids=["zero variance", "one measurement", "no measurement", "variance of rounding"],
)
def test_gradient_of_the_summaries_is_finite(values: tuple[float | None, ...]) -> None:
    known, measured = channel(*values)
    known.requires_grad_()
    slope = torch.autograd.grad(summarise_channels(known, measured).sum(), known)[0]
    assert torch.isfinite(slope).all()
    assert not slope[~measured].any()


def test_gradient_of_the_summaries_equals_finite_differences() -> None:
    values = torch.tensor([[1.0, 2.5], [3.0, -1.0], [-4.0, 0.5], [0.0, 9.0]], dtype=torch.float64)[None]
    measured = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 1]], dtype=torch.bool)[None]
    assert torch.autograd.gradcheck(lambda x: summarise_channels(x, measured), values.requires_grad_())


def test_series_embedding_is_the_last_state_then_the_summaries() -> None:
    torch.manual_seed(0)
    encoder = SeriesEncoder(n_channels=2, hidden=3)
    values, measured, gap = torch.randn(4, 5, 2), torch.rand(4, 5, 2) < 0.5, torch.rand(4, 5, 2)
    inputs = torch.cat([values.where(measured, 0.0), measured.float(), gap], dim=2)
    embedding = encoder(inputs)
    assert encoder.width == 3 + 6 * 2 == embedding.shape[1]
    assert encoder.lstm is not None
    assert torch.equal(embedding[:, :3], encoder.lstm(inputs)[0][:, -1])
    assert torch.equal(embedding[:, 3:], summarise_channels(values, measured))
    alone = SeriesEncoder(n_channels=2, hidden=0)
    assert torch.equal(alone(inputs), embedding[:, 3:])
    assert not list(alone.parameters())
    states = SeriesEncoder(n_channels=2, hidden=3, summaries=False)
    states.load_state_dict(encoder.state_dict())
    assert torch.equal(states(inputs), embedding[:, :3])


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_plain_network_has_the_residual_ones_layers_and_adds_nothing(architecture: str) -> None:
    torch.manual_seed(0)
    plain = ImageEncoder(architecture=architecture, width=3, skip=False).eval()
    residual = ImageEncoder(architecture=architecture, width=3).eval()
    shapes = {name: value.shape for name, value in residual.state_dict().items() if ".downsample." not in name}
    assert {name: value.shape for name, value in plain.state_dict().items()} == shapes
    maps = torch.rand(1, residual.network.layer1[1].get_submodule("conv1").get_parameter("weight").shape[1], 8, 8)
    for network, expected in ((residual.network, maps), (plain.network, torch.zeros_like(maps))):
        block = network.layer1[1]
        nn.init.zeros_(block.get_parameter("bn3.weight" if architecture == "resnet50" else "bn2.weight"))  # it makes 0
        assert torch.equal(block(maps), expected)
    assert plain(torch.rand(2, 1, 40, 40)).shape == (2, 3)


@pytest.mark.parametrize(("architecture", "reference"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_residual_network_starts_and_maps_as_torchvisions(
    architecture: str, reference: Callable[..., nn.Module]
) -> None:
    torch.manual_seed(3)
    expected = reference(weights=None)
    torch.manual_seed(3)
    network = ResNet(architecture)
    ours, theirs = network.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    images = torch.randn(3, 3, 70, 66)
    assert torch.equal(network(images), expected(images))
    assert torch.equal(network.eval()(images), expected.eval()(images))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_plain_network_starts_with_the_weights_of_the_residual_one(architecture: str) -> None:
    torch.manual_seed(3)
    residual = ResNet(architecture).state_dict()
    torch.manual_seed(3)
    plain = ResNet(architecture, skip=False).state_dict()
    assert all(torch.equal(plain[name], residual[name]) for name in plain)


def test_static_embedding_is_the_numbers_then_the_row_of_each_level() -> None:
    encoder = StaticEncoder(n_numbers=2, n_levels=[3, 2])
    for start, table in ((10, encoder.tables[0]), (20, encoder.tables[1])):
        weight = table.get_parameter("weight")
        rows = torch.arange(weight.shape[0]).view(-1, 1).expand_as(weight)
        table.load_state_dict({"weight": start + rows.float()})
    embedding = encoder(torch.tensor([[0.5, 1.0], [-2.0, 0.0]]), torch.tensor([[0, 1], [3, 2]]))
    # As many columns as levels; the last row, 3 and 2, is that of a missing level.
    assert embedding.tolist() == [[0.5, 1, 10, 10, 10, 21, 21], [-2, 0, 13, 13, 13, 22, 22]]


def test_few_levels_start_as_a_column_each_and_missing_as_zero() -> None:
    encoder = StaticEncoder(n_numbers=1, n_levels=[3, 9])
    embedding = encoder(torch.zeros(4, 1), torch.tensor([[0, 0], [1, 0], [2, 0], [3, 0]]))
    assert embedding[:, 1:4].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    many = encoder.tables[1].get_parameter("weight")
    assert many.shape == (10, 8)
    assert 0.2 < float(many.detach().std()) < 0.5  # drawn, about 1 / sqrt(8)


@pytest.mark.parametrize(("levels", "columns"), [(2, 2), (3, 3), (8, 8), (14, 8), (100, 8)])
def test_static_embedding_grows_with_the_levels_up_to_eight_columns(levels: int, columns: int) -> None:
    assert StaticEncoder(n_numbers=4, n_levels=[levels]).width == 4 + columns


def test_static_embedding_is_the_numbers_when_there_are_no_categories() -> None:
    numbers = torch.randn(3, 4)
    encoder = StaticEncoder(n_numbers=4, n_levels=[])
    assert encoder.width == 4
    assert torch.equal(encoder(numbers, torch.zeros(3, 0, dtype=torch.int64)), numbers)


def test_events_embedding_is_its_input() -> None:
    items = torch.randn(3, 4)
    assert torch.equal(EventsEncoder(n_items=4)(items), items)


@pytest.fixture(scope="module")
def colour_network() -> nn.Module:
    """A ResNet-18 on three colours with random weights and moments, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network: nn.Module = resnet18(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    network.eval()
    return network


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_encoder_sees_gray_as_the_colour_network_sees_it_in_all_three_channels(
    suffix: str, colour_network: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(colour_network.state_dict(), path)
    else:
        save_file(colour_network.state_dict(), path)
    encoder = ImageEncoder(architecture="resnet18", width=5).eval()
    encoder.load_pretrained(path)
    gray = torch.randn(2, 1, 40, 40)
    # Of the class layer only the first five rows are asked for, and the encoder has its own: both get the same.
    with torch.no_grad():
        encoder.projection.weight.copy_(colour_network.get_parameter("fc.weight")[:5])
        encoder.projection.bias.copy_(colour_network.get_parameter("fc.bias")[:5])
        expected = colour_network(gray.expand(-1, 3, -1, -1))[:, :5]
        assert torch.allclose(encoder(gray), expected, rtol=1e-4, atol=1e-4)


def test_pretrained_encoder_keeps_its_own_projection(colour_network: nn.Module, tmp_path: Path) -> None:
    torch.save(colour_network.state_dict(), tmp_path / "weights.pth")
    encoder = ImageEncoder(architecture="resnet18", width=1000)
    before = encoder.projection.weight.clone()
    encoder.load_pretrained(tmp_path / "weights.pth")
    assert torch.equal(encoder.projection.weight, before)


def test_pretrained_encoder_takes_weights_with_one_channel_as_they_are(tmp_path: Path) -> None:
    first, second = (ImageEncoder(architecture="resnet18", width=2) for _ in range(2))
    torch.save(first.network.state_dict(), tmp_path / "weights.pth")
    second.load_pretrained(tmp_path / "weights.pth")
    assert torch.equal(second.network.conv1.weight, first.network.conv1.weight)


def test_pretrained_weights_are_refused_when_they_are_of_another_architecture(tmp_path: Path) -> None:
    torch.save(resnet50(weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(SettingsError, match=r"expected the layers of this network.*Choose the file that fits"):
        ImageEncoder(architecture="resnet18", width=2).load_pretrained(tmp_path / "weights.pth")


def test_pretrained_weights_are_refused_when_a_layer_is_missing(colour_network: nn.Module, tmp_path: Path) -> None:
    weights = colour_network.state_dict()
    del weights["layer3.0.conv1.weight"]
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(SettingsError, match=r"for layer3\.0\.conv1\.weight and 0 more"):
        ImageEncoder(architecture="resnet18", width=2).load_pretrained(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "text.safetensors", "folder.pth"])
def test_pretrained_weights_are_refused_when_the_file_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not a model", encoding="utf-8")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(SettingsError, match=f"image-weights at .*{name}: expected a torchvision state dict, got"):
        ImageEncoder(architecture="resnet18", width=2).load_pretrained(tmp_path / name)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_image_embedding_has_the_asked_width(architecture: str) -> None:
    encoder = ImageEncoder(architecture=architecture, width=3).eval()
    assert encoder(torch.zeros(2, 1, 33, 33)).shape == (2, encoder.width) == (2, 3)


def test_image_embedding_of_a_patient_does_not_depend_on_the_others_in_eval_mode() -> None:
    encoder = ImageEncoder(architecture="resnet18", width=3).eval()
    images = torch.randn(3, 1, 33, 33)
    assert torch.allclose(encoder(images)[1:2], encoder(images[1:2]), rtol=1e-4, atol=1e-5)


def test_pretrained_weights_need_no_step_counters(colour_network: nn.Module, tmp_path: Path) -> None:
    # The file that torchvision long served for ResNet-18 has 102 entries: no num_batches_tracked.
    weights = {key: value for key, value in colour_network.state_dict().items() if "num_batches" not in key}
    assert len(weights) == 102
    torch.save(weights, tmp_path / "weights.pth")
    encoder = ImageEncoder(architecture="resnet18", width=2)
    encoder.load_pretrained(tmp_path / "weights.pth")
    assert torch.equal(encoder.network.layer4[1].get_buffer("bn2.running_var"), weights["layer4.1.bn2.running_var"])


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x02N."], ids=["empty", "text", "pickle"])
def test_pretrained_weights_are_refused_when_the_file_is_no_torch_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(
        SettingsError, match=r"image-weights at .*weights\.pth: expected a torchvision state dict"
    ) as raised:
        ImageEncoder(architecture="resnet18", width=2).load_pretrained(tmp_path / "weights.pth")
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], {"conv1.weight": "x"}, {1: torch.zeros(3)}, {"conv1.weight": torch.zeros(3)}],
    ids=["tensor", "list", "text", "numbered", "vector"],
)
def test_pretrained_weights_are_refused_when_the_file_holds_something_else(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(SettingsError, match=r"image-weights at .*weights\.pth: expected"):
        ImageEncoder(architecture="resnet18", width=2).load_pretrained(tmp_path / "weights.pth")
