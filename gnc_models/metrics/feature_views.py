"""Training features as they are, of unit length, and as the head sees them, with the statistics of each.

Knows class statistics and normalizations; does not know margins or columns.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnc_models.geometry.pairwise import tiles, unit
from gnc_models.metrics.class_statistics import ClassStatistics

Values = dict[str, float | None]


class View:
    """The features and labels that a measurement is made of.

    Attributes:
        features, labels: of the samples that count.
        sample_counts: training samples of every class, also of samples that do not count.
        classes: the classes that have a sample that counts, in order; rows of the statistics.
        raw, unit, head: statistics of the features as they are, of unit length, and as the head sees them.
    """

    def __init__(
        self,
        features: Float[Tensor, "samples dim"],
        labels: Int[Tensor, " samples"],
        num_classes: int,
        normalization: str,
        *,
        counted: Bool[Tensor, " samples"] | None = None,
        absent_classes: bool = False,
    ) -> None:
        self.sample_counts = torch.bincount(labels, minlength=num_classes)
        if counted is not None:
            features, labels = features[counted], labels[counted]
        self.features, self.labels, self.num_classes = features, labels, num_classes
        self.unit_features = normalization in ("both", "features")
        self.unit_weights = normalization in ("both", "weights")
        self.classes = self._present_classes(absent_classes)
        self.places = torch.zeros(num_classes, dtype=torch.int64, device=labels.device)
        self.places[self.classes] = torch.arange(len(self.classes), device=labels.device)
        self.raw, self.unit = (ClassStatistics(len(self.classes), features.shape[1], features.device) for _ in range(2))
        for tile in tiles(len(features), features.shape[1]):
            self.raw.update(features[tile], self.places[labels[tile]])
            self.unit.update(unit(features[tile]), self.places[labels[tile]])
        self.head = self.unit if self.unit_features else self.raw

    def _present_classes(self, absent_classes: bool) -> Int[Tensor, " present"]:
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        if not absent_classes:
            seen = ClassStatistics(self.num_classes, 1)
            seen.counts = counts
            seen.check_every_class()
        present = counts.nonzero()[:, 0]
        if len(present) < 2:
            raise ValueError(f"labels must name at least 2 classes, got {len(present)}. One class has no others.")
        return present

    @property
    def all_present(self) -> bool:
        """Whether every class has a sample that counts."""
        return len(self.classes) == self.num_classes

    def as_head_sees(self, features: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
        """Features scaled to unit length if the head does so, in float64."""
        return unit(features) if self.unit_features else features.to(torch.float64)

    def class_means(self) -> Float[Tensor, "classes dim"]:
        """Means of all classes as the head sees them; NaN for a class without samples that count."""
        means = self.head.means.new_full((self.num_classes, self.head.means.shape[1]), torch.nan)
        means[self.classes] = self.head.means
        return means


def finite(value: float) -> float | None:
    """The value, or None where it does not exist."""
    return value if math.isfinite(value) else None
