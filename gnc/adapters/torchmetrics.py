"""The meter as a torchmetrics Metric: update with features and labels, compute a value for each column. Class means do not
add up element by element, so the states of processes are gathered (`dist_reduce_fx=None`) and merged in `compute`."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from gnc.adapters.head_meter import COLUMNS
from gnc.meter import CollapseMeter


class CollapseMetric(Metric):
    """Collapse of the features that enter a head, for whoever logs metrics through torchmetrics.

    `forward` takes a batch and gives None: of one batch alone most columns do not exist. A synchronised metric holds
    the statistics of every process for a moment; `gnc.CollapseMeter.all_reduce` needs one alone."""

    full_state_update = False
    is_differentiable = False

    def __init__(
        self, head: nn.Module | Callable[[], Tensor], *, columns: Collection[str] | None = COLUMNS,
        sync: dict[str, Any] | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        """A metric that has seen nothing.

        Args:
            head: the module whose `weight` holds the classifier's rows [classes, dim], or a function that gives them.
            columns: names of columns or groups; None: all that a meter can tell.
            sync: further keyword arguments of `torchmetrics.Metric`.
            settings: further ones of `gnc.CollapseMeter`: normalization, temperature, ignore_index, dtype."""
        super().__init__(**(sync or {}))
        self._rows = _Rows(head)
        self._make = partial(CollapseMeter, *self._rows().shape, columns=columns, **settings)
        self._meter = self._make()
        for name, held in self._meter.state_dict().items():
            self.add_state(name.replace(".", "_"), held.clone(), dist_reduce_fx=None)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in a batch, as `gnc.CollapseMeter.update`."""
        self._meter.load_state_dict(self._states(), assign=True).update(features, labels)
        for name, value in self._meter.state_dict().items():
            setattr(self, name.replace(".", "_"), value)

    def compute(self) -> dict[str, Tensor]:
        """A value for each column that exists here, of all processes."""
        states = self._states()
        gathered = states["head.means"].ndim == 3  # one state for each process
        count = len(states["head.means"]) if gathered else 0
        first, *others = [{name: held[i] for name, held in states.items()} for i in range(count)] or [states]
        self._meter.load_state_dict(first, assign=True)
        for other in others:
            self._meter.merge(self._make().load_state_dict(other, assign=True))
        found = self._meter.compute(self._rows())
        return {name: torch.tensor(value) for name, value in found.items() if value is not None}

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """The same as `update`."""
        self.update(*args, **kwargs)

    def _states(self) -> dict[str, Tensor]:
        return {name: getattr(self, name.replace(".", "_")) for name in self._meter.state_dict()}


class _Rows:
    """Gives the head's rows. A copy of the metric reads the same head, whose parameters are not the metric's."""

    def __init__(self, head: nn.Module | Callable[[], Tensor]) -> None:
        self._head = head

    def __call__(self) -> Tensor:
        rows = getattr(self._head, "weight", None) if isinstance(self._head, nn.Module) else self._head()
        if not isinstance(rows, Tensor) or rows.ndim != 2:
            raise ValueError(f"head must have a weight of rows [classes, dim], got {type(rows).__name__}.")
        return rows

    def __deepcopy__(self, memo: object) -> "_Rows":
        return self
