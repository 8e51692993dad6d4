"""Encoders by name: networks from inputs to features, each ending in a linear map. Knows torch and torchvision.

`make_encoder` builds one from the settings a study names; the parameters of a constructor are the settings it reads.
`NORM_LAYERS` says which normalization layers an encoder can have, its own first.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision import models

from gnc_models.encoders.free_features import make_unconstrained
from gnc_models.encoders.small import make_mlp, make_small_resnet
from gnc_models.encoders.stages import feature_stages
from gnc_models.encoders.torchvision_networks import make_densenet121, make_mobilenet_v2, make_resnet
from gnc_models.encoders.transformers import make_transformer, make_vit

__all__ = ["ENCODERS", "NORM_LAYERS", "feature_stages", "make_encoder"]

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "small_resnet": make_small_resnet,
    "mlp": make_mlp,
    "resnet18": make_resnet("resnet18", models.resnet18),
    "resnet34": make_resnet("resnet34", models.resnet34),
    "resnet50": make_resnet("resnet50", models.resnet50),
    "resnext50": make_resnet("resnext50", models.resnext50_32x4d),
    "densenet121": make_densenet121,
    "mobilenet_v2": make_mobilenet_v2,
    "vit": make_vit,
    "transformer": make_transformer,
    "unconstrained": make_unconstrained,
}

_ANY = ("batch", "group", "layer", "none")

# Transformers are defined by their layer norms, free features have nothing to normalise.
NORM_LAYERS: dict[str, tuple[str, ...]] = dict.fromkeys(ENCODERS, _ANY) | {
    "vit": ("layer",),
    "transformer": ("layer",),
    "unconstrained": (),
}


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
        norm_layer: a name in `NORM_LAYERS[name]`; None for the first one there.
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
    allowed = NORM_LAYERS[name]
    if norm_layer is None:
        return allowed[0] if allowed else None
    if not allowed:
        raise ValueError(f"norm_layer must be left out for {name}, got {norm_layer!r}. It would have no effect here.")
    if norm_layer not in allowed:
        raise ValueError(f"norm_layer must be one of {list(allowed)} for {name}, got {norm_layer!r}.")
    return norm_layer
