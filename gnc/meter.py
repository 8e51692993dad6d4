"""Collapse from a training loop: statistics of features as they pass, measured against the classifier's rows at any time.
Knows torch, the class statistics and the measures; does not know training frameworks (gnc.adapters does)."""

from collections.abc import Collection, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle

from gnc.library import ArrayLike, Measured, as_floats, as_labels, as_rows, notes_on
from gnc_models.catalog.settings import check_integer, check_kind
from gnc_models.columns import choose, facts_needed
from gnc_models.geometry.margins import Margins, check_tolerance
from gnc_models.metrics.class_statistics import check_labels
from gnc_models.metrics.collapse import Normalization, check_normalization, measure_statistics
from gnc_models.metrics.feature_views import SeenFeatures


class CollapseMeter:
    """Takes features batch by batch and tells collapse without keeping them.

    One matrix of class means and one of the scatter within classes are held, in `dtype`: 8 (K d + d^2) bytes in
    float64. Batches of many samples are taken in small parts, so that nothing else of that size is made. A column that
    needs single samples cannot be told from these matrices: it is refused by name, and `measure` gives it.

    The statistics are of the features that were given. Features taken while the network is trained come from a network
    that changes: they tell more variability than the network at the end of the epoch has."""

    def __init__(
        self, num_classes: int, feature_dim: int, *, columns: Collection[str] | None = None,
        normalization: Normalization = "none", temperature: float | None = None, ignore_index: int = -100,
        device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64, tolerance: float = 1e-6,
    ) -> None:  # fmt: skip
        """A meter that has seen nothing.

        Args:
            num_classes: K, the classifier's rows; classes that are never seen are left out of what needs their mean.
            feature_dim: d, what enters the classifier.
            columns: names of columns or of groups; None: every column that needs neither single samples nor a second
                matrix of means. A column of unit features holds that second matrix, where the head does not scale
                features to unit length.
            normalization, temperature, ignore_index, tolerance: as of `gnc.measure`.
            device: where the statistics are held; features come from any device.
            dtype: torch.float64, or torch.float32 for half the memory: variability below about 1e-13 times the squared
                length of the means is then rounding.
        Raises:
            ValueError: a size, normalization, temperature, device or column that cannot be."""
        check_integer("ignore_index", ignore_index)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, TypeError, AssertionError) as error:  # what torch raises where it lacks the device
            raise ValueError(f"device must be one that torch has here, got {device!r}: {error}") from None
        self.num_classes, self.feature_dim, self.ignore_index = num_classes, feature_dim, ignore_index
        self._tolerance = tolerance
        self._columns = None if columns is None else choose(columns, ["samples"])
        check_normalization(normalization, temperature)
        check_tolerance(tolerance)
        self._normalization, self._temperature = normalization, temperature
        settings = [get_args(Normalization).index(normalization), temperature or 0.0]
        self._settings = torch.tensor(settings, dtype=torch.float64, device=device)
        views = {"unit_features": normalization in ("both", "features")}
        views["holds_sphere"] = "sphere" in facts_needed(self._columns or ())
        self._seen = SeenFeatures(num_classes, feature_dim, **views, device=device, dtype=dtype)
        self._labels: Tensor | None = None
        self._awaited = False  # whether labels were given, be it None, for the next pass of a watched head
        self._solved: Mapping[str, Margins] = {}  # margins of the last compute, to begin the next from

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `compute` gives when it is given rows."""
        return choose(self._columns, ["samples"] if self._seen.sphere is not None else ["samples", "unit features"])

    @property
    def counts(self) -> Tensor:
        """Samples seen of each class, int64 [classes]."""
        return self._seen.head.counts

    def update(self, features: ArrayLike, labels: ArrayLike) -> "CollapseMeter":
        """Take in what enters the head, before any normalization, and the class of each.

        Args:
            features: [..., d]: a batch, or sequences of which every position has a label.
            labels: [...]: integers in 0..K-1, or `ignore_index`.
        Raises:
            ValueError: shapes that do not fit, labels out of range, values that are not finite. The batch is then not
                taken, and all that was taken before stands."""
        found, classes = as_floats("features", features), as_labels("labels", labels)
        if found.ndim < 1 or found.shape[-1] != self.feature_dim or found.shape[:-1] != classes.shape:
            rule = f"features must be [..., {self.feature_dim}] with labels [...], got shapes {tuple(found.shape)} and"
            raise ValueError(f"{rule} {tuple(classes.shape)}. Give what enters the head, and one label for each.")
        found, classes = found.reshape(-1, self.feature_dim), classes.reshape(-1)
        kept = classes != self.ignore_index
        if not bool(kept.all()):
            found, classes = found[kept.to(found.device)], classes[kept]
        check_labels(classes, len(found), self.num_classes)
        if broken := int((~found.isfinite()).any(1).sum()):
            rule = f"features must be finite, got NaN or infinity in {broken} of {len(found)} rows"
            raise ValueError(f"{rule}. The batch is not taken.")
        self._seen.update(found, classes)
        return self

    def watch(self, head: nn.Module) -> RemovableHandle:
        """Take what enters `head` at each forward pass: any module whose first argument is the features.

        Call `labels` before each pass. The handle ends the watch as a context manager or by `remove()`.

        Raises:
            ValueError: the head's weight has another shape than [classes, dim]. A pass without labels raises too."""
        check_kind("head", head, nn.Module, "the module that gives the logits")
        weight = getattr(head, "weight", None)
        if isinstance(weight, Tensor) and tuple(weight.shape) != (self.num_classes, self.feature_dim):
            rule = f"head must have a weight of shape {(self.num_classes, self.feature_dim)}, got {tuple(weight.shape)}"
            cure = "Watch the layer that gives the logits" if weight.ndim == 2 else "Give features to update, dim last"
            raise ValueError(f"{rule}. {cure}.")
        return head.register_forward_pre_hook(self._take, with_kwargs=True)

    def labels(self, labels: ArrayLike | None) -> None:
        """The classes of the samples of the next forward pass of the watched head; None leaves that pass out.

        Raises:
            ValueError: the labels given before have not met a pass yet."""
        if self._awaited:
            cure = "Is the head the one watched? If it is compiled, docs/library.md says how its hooks are called."
            raise ValueError(f"labels must be given once per forward pass, got them twice. {cure}")
        self._labels, self._awaited = None if labels is None else as_labels("labels", labels), True

    def _take(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._awaited:
            cure = "Call meter.labels(y) first, meter.labels(None) for a pass to leave out, or end the watch."
            raise ValueError(f"labels must be given before each forward pass of a watched head, got none. {cure}")
        labels, self._labels, self._awaited = self._labels, None, False
        if labels is not None:
            self.update(entering(args, kwargs), labels)

    def reset(self) -> "CollapseMeter":
        """Forget all samples; the margins found last stay, as a start for the next."""
        self._seen.reset()
        self._labels, self._awaited = None, False
        return self

    def merge(self, other: "CollapseMeter") -> "CollapseMeter":
        """Take in what another meter of the same settings has seen, of other samples.

        Raises:
            ValueError: the same meter, or one of other settings or sizes."""
        check_kind("other", other, CollapseMeter, "another meter")
        if other is self:
            raise ValueError("other must be another meter, got this one. Its samples would count twice.")
        mine, others = ((meter._normalization, meter._temperature) for meter in (self, other))
        if mine != others:
            rule = "meters must have the same normalization and temperature to merge"
            raise ValueError(f"{rule}, got {mine} and {others}.")
        self._seen.merge(other._seen)
        return self

    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> "CollapseMeter":
        """Join what all processes have seen; each then holds the whole. Without torch.distributed nothing happens.

        All processes of the group call it together, once before `reset`: a second call would count samples again.
        Samples that a distributed sampler repeats to fill the last batch are counted as often as they come."""
        if distributed.is_available() and distributed.is_initialized():
            self._seen.all_reduce(group)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """What was seen, as tensors by name, not copied; and `settings`, which says of what head."""
        return {**self._seen.state_dict(), "settings": self._settings}

    def load_state_dict(self, state: Mapping[str, Tensor], *, assign: bool = False) -> "CollapseMeter":
        """Begin again from what a meter of the same settings had seen.

        Args:
            assign: hold these tensors themselves from now on, on their device and unchecked, not copies of them.
        Raises:
            ValueError: the state is broken, or of other sizes, columns, normalization or temperature."""
        check_kind("state", state, Mapping, "what state_dict gave")
        settings = state.get("settings", self._settings)  # a state of an earlier version has none
        if (
            not isinstance(settings, Tensor)
            or settings.shape != (2,)
            or not torch.allclose(settings.to(self._settings), self._settings)
        ):
            rule = f"state must be of a meter of normalization {self._normalization!r}, temperature {self._temperature}"
            raise ValueError(f"{rule}, got that of another head.")
        if assign:
            self._settings = settings
        self._seen.load_state_dict(state, assign=assign)
        return self

    @torch.no_grad()
    def compute(self, weights: ArrayLike | None = None, bias: ArrayLike | None = None) -> Measured:
        """Every column asked for, from all samples seen since the last reset.

        Args:
            weights: the classifier's rows [K, d], before any normalization. None: only columns that need no rows.
            bias: the classifier's bias [K]; it is checked, and no column here depends on it, which `notes` says.
        Returns:
            Values by column; None where a quantity does not exist, such as variability from one sample per class.
        Raises:
            ValueError: fewer than two classes were seen, rows that do not fit or are zero or not finite."""
        rows = None if weights is None else as_rows(weights, self.feature_dim).to(self.counts.device)
        offsets = None if bias is None else as_floats("bias", bias).to(self.counts.device)
        head: dict[str, Any] = {"normalization": self._normalization, "temperature": self._temperature, "bias": offsets}
        asked: dict[str, Any] = {"columns": self._columns, "tolerance": self._tolerance, "warm_starts": self._solved}
        found = measure_statistics(self._seen, rows, **head, **asked)
        self._solved = found.solved
        notes = notes_on(found.values, self.counts, {"weights": weights, "bias": bias})
        if self._labels is not None:
            notes.append("The labels given last have met no forward pass of the watched head: their batch is not in.")
        return Measured(found, notes)


def entering(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What enters a layer: its first argument, or the only tensor among those by name."""
    values = [*args[:1], *kwargs.values()]
    tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    if not tensors:
        raise ValueError(f"head must be called with a tensor of features, got {[type(value) for value in values]}.")
    return tensors[0]
