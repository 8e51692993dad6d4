"""What features are seen of: their statistics, held without the samples, and a view of the samples themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, distributed

from gnc_models.geometry.pairwise import tiles, unit
from gnc_models.metrics.class_statistics import ClassStatistics, MeanResiduals
from gnc_models.shapes import Float, Int


class SeenFeatures:
    """Statistics of features as the head sees them, batch by batch; of unit features beside them where they are needed.
    head: statistics as the head sees them, with the norms before any normalization. sphere: of unit length: the same
    object as `head` where the head scales to it, else without scatter, or None."""

    def __init__(
        self, num_classes: int, feature_dim: int, *, unit_features: bool, holds_sphere: bool,
        holds_scatter: bool = True, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        make = partial(ClassStatistics, num_classes, feature_dim, device, dtype=dtype)
        self.unit_features, self.head = unit_features, make(holds_scatter=holds_scatter)
        self.sphere = self.head if unit_features else make(holds_scatter=False) if holds_sphere else None

    def update(self, features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"]) -> "SeenFeatures":
        """Take in a batch, part by part: what is made on the way stays small beside the statistics."""
        device = self.head.means.device
        order = labels.argsort(stable=True)  # so that a class is met in one part, and few classes are in each
        for tile in tiles(len(features), features.shape[1]):
            here = order[tile]
            part, classes = features[here.to(features.device)].to(device).to(torch.float64), labels[here].to(device)
            norms = part.norm(dim=1)
            self.head.update(unit(part) if self.unit_features else part, classes, norms=norms)
            if self.sphere is not None and self.sphere is not self.head:
                self.sphere.update(unit(part), classes, norms=norms)
        return self

    def merge(self, other: "SeenFeatures") -> "SeenFeatures":
        """Take in what another has seen of other samples; ValueError for one of other settings or sizes."""
        mine, others = self._parts(), other._parts()
        if self.unit_features != other.unit_features or set(mine) != set(others):
            raise ValueError("meters must have the same normalization and columns to merge, got different ones.")
        for name, part in mine.items():
            part.merge(others[name])
        return self

    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> "SeenFeatures":
        """Join what all processes of the group have seen; each then holds the whole."""
        for part in self._parts().values():
            part.all_reduce(group)
        return self

    def reset(self) -> None:
        for part in self._parts().values():
            for tensor in part.state_dict().values():
                tensor.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """All that was seen, as tensors by name; not copied."""
        parts = self._parts().items()
        return {f"{name}.{key}": value for name, part in parts for key, value in part.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Begin again from a state; ValueError where a part is missing or of another size."""
        for name, part in self._parts().items():
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            part.load_state_dict(own, assign=assign)

    def _parts(self) -> dict[str, ClassStatistics]:
        found = {"head": self.head}
        if self.sphere is not None and self.sphere is not self.head:
            found["sphere"] = self.sphere
        return found

    def present(self, absent_classes: bool) -> Int[Tensor, " present"]:
        """The classes with samples, in order; ValueError where they are fewer than two, or not all and must be."""
        if not absent_classes:
            self.head.check_every_class()
        found = self.head.counts.nonzero()[:, 0]
        if len(found) < 2:
            raise ValueError(f"labels must name at least 2 classes, got {len(found)}. One class has no others.")
        return found


@dataclass(frozen=True)
class View:
    """The features and labels of a measurement that has them, for the columns of single samples."""

    features: Float[Tensor, "samples dim"]  # of the samples that count
    labels: Int[Tensor, " samples"]
    num_classes: int
    classes: Int[Tensor, " present"]  # that have a sample that counts, in order: rows of the statistics
    unit_features: bool  # whether the head scales features to unit length

    @cached_property
    def places(self) -> Int[Tensor, " classes"]:
        """Of each class that is present, its row in the statistics."""
        places = torch.zeros(self.num_classes, dtype=torch.int64, device=self.labels.device)
        places[self.classes] = torch.arange(len(self.classes), device=self.labels.device)
        return places

    def as_head_sees(self, features: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
        """Features scaled to unit length if the head does so, in float64."""
        return unit(features) if self.unit_features else features.to(torch.float64)

    def mean_errors(self, means: Float[Tensor, "present dim"]) -> Float[Tensor, " present"]:
        """How far these means may be from the exact ones of what `as_head_sees` gives."""
        residuals = MeanResiduals(means)
        for tile in tiles(len(self.features), self.features.shape[1]):
            residuals.update(self.as_head_sees(self.features[tile]), self.places[self.labels[tile]])
        return residuals.bound()
