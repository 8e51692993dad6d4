"""A meter on the head of a model that a framework trains: finds the head, pairs features and labels, joins processes.
Knows torch and the meter; does not know any framework."""

import difflib
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, distributed, nn

from gnc.library import as_labels
from gnc.meter import CollapseMeter, entering

# What is cheap beside an epoch of training and tells variability, separation and duality.
COLUMNS = ("gnc1_rank", "gnc1_quotient", "minimum", "gnc3", "gnc3_uncentred")
USUAL_HEADS = ("lm_head", "classifier", "head", "heads", "fc", "score", "output")


def find_head(model: nn.Module, name: str | None) -> nn.Module:
    """The module of this name, or whose name ends with it; without a name, the only one with a usual name.

    Raises:
        ValueError: none or several are meant; the message lists the modules that have a matrix of rows.
        TypeError: the name is no text."""
    if not isinstance(name, str | None):
        raise TypeError(f"head must be the name of a module, such as 'fc', got {type(name).__name__}.")
    heads = {path: module for path, module in model.named_modules() if _rows(module) is not None}
    if name is None:
        found = [path for path in heads if path.rpartition(".")[2] in USUAL_HEADS]
    else:
        found = [name] if name in heads else [path for path in heads if path.endswith(f".{name}")]
    if len(found) == 1:
        return heads[found[0]]
    near = difflib.get_close_matches(name or "", heads, n=1)
    listed, meant = ", ".join(list(heads)[-5:]) or "none", f" Did you mean {near[0]!r}?" if near else ""
    rule = f"head must name one module with a matrix of classifier rows, got {name!r}, which means {len(found)}"
    raise ValueError(f"{rule}. The last such modules are {listed}.{meant}")


def _rows(module: nn.Module) -> Tensor | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.ndim == 2 else None


class HeadMeter:
    """Takes what enters the head for each batch whose labels are expected, and tells at the end of an epoch."""

    def __init__(self, model: nn.Module, head: str | None, columns: Collection[str] | None, **settings: Any) -> None:
        self._head = find_head(model, head)
        rows = _rows(self._head)
        assert rows is not None, "a head was found by its rows"
        self._meter = CollapseMeter(*rows.shape, columns=columns, **settings)
        self._labels: Tensor | None = None
        self._problem: str | None = None  # why what was seen since the last epoch is no measurement
        self._handle = self._head.register_forward_pre_hook(self._take, with_kwargs=True)

    def expect(self, find: Callable[[], Any]) -> None:
        """The labels of the batch whose features enter the head next."""
        self._guard(lambda: setattr(self, "_labels", as_labels("labels", find())))

    def forget(self) -> None:
        """End of the batch: what enters the head from now on belongs to no labels."""
        self._labels = None

    def _take(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        labels, self._labels = self._labels, None
        if labels is not None:
            self._guard(lambda: self._meter.update(entering(args, kwargs), labels))

    def _guard(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here, training goes on
            self._problem = str(error) if isinstance(error, ValueError | TypeError) else repr(error)

    def tell(self) -> dict[str, float]:
        """The columns over all processes that exist, the same on each; none, with a warning, if a batch could not be taken.

        All processes call it together, and the first one computes. What was seen is then forgotten."""
        problem = next(filter(None, _everyone(self._problem)), None)
        found: dict[str, float] = {}
        if problem is None:
            self._meter.all_reduce()
            if _is_first():
                self._guard(lambda: found.update(self._measured()))
            problem, found = _everyone((self._problem, found))[0]
        if problem is not None and _is_first():
            warnings.warn(f"Collapse was not measured in this epoch: {problem}", stacklevel=2)
        self._meter.reset()
        self._problem = None
        return found

    def _measured(self) -> dict[str, float]:
        if not bool(self._meter.counts.any()):
            raise ValueError("no features entered the head with labels. Does the model call this module?")
        bias = getattr(self._head, "bias", None)
        found = self._meter.compute(_rows(self._head), bias if isinstance(bias, Tensor) else None)
        return {name: value for name, value in found.items() if value is not None}

    def remove(self) -> None:
        """No more features are taken."""
        self._handle.remove()


def _is_first() -> bool:
    return not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0


def _everyone(value: Any) -> list[Any]:
    if not distributed.is_available() or not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
