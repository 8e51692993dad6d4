"""Encoders by name: networks from inputs to features, and the layers at which their collapse can be measured."""

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gnc_models.catalog.members import ENCODERS as MEMBERS
from gnc_models.catalog.members import is_reference, load
from gnc_models.catalog.parts import call_part

PACKAGE = "gnc_models.encoders"
ENCODERS: dict[str, Callable[..., nn.Module]] = {name: load(PACKAGE, m.made_by) for name, m in MEMBERS.items()}


def make_encoder(
    name: str, *, input_shape: tuple[int, ...], feature_dim: int, norm_layer: str | None = None,
    source: str | None = None, options: Mapping[str, Any] | None = None, **counts: int | None,
) -> nn.Module:  # fmt: skip
    """An encoder from `[batch, *input_shape]` to features `[batch, feature_dim]`; the last layer is a linear map.
    Args:
        input_shape: of one input: (channels, height, width) of an image; (dim,) of a vector; (context,) of token ids,
            int64; (1,) of a sample's index, int64.
        norm_layer: one of the catalog's `norm_layers` of the encoder; None for the first one there.
        counts: `width`, `depth`, `num_samples` and `vocabulary`, those that the constructor reads; None: not given.
    Returns:
        The network, initialised from torch's default generator, in training mode."""
    if is_reference(name):
        extras = {setting: value for setting, value in counts.items() if value is not None}
        return call_part("encoder", name, source or "", input_shape, feature_dim, options=options, extras=extras)
    given = {**counts, "norm_layer": norm_layer or next(iter(MEMBERS[name].norm_layers), None)}
    read = inspect.signature(ENCODERS[name]).parameters
    return ENCODERS[name](input_shape, feature_dim, **{s: value for s, value in given.items() if s in read})


def feature_stages(name: str, encoder: nn.Module) -> list[tuple[str, nn.Module]]:
    """Named modules of an encoder, in the order in which a forward pass calls them, each once; the last is "features".
    Outputs are `[batch, channels, height, width]` in networks on images, `[batch, tokens, width]` in transformers (the
    class token is the first one in vit, the causal transformer reads out the last position) and `[batch, units]` in
    mlp. An encoder of one's own names its stages in a method `feature_stages()`. ValueError for one without."""
    if is_reference(name):
        method: Any = getattr(encoder, "feature_stages", None)
        found = method() if callable(method) else None
        if not isinstance(found, list) or not all(map(_is_stage, found)):
            rule = "must have a method feature_stages() that returns a list of pairs (name, module) for layers = 'all'"
            raise ValueError(f"encoder {name} {rule}, got {found!r}. Add it, or set layers = 'none'.")
        return [*found, ("features", encoder)]
    if not MEMBERS[name].stages:
        raise ValueError(f"encoder must have layers, got {name!r}, which has none.")
    inner = (_modules(encoder, *named) for named in MEMBERS[name].stages.items())
    return [*itertools.chain.from_iterable(inner), ("features", encoder)]


def _modules(encoder: nn.Module, name: str, path: str) -> list[tuple[str, nn.Module]]:
    above, several, kind = path.partition("*")
    module = encoder.get_submodule(above.rstrip("."))
    if not several:
        return [(name, module)]
    members = [inner for inner in module.children() if kind in ("", type(inner).__name__)]
    return [(f"{name}{number}", inner) for number, inner in enumerate(members, start=1)]


def _is_stage(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], nn.Module)
