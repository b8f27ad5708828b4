"""The rescale rule of DeepLIFT by plain autograd: complete multipliers for networks of ReLU and max-pool.

Source: Shrikumar, Greenside, Kundaje 2017 (arXiv 1704.02685), section 3.5.1, for ReLU; Chen, Lundberg, Lee 2022
(G-DeepSHAP) and shap's DeepExplainer for the cross-max rule of max-pool.

Why not captum or shap: both put the rule in module hooks. A hook sees a module that is called twice, or that works in
place, only once, and their max-pool goes through `max_unpool`, which overwrites where windows overlap. A residual
network has all three, and there both miss the difference of the outputs. An autograd function remembers each call by
itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, Function, once_differentiable
from torch.nn.functional import max_pool2d

from shared_model.errors import StudyError

# Leaf modules that are linear for each row, apart from a constant: the plain gradient is their multiplier. Exact types,
# because a subclass may compute something else. An empty Sequential, a head without hidden layers, has no children.
ROW_WISE_LINEAR = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    nn.Dropout,
    nn.Flatten,
    nn.Sequential,
)

_ENTRY = Lock()  # two threads must not both find a network free


@contextmanager
def rescale_rule(*networks: nn.Module) -> Iterator[None]:
    """Within it, the gradient of a paired batch is the rescale multiplier.

    A batch is [inputs; references] stacked along dimension 0: two equal halves, row i of the first paired with row i of
    the second. For a scalar f of each row's output, the autograd gradient m of the sum of f over the FIRST half, with
    respect to the first half's inputs, is complete: `(m * (input - reference)).sum() == f(input) - f(reference)` for
    each pair, up to rounding, where f is linear or was computed inside with the networks given here. The gradient of
    the second half is zero, and outputs are as ever. The forward pass must run inside; the backward pass need not.

    ReLU and max-pool are found as modules. A function called by name in a `forward`, such as `torch.relu(x)`, is not
    seen and keeps its plain gradient: check the completeness of what comes out.

    Args:
        networks: modules of which every leaf is ReLU, MaxPool2d or in `ROW_WISE_LINEAR`, in eval mode. They are as
            before on exit, also after an exception.

    Raises:
        StudyError: a layer cannot be propagated through; a network is inside the rule already, here or in another
            thread; within, a batch that is not made of pairs.
    """
    before: dict[nn.Module, Callable[..., Tensor] | None] = {}
    try:
        with _ENTRY:
            for module in _nonlinear_layers(networks):
                before[module] = vars(module).get("forward")
                vars(module)["forward"] = _PairedForward(module)
        yield
    finally:
        for module, forward in before.items():
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward


@dataclass(frozen=True, eq=False)
class _PairedForward:
    """What stands for the forward of a layer within the rule; its type shows that the layer is taken."""

    layer: nn.Module

    def __call__(self, batch: Float[Tensor, "*row"]) -> Float[Tensor, "*out"]:
        if batch.ndim == 0 or len(batch) % 2:
            raise StudyError(
                f"rescale rule at {type(self.layer).__name__}: expected an even number of rows, got shape "
                f"{tuple(batch.shape)}. Stack the inputs and then as many references along dimension 0."
            )
        if isinstance(self.layer, nn.MaxPool2d):
            if batch.ndim != 4:  # without a batch dimension, channels would be paired
                raise StudyError(
                    f"rescale rule at MaxPool2d: expected batch, channel, height and width, got shape "
                    f"{tuple(batch.shape)}. Add the dimension that is missing."
                )
            pooled: Tensor = _PairedMaxPool.apply(batch, self.layer)
            return pooled
        rectified: Tensor = _PairedReLU.apply(batch)
        return rectified


class _PairedReLU(Function):
    """Multiplier (relu(x) - relu(r)) / (x - r); where x and r are the same, the derivative."""

    @staticmethod
    def forward(ctx: BackwardCFunction, batch: Float[Tensor, "row *feature"]) -> Float[Tensor, "row *feature"]:
        rectified = batch.clamp(min=0)
        x, r = batch.chunk(2)
        over_x, over_r = rectified.chunk(2)
        ctx.save_for_backward(_ratio(over_x - over_r, x - r, limit=(x > 0).to(batch.dtype)))
        return rectified

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, slope: Float[Tensor, "row *feature"]) -> Float[Tensor, "row *feature"]:
        (multiplier,) = ctx.saved_tensors
        return torch.cat([slope.chunk(2)[0] * multiplier, torch.zeros_like(multiplier)])


class _PairedMaxPool(Function):
    """The cross-max rule: the difference of a window's maxima goes to the position of the higher of the two.

    With c = max(max_x, max_r), the rule gives c - max_r to the arg-max of x and max_x - c to that of r, each divided by
    the difference of the inputs there. One of the two amounts is always zero, and the other is max_x - max_r.
    """

    @staticmethod
    def forward(
        ctx: BackwardCFunction, batch: Float[Tensor, "row channel height width"], pool: nn.MaxPool2d
    ) -> Float[Tensor, "row channel h w"]:
        pooled, position = max_pool2d(
            batch, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
        )
        x, r = batch.chunk(2)
        max_x, max_r = (half.flatten(2) for half in pooled.chunk(2))
        at_x, at_r = (half.flatten(2) for half in position.chunk(2))  # in the flat plane, height x width
        at = torch.where(max_x >= max_r, at_x, at_r)
        gap = (x - r).flatten(2).gather(2, at)
        # Maxima that are the same at a position that is the same in both: it is the arg-max, with derivative 1.
        ctx.save_for_backward(_ratio(max_x - max_r, gap, limit=torch.ones_like(gap)), at)
        ctx.plane = batch.shape[2:]  # type: ignore[attr-defined]
        return pooled

    @staticmethod
    @once_differentiable
    def backward(
        ctx: BackwardCFunction, slope: Float[Tensor, "row channel h w"]
    ) -> tuple[Float[Tensor, "row channel height width"], None]:
        multiplier, at = ctx.saved_tensors  # type: ignore[misc]
        n_rows, n_channels = slope.shape[:2]
        gradient = slope.new_zeros(n_rows, n_channels, *ctx.plane)  # type: ignore[attr-defined]
        # Adds, because a position may win several windows. The view of the first half writes into the whole.
        gradient.flatten(2).chunk(2)[0].scatter_add_(2, at, slope.chunk(2)[0].flatten(2) * multiplier)
        return gradient, None


def _ratio(
    rise: Float[Tensor, "*shape"], run: Float[Tensor, "*shape"], *, limit: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """`rise / run` in [0, 1], or its limit where the run is zero.

    No stabiliser is needed: both have the same sign, and |rise| <= |run| holds for ReLU (slope at most 1) and at the
    position of the higher maximum (there the lower side is at most its own maximum). Rounding is monotone, so it keeps
    both. An epsilon would cost completeness at small runs.
    """
    return torch.where(run == 0, limit, rise / run)


def _nonlinear_layers(networks: tuple[nn.Module, ...]) -> list[nn.Module]:
    """ReLU and max-pool layers of the networks, each once.

    Raises:
        StudyError: one of the networks cannot be propagated through, or is taken.
    """
    leaves = {
        module: ".".join(filter(None, (type(network).__name__, name)))
        for network in networks
        for name, module in network.named_modules()
        if next(module.children(), None) is None
    }
    taken = [name for module, name in leaves.items() if isinstance(vars(module).get("forward"), _PairedForward)]
    if taken:
        raise StudyError(
            f"rescale rule at {taken[0]}: expected a network outside the rule, got one that is inside it "
            "already. Leave the first `rescale_rule`, or give it all networks at once."
        )
    refused = [(name, problem) for module, name in leaves.items() if (problem := _problem(module))]
    if refused:
        (name, problem), others = refused[0], len(refused) - 1
        raise StudyError(
            f"rescale rule at {name}: expected ReLU, MaxPool2d or a layer that is linear for each row, got "
            f"{problem} and {others} more. Put the network in eval mode, or explain it by integrated gradients."
        )
    return [module for module in leaves if isinstance(module, (nn.ReLU, nn.MaxPool2d))]


def _problem(layer: nn.Module) -> str | None:
    """What keeps a leaf from being propagated through; None if nothing does."""
    kind = type(layer).__name__
    if type(layer) not in (nn.ReLU, nn.MaxPool2d, *ROW_WISE_LINEAR):
        return kind
    if isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) and layer.training:
        return f"{kind} in training mode"
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is None:
        return f"{kind} without running moments"  # takes those of the batch, in eval mode as well
    if isinstance(layer, nn.Flatten) and layer.start_dim < 1:
        return f"{kind} of the rows"
    if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
        return f"{kind} with return_indices"
    return None
