from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_model.errors import StudyError
from shared_model.model.encoders import ImageEncoder
from shared_model.model.heads import FusionHead
from shared_model.shapley.rescale import rescale_rule


def explain(network: nn.Module, x: Tensor, r: Tensor, *, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Multipliers of the weighted sum of a row's outputs (all 1 if not given), and that sum's differences."""
    pairs = torch.cat([x, r]).requires_grad_()
    with rescale_rule(network):
        outputs = network(pairs).reshape(len(pairs), -1)
    total = (outputs * (torch.ones_like(outputs[0]) if weights is None else weights.flatten())).sum(dim=1)
    of_x, of_r = total.chunk(2)
    multipliers = torch.autograd.grad(of_x.sum(), pairs)[0]
    return multipliers[: len(x)], (of_x - of_r).detach()


def explained(multipliers: Tensor, x: Tensor, r: Tensor) -> Tensor:
    return (multipliers * (x - r)).flatten(1).sum(dim=1)


def plain_gradient(network: nn.Module, x: Tensor) -> Tensor:
    inputs = x.clone().requires_grad_()
    return torch.autograd.grad(network(inputs).sum(), inputs)[0]


def plane(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, None]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


def image_encoder(architecture: str, *, skip: bool = True) -> ImageEncoder:
    """Random weights, and BatchNorm moments around those of random images, in eval mode."""
    encoder = ImageEncoder(architecture=architecture, width=4, skip=skip)
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1  # takes the batch's moments; with any others the signal fades or explodes on its way
    with torch.no_grad():
        encoder(torch.randn(8, 1, 64, 64))
        for norm in norms:
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            mean += 0.2 * variance.sqrt() * torch.randn_like(mean)
            variance *= torch.empty_like(variance).uniform_(0.5, 2)
    return encoder.eval()


class ResidualBlock(nn.Module):
    """One in-place ReLU used twice, as in torchvision's blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.relu(self.first(x)))
        out += x
        rectified: Tensor = self.relu(out)
        return rectified


# Completeness: what the multipliers explain is the difference of the outputs.


@pytest.mark.parametrize("network", ["resnet18", "resnet18 plain", "resnet50"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["double", "single"])
def test_multipliers_of_the_image_encoder_are_complete(network: str, dtype: torch.dtype, error: float) -> None:
    encoder = image_encoder(network.split(maxsplit=1)[0], skip="plain" not in network).to(dtype)
    x, r = torch.randn(1, 1, 64, 64, dtype=dtype).expand(3, -1, -1, -1), torch.randn(3, 1, 64, 64, dtype=dtype)
    multipliers, differences = explain(encoder, x, r)
    assert ((explained(multipliers, x, r) - differences).abs() <= error * differences.abs()).all()


@pytest.mark.parametrize("hidden", [(), (5,), (6, 5)])
def test_multipliers_of_the_fusion_head_are_complete(hidden: tuple[int, ...]) -> None:
    head = FusionHead(width=4, hidden=hidden, norm="none", dropout=0.5).eval().double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)  # its output layers start at zero
    x, r = torch.randn(2, 7, 4, dtype=torch.float64)
    multipliers, differences = explain(head, x, r)
    assert torch.allclose(explained(multipliers, x, r), differences, rtol=1e-12, atol=1e-12)


def test_multipliers_through_two_networks_are_complete() -> None:
    encoder = nn.Sequential(ResidualBlock(), nn.MaxPool2d(3, 2, 1), nn.Flatten()).double()
    head = nn.Sequential(nn.Linear(18, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    x, r = torch.randn(2, 5, 2, 6, 6, dtype=torch.float64)
    pairs = torch.cat([x, r]).requires_grad_()
    with rescale_rule(encoder, head):
        of_x, of_r = head(encoder(pairs)).squeeze(1).chunk(2)
    multipliers = torch.autograd.grad(of_x.sum(), pairs)[0][:5]
    assert torch.allclose(explained(multipliers, x, r), of_x - of_r, rtol=1e-12, atol=1e-12)


def test_multipliers_are_complete_when_one_relu_in_place_is_used_twice() -> None:
    block = ResidualBlock().double()
    x, r = torch.randn(2, 3, 2, 5, 5, dtype=torch.float64)
    multipliers, differences = explain(block, x, r)
    assert torch.allclose(explained(multipliers, x, r), differences, rtol=1e-12)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.MaxPool2d(3, 2, 1)], ids=["ReLU", "MaxPool2d"])
def test_gradient_of_the_references_is_zero(layer: nn.Module) -> None:
    pairs = torch.randn(6, 2, 5, 5, requires_grad=True)
    with rescale_rule(layer):
        outputs = layer(pairs)
    gradient = torch.autograd.grad(outputs.sum(), pairs)[0]
    assert gradient[:3].any()
    assert not gradient[3:].any()


# ReLU.


@pytest.mark.parametrize(
    ("x", "r", "expected"),
    [
        pytest.param(3.0, 1.0, 1.0, id="both positive"),
        pytest.param(-3.0, -1.0, 0.0, id="both negative"),
        pytest.param(3.0, -1.0, 0.75, id="input positive"),
        pytest.param(-3.0, 1.0, 0.25, id="reference positive"),
        pytest.param(2.0, 2.0, 1.0, id="same and positive"),
        pytest.param(-2.0, -2.0, 0.0, id="same and negative"),
        pytest.param(0.0, 0.0, 0.0, id="both zero"),
        pytest.param(1e-300, -1e-300, 0.5, id="almost the same"),
    ],
)
def test_multiplier_of_relu_is_rise_over_run(x: float, r: float, expected: float) -> None:
    multipliers, _ = explain(nn.ReLU(), *torch.tensor([[[x]], [[r]]], dtype=torch.float64))
    assert multipliers.item() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 2, 2)], ids=str)
def test_relu_pairs_rows_whatever_the_rank(shape: tuple[int, ...]) -> None:
    pairs = torch.stack([torch.full(shape, value) for value in (3.0, -3.0, -1.0, 1.0)]).requires_grad_()
    relu = nn.ReLU()
    with rescale_rule(relu):
        outputs = relu(pairs)
    gradient = torch.autograd.grad(outputs[:2].sum(), pairs)[0]
    assert torch.equal(gradient, torch.stack([torch.full(shape, value) for value in (0.75, 0.25, 0.0, 0.0)]))


def test_relu_in_place_leaves_its_input_alone() -> None:
    relu, batch = nn.ReLU(inplace=True), torch.tensor([[-1.0], [2.0]])
    with rescale_rule(relu):
        assert relu(batch).tolist() == [[0], [2]]
    assert batch.tolist() == [[-1], [2]]


def test_multiplier_is_the_mean_gradient_on_the_path_when_there_is_one_hidden_layer() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    x, r = torch.randn(2, 1, 4, dtype=torch.float64)
    # Between the points where a hidden unit switches the gradient is constant, so the integral is a finite sum.
    at_x, at_r = network[0](x), network[0](r)
    switches = (at_r / (at_r - at_x)).detach().squeeze(0)
    switches = switches[(switches > 0) & (switches < 1)]
    ends = torch.cat([switches.new_zeros(1), switches.sort().values, switches.new_ones(1)])
    mean = sum(
        (end - start) * plain_gradient(network, r + (start + end) / 2 * (x - r)) for start, end in pairwise(ends)
    )
    assert len(switches) >= 2
    assert torch.allclose(explain(network, x, r)[0], torch.as_tensor(mean), rtol=1e-12, atol=1e-14)


def test_multipliers_are_the_plain_gradient_when_input_and_reference_are_the_same() -> None:
    network = nn.Sequential(ResidualBlock(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(18, 1)).double()
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    assert torch.allclose(explain(network, x, x)[0], plain_gradient(network, x), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning:captum")  # it tells of its own hooks
def test_multipliers_agree_with_captum_when_there_is_no_max_pool() -> None:
    captum = pytest.importorskip("captum.attr")
    layers = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    network = nn.Sequential(*layers).double()
    x, r = torch.randn(2, 4, 1, 6, 6, dtype=torch.float64)
    reference = captum.DeepLift(network, eps=1e-12).attribute(x, r)
    assert torch.allclose(explain(network, x, r)[0] * (x - r), reference, rtol=1e-6, atol=1e-9)


# Max-pool: the difference of the maxima goes to the position of the higher one.


@pytest.mark.parametrize(
    ("x", "r", "expected"),
    [
        # Maxima 5 and 2, 5 being at the first position: 3 over the difference there, 5 - 1.
        pytest.param([[5, 0]], [[1, 2]], [[0.75, 0]], id="input higher, elsewhere"),
        pytest.param([[5, 0]], [[2, 1]], [[1, 0]], id="input higher, same position"),
        # Maxima 2 and 5, 5 being at the second position: -3 over the difference there, 1 - 5.
        pytest.param([[2, 1]], [[0, 5]], [[0, 0.75]], id="reference higher, elsewhere"),
        pytest.param([[0, 2]], [[1, 5]], [[0, 1]], id="reference higher, same position"),
        pytest.param([[4, 1]], [[1, 4]], [[0, 0]], id="same maximum elsewhere"),
        pytest.param([[4, 1]], [[4, 3]], [[1, 0]], id="same maximum, same position"),
        pytest.param([[4, 4]], [[1, 4]], [[0, 0]], id="same maximum, of the input at two positions"),
    ],
)
def test_multiplier_of_max_pool_is_at_the_higher_maximum(
    x: list[list[float]], r: list[list[float]], expected: list[list[float]]
) -> None:
    assert torch.equal(explain(nn.MaxPool2d((1, 2)), plane(x), plane(r))[0], plane(expected))


def test_multipliers_of_max_pool_add_up_when_one_position_wins_two_windows() -> None:
    # Windows (0, 1, 2) and (2, 3, 4). Maxima of x: 9 and 9, both at position 2; of r: 1 and 3.
    x, r = plane([[0, 0, 9, 0, 0]]), plane([[1, 0, 1, 0, 3]])
    pool = nn.MaxPool2d((1, 3), stride=(1, 2))
    # The first window gives (9 - 1) / (9 - 1), the second, which counts 10 times, (9 - 3) / (9 - 1).
    multipliers, _ = explain(pool, x, r, weights=torch.tensor([1.0, 10.0]))
    assert torch.equal(multipliers, plane([[0, 0, 1 + 10 * 0.75, 0, 0]]))


def test_multipliers_of_max_pool_add_up_when_a_position_wins_one_window_as_input_and_one_as_reference() -> None:
    # Windows (0, 1, 2) and (2, 3, 4). Maxima of x: 4 at 2, then 6 at 4; of r: 2 at 2, then 3 at 3.
    x, r = plane([[0, 0, 4, 0, 6]]), plane([[0, 0, 2, 3, 1]])
    multipliers, _ = explain(nn.MaxPool2d((1, 3), stride=(1, 2)), x, r)
    assert torch.equal(multipliers, plane([[0, 0, 2 / 2, 0, 3 / 5]]))


POOLS = st.builds(
    nn.MaxPool2d,
    kernel_size=st.integers(2, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    ceil_mode=st.booleans(),
)


@given(pool=POOLS, values=st.lists(st.integers(-2, 2), min_size=144, max_size=144))
def test_multipliers_of_max_pool_are_complete_whatever_the_windows_and_ties(
    pool: nn.MaxPool2d, values: list[int]
) -> None:
    x, r = torch.tensor(values, dtype=torch.float64).view(2, 2, 1, 6, 6)
    weights = torch.arange(1.0, 1.0 + pool(x[:1]).numel(), dtype=torch.float64)  # each window on its own
    multipliers, differences = explain(pool, x, r, weights=weights)
    assert torch.allclose(explained(multipliers, x, r), differences, rtol=1e-12, atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1))
def test_multipliers_of_max_pool_equal_the_cross_max_formula(seed: int) -> None:
    x, r = torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = torch.zeros_like(x)
    for row in range(0, 6, 2):
        for column in range(0, 6, 2):
            window = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            max_x, max_r = x[window].max(), r[window].max()
            cross_max = torch.maximum(max_x, max_r)
            expected[x == max_x] += (cross_max - max_r) / (x - r)[x == max_x]
            expected[r == max_r] += (max_x - cross_max) / (x - r)[r == max_r]
    multipliers, _ = explain(nn.MaxPool2d(3, 2, 1), x[None, None], r[None, None])
    assert torch.allclose(multipliers[0, 0], expected, rtol=1e-12, atol=1e-14)


@given(seed=st.integers(0, 2**32 - 1))
def test_multipliers_of_max_pool_and_relu_are_between_0_and_1_when_windows_do_not_overlap(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, step = torch.randn(2, 1, 1, 6, 6, generator=generator)
    r = x + 1e-6 * step  # so close that rounding is most of the difference
    multipliers, _ = explain(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), x, r)
    assert ((multipliers >= 0) & (multipliers <= 1)).all()


# The networks are as before.


def test_outputs_within_the_rule_are_those_without() -> None:
    encoder = image_encoder("resnet18")
    batch = torch.randn(4, 1, 40, 40)
    with torch.no_grad(), rescale_rule(encoder):
        within = encoder(batch)
    with torch.no_grad():
        assert torch.equal(encoder(batch), within)


def snapshot(network: nn.Module) -> tuple[list[object], dict[str, bytes]]:
    parts: list[object] = [(sorted(vars(module)), module.training) for module in network.modules()]
    parts += [parameter.requires_grad for parameter in network.parameters()]
    return parts, {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def test_network_is_as_before_on_exit() -> None:
    encoder = image_encoder("resnet18")
    encoder.projection.requires_grad_(requires_grad=False)
    batch = torch.randn(2, 1, 40, 40)
    before, gradient = snapshot(encoder), plain_gradient(encoder, batch)
    explain(encoder, batch[:1], batch[1:])
    assert snapshot(encoder) == before
    assert torch.equal(plain_gradient(encoder, batch), gradient)


def test_network_is_as_before_after_an_exception() -> None:
    network = nn.Sequential(ResidualBlock(), nn.MaxPool2d(3, 2, 1))
    before = snapshot(network)
    with pytest.raises(ZeroDivisionError), rescale_rule(network):
        _ = 1 / 0
    assert snapshot(network) == before


def test_forward_of_an_instance_is_restored() -> None:
    relu, own = nn.ReLU(), nn.Identity().forward
    vars(relu)["forward"] = own
    with rescale_rule(relu):
        assert vars(relu)["forward"] is not own
    assert vars(relu)["forward"] is own


def test_networks_may_share_a_layer() -> None:
    relu = nn.ReLU()
    with rescale_rule(nn.Sequential(relu), nn.Sequential(relu), relu):
        assert "forward" in vars(relu)
    assert "forward" not in vars(relu)


# Refusals.


def assert_refused(*networks: nn.Module, match: str) -> None:
    with pytest.raises(StudyError, match=match), rescale_rule(*networks):
        pass


@pytest.mark.parametrize(
    ("layer", "got"),
    [
        (nn.LSTM(2, 2), "LSTM"),
        (nn.LayerNorm(2), "LayerNorm"),
        (nn.Sigmoid(), "Sigmoid"),
        (nn.GELU(), "GELU"),
        (nn.ReLU6(), "ReLU6"),
        (nn.MultiheadAttention(2, 1), "NonDynamicallyQuantizableLinear"),
        (nn.BatchNorm2d(2), "BatchNorm2d in training mode"),
        (nn.BatchNorm2d(2, track_running_stats=False).eval(), "BatchNorm2d without running moments"),
        (nn.Dropout(), "Dropout in training mode"),
        (nn.Flatten(0), "Flatten of the rows"),
        (nn.MaxPool2d(2, return_indices=True), "MaxPool2d with return_indices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layer_that_the_rule_does_not_know_is_refused(layer: nn.Module, got: str) -> None:
    network = nn.Sequential(nn.ReLU(), nn.ModuleDict({"odd": layer}))
    assert_refused(network, match=rf"rescale rule at Sequential\.1\.odd\S*: expected .*, got {got} and 0 more\.")


def test_no_network_is_touched_when_one_is_refused() -> None:
    good = nn.ReLU()
    bad = nn.Sequential(nn.LSTM(2, 2), nn.ReLU(), nn.Tanh())
    assert_refused(good, bad, match=r"at Sequential\.0: .*got LSTM and 1 more\. .* by integrated gradients")
    assert "forward" not in vars(good)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.ReLU(), (3, 2), r"at ReLU: expected an even number of rows, got shape \(3, 2\)\. Stack the inputs"),
        (nn.ReLU(), (), r"at ReLU: expected an even number of rows, got shape \(\)"),
        (nn.MaxPool2d(2), (3, 1, 4, 4), "at MaxPool2d: expected an even number of rows"),
        (nn.MaxPool2d(2), (2, 4, 4), r"at MaxPool2d: expected batch, channel, .*, got shape \(2, 4, 4\)"),
    ],
    ids=["odd", "no rows", "odd images", "no batch"],
)
def test_batch_that_is_not_made_of_pairs_is_refused(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with rescale_rule(layer), pytest.raises(StudyError, match=message):
        layer(torch.zeros(shape))


def test_nested_use_is_refused_and_the_outer_one_goes_on() -> None:
    network = nn.Sequential(nn.ReLU())
    with rescale_rule(network):
        outer = vars(network[0])["forward"]
        assert_refused(network, match=r"at Sequential\.0: expected a network outside the rule.*Leave the first")
        assert vars(network[0])["forward"] is outer
    assert "forward" not in vars(network[0])


def test_use_in_a_second_thread_is_refused() -> None:
    network = nn.Sequential(nn.ReLU())
    with rescale_rule(network), ThreadPoolExecutor(1) as threads:
        threads.submit(assert_refused, network, match="inside it already").result()
