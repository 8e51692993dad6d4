"""What networks are built of: normalization layers by name, and what keeps a network stable without them; what is asked of the
shape of inputs, and how a width is divided. Knows torch; no network."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_SIDE = 8  # pixels: every convolutional encoder reduces the side by this factor


class ChannelOffset(nn.Module):
    """Adds a learned number to each channel, under the name `bias` of the normalization layer that it replaces."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: Float[Tensor, "batch channels *map"]) -> Float[Tensor, "batch channels *map"]:
        return inputs + self.bias.view(-1, *[1] * (inputs.dim() - 2))


VECTOR_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    # of at least 8 channels each, so that a group has something to average where a map is one pixel
    "group": lambda channels: nn.GroupNorm(even_parts(channels, least=8, most=32), channels),
    "layer": nn.LayerNorm,
    "none": ChannelOffset,
}
MAP_NORMS = {**VECTOR_NORMS, "batch": nn.BatchNorm2d, "layer": lambda channels: nn.GroupNorm(1, channels)}


def exchange_layers(network: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    """Put `make(layer)` in the place of every layer of this kind below a network, under the same name."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, kind):
                setattr(parent, name, make(layer))


@torch.no_grad()
def initialise_plain(layers: Iterable[nn.Module], branch_ends: Iterable[nn.Module] = ()) -> None:
    """Draw `layers` anew, so that features keep their scale from layer to layer although nothing normalises them.
    He's rule by fan-in keeps the mean square of what passes a layer and a ReLU. A sum of n residual branches would grow
    it by 2^n, so the layers in `branch_ends`, with which the branches end, are scaled by n^(-1/2).
    Source: He et al., arXiv 1502.01852; De and Smith, arXiv 2002.10444 (residual branches)."""
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    ends = list(branch_ends)
    for layer in ends:
        layer.weight *= len(ends) ** -0.5


def image_shape(encoder: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width; ValueError for another shape, or a side that halvings would leave without a pixel."""
    if len(input_shape) != 3:
        rule = f"input_shape must be (channels, height, width) for {encoder}"
        raise ValueError(f"{rule}, got {input_shape!r}. For vectors use encoder 'mlp'.")
    channels, height, width = input_shape
    if min(height, width) < SMALLEST_SIDE:
        rule = f"input_shape must have at least {SMALLEST_SIDE} pixels per side for {encoder}, got {input_shape!r}"
        raise ValueError(f"{rule}. It is halved three times; use a larger resolution or encoder 'mlp'.")
    return channels, height, width


def sequence_length(encoder: str, input_shape: tuple[int, ...]) -> int:
    """The length of inputs that are one row of integers; ValueError for another shape."""
    if len(input_shape) != 1:
        raise ValueError(f"input_shape must be (length,) for {encoder}, got {input_shape!r}. Its inputs are integers.")
    return input_shape[0]


def even_parts(size: int, *, least: int, most: int) -> int:
    """Into how many equal parts `size` falls: as many as divide it, none below `least`, at most `most`; or one."""
    return max((n for n in range(1, most + 1) if size % n == 0 and size // n >= least), default=1)
