"""Small encoders of any width and depth: a residual network, a perceptron, and free features without a network."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gnc_models.encoders.building_blocks import MAP_NORMS, VECTOR_NORMS, image_shape, initialise_plain, sequence_length


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with normalization, added to their input (He et al., arXiv 1512.03385)."""

    def __init__(self, channels_in: int, channels: int, stride: int, norm_layer: str) -> None:
        super().__init__()
        norm = MAP_NORMS[norm_layer]
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels)
        self.stride = stride
        # A strided 1x1 convolution, as slicing and a plain one: with fewer channels than a vector register holds,
        # oneDNN's own writes past its buffer in the backward pass (github.com/uxlfoundation/oneDNN/issues/6035).
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), norm(channels))

    def forward(self, inputs: Float[Tensor, "batch channels_in height width"]) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        carried = self.shortcut(inputs[:, :, :: self.stride, :: self.stride])
        return functional.relu(self.norm2(self.conv2(hidden)) + carried)


class ChannelsLast(nn.Module):
    """Keeps each pixel's channels of activations together in memory: the same numbers, a fifth faster on a CPU."""

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Tensor:
        return inputs.contiguous(memory_format=torch.channels_last)


def make_small_resnet(
    input_shape: tuple[int, ...], feature_dim: int, *, width: int, depth: int, norm_layer: str
) -> nn.Sequential:
    """A stem and three stages of `depth` basic blocks with width, 2 width and 4 width channels.
    The stem (a 4x4 convolution) and the stages from the second on each halve the side. Halving it in the stem makes
    a step 2.5 times cheaper at 16 pixels; in equal time the margins come out higher than at full resolution."""
    image_channels, _, _ = image_shape("small_resnet", input_shape)
    stem = nn.Conv2d(image_channels, width, 4, stride=2, padding=1, bias=False)
    layers: list[nn.Module] = [stem, ChannelsLast(), MAP_NORMS[norm_layer](width), nn.ReLU()]
    channels = width
    for stage in range(3):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(channels, width * 2**stage, stride, norm_layer))
            channels = width * 2**stage
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, feature_dim))
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions if norm_layer != "none" else ():
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if norm_layer == "none":
        initialise_plain(convolutions, [b.conv2 for b in network if isinstance(b, BasicBlock)])
    return network


def make_mlp(input_shape: tuple[int, ...], feature_dim: int, *, width: int, depth: int, norm_layer: str) -> nn.Module:
    """`depth` hidden layers of `width` units, each a linear map, normalization and ReLU."""
    units = math.prod(input_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(units, width, bias=False), VECTOR_NORMS[norm_layer](width), nn.ReLU()]
        units = width
    if norm_layer == "none":
        initialise_plain(layers)
    return nn.Sequential(*layers, nn.Linear(units, feature_dim))


class FreeFeatures(nn.Module):
    """One trained vector per sample, looked up by its index; Gaussian with mean square norm 1 at the start.
    Source: Mixon, Parshall and Pi, arXiv 2011.11619; with the sphere constraint Jiang et al., arXiv 2310.05351."""

    def __init__(self, num_samples: int, feature_dim: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(num_samples, feature_dim) * feature_dim**-0.5)

    def forward(self, index: Int[Tensor, "batch 1"] | Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        return self.features[index.flatten()]


def make_unconstrained(input_shape: tuple[int, ...], feature_dim: int, *, num_samples: int) -> FreeFeatures:
    """Free features for `num_samples` samples whose input is their index, of shape (1,)."""
    if sequence_length("unconstrained", input_shape) != 1:
        raise ValueError(f"input_shape must be (1,) for unconstrained, got {input_shape!r}. An input is one index.")
    return FreeFeatures(num_samples, feature_dim)
