"""Collapse in Lightning's log: a callback that finds the head by name and logs through the trainer of either package."""

import sys
import warnings
from collections.abc import Callable, Collection
from functools import partialmethod
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from gnc.adapters.head_meter import COLUMNS, HeadMeter


def _bases() -> tuple[type, ...]:
    """Callback of the packages that are in use, else of the one that is installed: each trainer wants its own."""
    names = ("lightning.pytorch", "pytorch_lightning")
    used = [name for name in names if name in sys.modules]
    installed = [name for name in names if find_spec(name.partition(".")[0])] or names
    return tuple(import_module(name).Callback for name in used or installed[:1])


class CollapseCallback(*_bases()):  # type: ignore[misc]
    """Measures collapse at the end of each epoch and logs it as `collapse/NAME`, also under DDP.
    With stage "train" the features are those that training makes on its way, at no cost of a pass of its own, from a
    network that changes during the epoch. With "validate" they come from the validation loop, one network throughout."""

    def __init__(
        self, head: str | None = None, *, columns: Collection[str] | None = COLUMNS,
        stage: Literal["train", "validate"] = "train", labels: Callable[[Any], Any] | None = None,
        prefix: str = "collapse/", **settings: Any,
    ) -> None:  # fmt: skip
        """A callback for `Trainer(callbacks=[...])`.

        Args:
            head: name of the module that gives the logits, as in the LightningModule or its end; None: the only one
                with a usual name, such as `fc` or `classifier`.
            columns: names of columns or groups; None: all that a meter can tell. Margins of many classes take long.
            stage: whose batches are taken, "train" or "validate".
            labels: from a batch to its labels; None: entry "labels", "label", "target" or "y", or the second element.
            prefix: of the names in the log.
            settings: further ones of `gnc.CollapseMeter`: normalization, temperature, ignore_index, device, dtype.
        Raises:
            ValueError: an unknown stage; at the start of fitting, a head that is not found."""
        super().__init__()
        if stage not in ("train", "validate"):
            raise ValueError(f"stage must be 'train' or 'validate', got {stage!r}.")
        self._head, self._columns, self._stage, self._settings = head, columns, stage, settings
        self._labels, self._prefix = labels or labels_of, prefix
        self._meter: HeadMeter | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._has_ended = False
        self._meter = HeadMeter(pl_module, self._head, self._columns, **self._settings)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self._meter is None:  # trainer.validate without a fit
            self.on_fit_start(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._meter is not None:
            self._meter.remove()
            self._meter = None
            if not self._has_ended and stage in ("fit", self._stage):
                warnings.warn(f"Collapse was never measured: no epoch to {self._stage} ended.", stacklevel=2)

    def _begin(self, stage: str, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        if self._meter is not None and stage == self._stage and not trainer.sanity_checking:
            self._meter.expect(lambda: self._labels(batch))

    def _forget(self, *_: Any) -> None:
        if self._meter is not None:
            self._meter.forget()

    def _end(self, stage: str, trainer: Any, pl_module: Any) -> None:
        if self._meter is not None and stage == self._stage and not trainer.sanity_checking:
            self._has_ended = True
            for name, value in self._meter.tell().items():
                pl_module.log(f"{self._prefix}{name}", value, on_step=False, on_epoch=True, sync_dist=False)

    on_train_batch_start = partialmethod(_begin, "train")
    on_validation_batch_start = partialmethod(_begin, "validate")
    on_train_batch_end = on_validation_batch_end = _forget
    on_train_epoch_end = partialmethod(_end, "train")
    on_validation_epoch_end = partialmethod(_end, "validate")


def labels_of(batch: Any) -> Any:
    """Where a batch usually has its labels.

    Raises:
        ValueError: neither an entry with a usual name nor a second element."""
    for name in ("labels", "label", "target", "targets", "y"):
        if hasattr(batch, "keys") and name in batch:
            return batch[name]
    if isinstance(batch, list | tuple) and len(batch) > 1:
        return batch[1]
    raise ValueError(f"batch must hold labels, got {type(batch).__name__} without. Give labels=lambda batch: ...")
