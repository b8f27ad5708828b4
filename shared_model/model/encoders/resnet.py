"""Residual networks (He et al. 2016, "Deep residual learning for image recognition"), ResNet-18 and ResNet-50.

Names, order and random start of the layers are torchvision's, whose weight files fit. Why not torchvision itself: its
import takes 3 seconds (it loads torch's compiler), and every process of a study would pay them, with images or not.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

STEM_CHANNELS = 64


def _convolution(n_in: int, n_out: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, whose input is added to their output unless `skip` is False (a "plain" network's block).

    Attributes:
        expansion: output channels for each of `n_channels`.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, n_in: int, n_channels: int, *, stride: int, downsample: nn.Module | None, skip: bool) -> None:
        """A block with random weights.

        Args:
            n_in: channels of the input.
            n_channels: of the convolutions between.
            stride: of the convolution that makes the maps smaller.
            downsample: gives the input the output's shape; None where it has it.
            skip: whether the input is added.
        """
        super().__init__()
        self.conv1 = _convolution(n_in, n_channels, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(n_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(n_channels, n_channels, kernel=3)
        self.bn2 = nn.BatchNorm2d(n_channels)
        self.downsample = downsample
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the next block."""
        out: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.skip:
            out += x if self.downsample is None else self.downsample(x)
        rectified: Tensor = self.relu(out)
        return rectified


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1; it makes the maps smaller itself (as torchvision has it, "v1.5").

    Attributes:
        expansion: output channels for each of `n_channels`.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, n_in: int, n_channels: int, *, stride: int, downsample: nn.Module | None, skip: bool) -> None:
        """As `BasicBlock`."""
        super().__init__()
        n_out = n_channels * self.expansion
        self.conv1 = _convolution(n_in, n_channels, kernel=1)
        self.bn1 = nn.BatchNorm2d(n_channels)
        self.conv2 = _convolution(n_channels, n_channels, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(n_channels)
        self.conv3 = _convolution(n_channels, n_out, kernel=1)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the next block."""
        inner = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.bn3(self.conv3(inner))
        if self.skip:
            out += x if self.downsample is None else self.downsample(x)
        rectified: Tensor = self.relu(out)
        return rectified


# The block, and how many of them a stage has.
ARCHITECTURES: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A stem, four stages of blocks, each after the first at half the resolution, and a linear layer on averages."""

    def __init__(self, architecture: str, *, skip: bool = True) -> None:
        """A network for three colour channels and ImageNet's 1000 classes, with random weights.

        Args:
            architecture: a key of `ARCHITECTURES`.
            skip: whether blocks add their input to their output; without, it is the plain network of the same depth.
        """
        super().__init__()
        block, (n1, n2, n3, n4) = ARCHITECTURES[architecture]
        self.conv1 = _convolution(3, STEM_CHANNELS, kernel=7, stride=2)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(block, STEM_CHANNELS, 64, n_blocks=n1, stride=1, skip=skip)
        self.layer2 = _stage(block, 64 * block.expansion, 128, n_blocks=n2, stride=2, skip=skip)
        self.layer3 = _stage(block, 128 * block.expansion, 256, n_blocks=n3, stride=2, skip=skip)
        self.layer4 = _stage(block, 256 * block.expansion, 512, n_blocks=n4, stride=2, skip=skip)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.n_features = 512 * block.expansion
        self.fc: nn.Module = nn.Linear(self.n_features, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if not skip:  # only now: the plain network starts with the weights of the residual one
            for module in self.modules():
                if isinstance(module, (BasicBlock, Bottleneck)):
                    module.downsample = None

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _"]:
        """What the last layer makes of the averages over the image of the last maps."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        last: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return last


def _stage(
    block: type[BasicBlock | Bottleneck], n_in: int, n_channels: int, *, n_blocks: int, stride: int, skip: bool
) -> nn.Sequential:
    """Blocks of one resolution; the first takes the maps of the stage before."""
    n_out, downsample = n_channels * block.expansion, None
    if stride != 1 or n_in != n_out:
        downsample = nn.Sequential(_convolution(n_in, n_out, kernel=1, stride=stride), nn.BatchNorm2d(n_out))
    first = block(n_in, n_channels, stride=stride, downsample=downsample, skip=skip)
    others = (block(n_out, n_channels, stride=1, downsample=None, skip=skip) for _ in range(n_blocks - 1))
    return nn.Sequential(first, *others)
