"""Encoders: networks from inputs to features, each ending in a linear map. Knows torch and torchvision.

`make_encoder` builds one by name from the settings a study names: width, depth and the feature dimension.
"""

import math

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input (He et al., arXiv 1512.03385)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride = stride
        # A strided 1x1 convolution, as slicing and a plain one: with fewer channels than a vector register holds,
        # oneDNN's own writes past its buffer in the backward pass (github.com/uxlfoundation/oneDNN/issues/6035).
        same = stride == 1 and channels_in == channels
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, inputs: Float[Tensor, "batch channels_in height width"]) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        carried = self.shortcut(inputs[:, :, :: self.stride, :: self.stride])
        return functional.relu(self.norm2(self.conv2(hidden)) + carried)


class _ChannelsLast(nn.Module):
    """Keeps each pixel's channels together in memory from here on: the same numbers, a fifth faster on a CPU.

    Only activations are laid out so. Parameters and optimiser state stay contiguous, as checkpoints hold them.
    """

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Tensor:
        return inputs.contiguous(memory_format=torch.channels_last)


def _small_resnet(input_shape: tuple[int, ...], feature_dim: int, width: int | None, depth: int | None) -> nn.Module:
    """A stem and three stages of `depth` basic blocks with width, 2 width and 4 width channels.

    The stem (a 4x4 convolution) and the stages from the second on each halve the side. Halving it in the stem makes
    a step 2.5 times cheaper at 16 pixels; in equal time the margins come out higher than at full resolution.
    """
    width, depth = _given("width", width), _given("depth", depth)
    layers: list[nn.Module] = [
        nn.Conv2d(_channels("small_resnet", input_shape), width, 4, stride=2, padding=1, bias=False),
        _ChannelsLast(),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    channels = width
    for stage in range(3):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_BasicBlock(channels, width * 2**stage, stride))
            channels = width * 2**stage
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, feature_dim))
    return _with_he_initialisation(network)


def _mlp(input_shape: tuple[int, ...], feature_dim: int, width: int | None, depth: int | None) -> nn.Module:
    """`depth` hidden layers of `width` units, each a linear map, batch norm and ReLU."""
    width, depth = _given("width", width), _given("depth", depth)
    units = math.prod(input_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(units, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        units = width
    return nn.Sequential(*layers, nn.Linear(units, feature_dim))


def _resnet18(input_shape: tuple[int, ...], feature_dim: int, width: int | None, depth: int | None) -> nn.Module:
    """torchvision's ResNet18 with a stem for small images: a 3x3 convolution, stride 1, no pooling."""
    for name, value in (("width", width), ("depth", depth)):
        if value is not None:
            raise ValueError(f"{name} must be left out for resnet18, got {value!r}. It would have no effect here.")
    network = torchvision.models.resnet18(weights=None, num_classes=feature_dim)
    network.conv1 = nn.Conv2d(_channels("resnet18", input_shape), 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


ENCODERS = {"small_resnet": _small_resnet, "mlp": _mlp, "resnet18": _resnet18}


def make_encoder(
    name: str, *, input_shape: tuple[int, ...], feature_dim: int, width: int | None, depth: int | None
) -> nn.Module:
    """An encoder from `[batch, *input_shape]` to features `[batch, feature_dim]`; the last layer is a linear map.

    Args:
        name: a name in `ENCODERS`.
        input_shape: of one input: (channels, height, width) of an image, or (dim,) of a vector where the encoder
            takes vectors.
        feature_dim: dimension of the features.
        width: channels of the first stage of small_resnet, units of a hidden layer of mlp; None for resnet18.
        depth: blocks in each stage of small_resnet, hidden layers of mlp; None for resnet18.
    Returns:
        The network, initialised from torch's default generator, in training mode.
    Raises:
        ValueError: an unknown name, a shape the encoder cannot take, a number missing, unwanted or below 1.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {sorted(ENCODERS)}, got {name!r}.")
    if feature_dim < 1:
        raise ValueError(f"feature_dim must be at least 1, got {feature_dim!r}.")
    return ENCODERS[name](input_shape, feature_dim, width, depth)


def _given(name: str, value: int | None) -> int:
    if value is None or value < 1:
        raise ValueError(f"{name} must be at least 1 for this encoder, got {value!r}.")
    return value


def _channels(encoder: str, input_shape: tuple[int, ...]) -> int:
    if len(input_shape) != 3:
        raise ValueError(
            f"input_shape must be (channels, height, width) for {encoder}, got {input_shape!r}. "
            f"For vectors use encoder 'mlp'."
        )
    return input_shape[0]


def _with_he_initialisation(network: nn.Module) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network
