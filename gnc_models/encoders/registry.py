"""Encoders by name: networks from inputs to features, each ending in a linear map. Knows torch and torchvision.

`make_encoder` builds one from the settings a study names; the parameters of a constructor are the settings it reads.
`feature_stages` gives the layers of one at which collapse can be measured.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from gnc_models.catalog.members import ENCODERS as MEMBERS
from gnc_models.catalog.members import load

PACKAGE = "gnc_models.encoders"
ENCODERS: dict[str, Callable[..., nn.Module]] = {name: load(PACKAGE, m.made_by) for name, m in MEMBERS.items()}


def make_encoder(
    name: str,
    *,
    input_shape: tuple[int, ...],
    feature_dim: int,
    width: int | None = None,
    depth: int | None = None,
    norm_layer: str | None = None,
    num_samples: int | None = None,
    vocabulary: int | None = None,
) -> nn.Module:
    """An encoder from `[batch, *input_shape]` to features `[batch, feature_dim]`; the last layer is a linear map.

    Args:
        name: a name in `ENCODERS`.
        input_shape: of one input: (channels, height, width) of an image; (dim,) of a vector for mlp; (context,) of
            token ids, int64, for transformer; (1,) of a sample's index, int64, for unconstrained.
        feature_dim: dimension of the features.
        width: channels of the first stage of small_resnet, units of a layer of mlp, vit and transformer; None for
            the others.
        depth: blocks in each stage of small_resnet, hidden layers of mlp, blocks of vit and transformer; None for
            the others.
        norm_layer: one of the catalog's `norm_layers` of the encoder; None for the first one there.
        num_samples: training samples, for unconstrained and only there.
        vocabulary: number of tokens, for transformer and only there.
    Returns:
        The network, initialised from torch's default generator, in training mode.
    Raises:
        ValueError: an unknown name, a shape the encoder cannot take, a setting missing, unwanted or out of range.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {sorted(ENCODERS)}, got {name!r}.")
    if feature_dim < 1:
        raise ValueError(f"feature_dim must be at least 1, got {feature_dim!r}.")
    counts = {"width": width, "depth": depth, "num_samples": num_samples, "vocabulary": vocabulary}
    settings: dict[str, Any] = counts | {"norm_layer": _norm_layer(name, norm_layer)}
    read = inspect.signature(ENCODERS[name]).parameters
    for setting, value in counts.items():
        _check_count(name, setting, value, is_read=setting in read)
    return ENCODERS[name](input_shape, feature_dim, **{key: settings[key] for key in settings if key in read})


def _check_count(name: str, setting: str, value: int | None, *, is_read: bool) -> None:
    if is_read and (value is None or value < 1):
        raise ValueError(f"{setting} must be at least 1 for this encoder, got {value!r}.")
    if value is not None and not is_read:
        raise ValueError(f"{setting} must be left out for {name}, got {value!r}. It would have no effect here.")


def _norm_layer(name: str, norm_layer: str | None) -> str | None:
    allowed = MEMBERS[name].norm_layers
    if norm_layer is None:
        return allowed[0] if allowed else None
    if not allowed:
        raise ValueError(f"norm_layer must be left out for {name}, got {norm_layer!r}. It would have no effect here.")
    if norm_layer not in allowed:
        raise ValueError(f"norm_layer must be one of {list(allowed)} for {name}, got {norm_layer!r}.")
    return norm_layer


def feature_stages(name: str, encoder: nn.Module) -> list[tuple[str, nn.Module]]:
    """Named modules of an encoder, from input to output, whose outputs are its successive representations.

    An output is `[batch, channels, height, width]` in networks on images, `[batch, tokens, width]` in transformers
    (the class token is the first one in vit, which has it from its blocks on; the last position is what the causal
    transformer reads out) and `[batch, units]` in mlp. The last stage, named "features", is the encoder's own output.

    Args:
        name: a name in `ENCODERS`.
        encoder: what `make_encoder` returned for it.
    Returns:
        (name, module) in the order in which a forward pass calls them, each once.
    Raises:
        ValueError: an encoder without layers.
    """
    if not MEMBERS[name].stages:
        raise ValueError(f"encoder must have layers, got {name!r}, which has none.")
    stages: list[tuple[str, nn.Module]] = load(PACKAGE, MEMBERS[name].stages)(encoder)
    return stages
