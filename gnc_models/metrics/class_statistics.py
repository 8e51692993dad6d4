"""Per-class statistics of features in one pass: counts, means, scatter and norms, mergeable and in float64.

Knows torch; does not know classifiers, metrics or where features come from. Memory is O(classes x dim + dim^2).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed


class ClassStatistics:
    """Counts, means and within-class scatter of features seen so far.

    Batches and other statistics join by Chan's update, which adds squared deviations from each part's own means and
    the spread between these means. A sum of squares minus a square of sums would lose every digit of a within-class
    variance 1e-16 times the squared norm. `all_reduce` joins the statistics of several processes.

    Attributes:
        counts: samples of each class, int64.
        means: mean feature of each class, 0 for a class without samples.
        square_deviations: sum over a class's samples of `|h - mean|^2`.
        scatter: sum over all samples of `(h - mean)(h - mean)^T`, pooled over classes.
        norm_mean, norm_square_deviation: mean of `|h|` over all samples, and the sum of squared deviations from it.
    Source: Chan, Golub and LeVeque, The American Statistician 37 (1983).
    """

    def __init__(self, num_classes: int, feature_dim: int, device: torch.device | str = "cpu") -> None:
        if num_classes < 1 or feature_dim < 1:
            raise ValueError(f"num_classes and feature_dim must be at least 1, got {(num_classes, feature_dim)!r}.")
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.means = torch.zeros(num_classes, feature_dim, dtype=torch.float64, device=device)
        self.square_deviations = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(feature_dim, feature_dim, dtype=torch.float64, device=device)
        self.norm_mean = torch.zeros((), dtype=torch.float64, device=device)
        self.norm_square_deviation = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"]) -> "ClassStatistics":
        """Take in a batch; features of any floating type are converted to float64.

        Raises:
            ValueError: another feature dimension, as many labels as features missing, or labels outside 0..classes-1.
        """
        num_classes, feature_dim = self.means.shape
        if features.ndim != 2 or features.shape[1] != feature_dim:
            raise ValueError(f"features must have {feature_dim} columns, got shape {tuple(features.shape)}.")
        check_labels(labels, len(features), num_classes)
        if not len(features):
            return self
        # a batch that names few of many classes must not cost as much as all of them
        few = len(features) * 8 < num_classes
        named, places = labels.unique(return_inverse=True) if few else (None, labels)
        size = num_classes if named is None else len(named)
        return self.merge(_of_batch(features.to(torch.float64), places, size), rows=named)

    def merge(self, other: "ClassStatistics", *, rows: Int[Tensor, " named"] | None = None) -> "ClassStatistics":
        """Take in statistics of other samples of the same classes, or of those classes that `rows` names.

        Raises:
            ValueError: another number of classes or another feature dimension.
        """
        size = len(self.means) if rows is None else len(rows)
        if other.means.shape != (size, self.means.shape[1]):
            raise ValueError(
                f"statistics must have the same classes and dimension to merge, "
                f"got {(size, self.means.shape[1])} and {tuple(other.means.shape)}."
            )
        at = slice(None) if rows is None else rows
        seen, joined = self.num_samples, other.num_samples
        if joined:
            shift = other.norm_mean - self.norm_mean
            self.norm_square_deviation = (
                self.norm_square_deviation + other.norm_square_deviation + shift**2 * (seen * joined / (seen + joined))
            )
            self.norm_mean = self.norm_mean + shift * (joined / (seen + joined))
        counts, means = self.counts[at], self.means[at]
        # integers divided by integers would be float32
        share = other.counts.to(torch.float64) / (counts + other.counts).clamp_min(1)
        between = other.means - means
        weight = counts * share
        self.square_deviations[at] = (
            self.square_deviations[at] + other.square_deviations + weight * between.square().sum(1)
        )
        between_scaled = between * weight.sqrt().unsqueeze(1)
        self.scatter = self.scatter + other.scatter + between_scaled.T @ between_scaled
        self.means[at] = means + between * share.unsqueeze(1)
        self.counts[at] = counts + other.counts
        return self

    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> "ClassStatistics":
        """Merge the statistics of all workers of a process group; every worker ends with those of all samples.

        Two sums over the workers, of O(classes x dim + dim^2) numbers: first counts and means, then each worker's
        deviations with the spread of its means about the common ones. Workers agree bit for bit.
        """
        counts, sums = self.counts.clone(), self.means * self.counts.unsqueeze(1)
        norms = torch.stack([self.norm_mean * self.num_samples, torch.zeros_like(self.norm_mean) + self.num_samples])
        for tensor in (counts, sums, norms):
            distributed.all_reduce(tensor, group=group)
        means = sums / counts.clamp_min(1).unsqueeze(1)
        norm_mean = norms[0] / norms[1].clamp_min(1)
        shift = self.means - means
        weighted = shift * self.counts.to(torch.float64).sqrt().unsqueeze(1)
        squares = self.square_deviations + self.counts * shift.square().sum(1)
        scatter = self.scatter + weighted.T @ weighted
        norm_square = self.norm_square_deviation + self.num_samples * (self.norm_mean - norm_mean) ** 2
        for tensor in (squares, scatter, norm_square):
            distributed.all_reduce(tensor, group=group)
        self.counts, self.means, self.square_deviations, self.scatter = counts, means, squares, scatter
        self.norm_mean, self.norm_square_deviation = norm_mean, norm_square
        return self

    @property
    def num_samples(self) -> int:
        """Samples seen so far, of all classes."""
        return int(self.counts.sum())

    @property
    def has_spread(self) -> bool:
        """Whether any class has two samples: with one each, variability is unknown, not zero."""
        return bool((self.counts > 1).any())

    @property
    def variances(self) -> Float[Tensor, " classes"]:
        """Mean of `|h - mean|^2` over each class's samples; 0 for a class without samples."""
        return self.square_deviations / self.counts.clamp_min(1)

    @property
    def within_covariance(self) -> Float[Tensor, "dim dim"]:
        """Sigma_W: average over all samples of `(h - mean)(h - mean)^T`."""
        return self.scatter / max(1, self.num_samples)

    @property
    def centred_means(self) -> Float[Tensor, "classes dim"]:
        """Class means minus their average, each class with equal weight."""
        return self.means - self.means.mean(0)

    @property
    def between_covariance(self) -> Float[Tensor, "dim dim"]:
        """Sigma_B: average over classes of `(mean - average)(mean - average)^T`."""
        centred = self.centred_means
        return centred.T @ centred / len(centred)

    def check_every_class(self) -> None:
        """ValueError unless every class has a sample."""
        empty = (self.counts == 0).nonzero()[:, 0].tolist()
        if empty:
            shown = ", ".join(map(str, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
            raise ValueError(
                f"labels must name every class at least once, got none of {len(empty)} classes: {shown}. "
                "Leave these classes' rows out, or give them samples."
            )


def _of_batch(
    features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"], num_classes: int
) -> ClassStatistics:
    """Statistics of one batch of float64 features, by two passes."""
    batch = ClassStatistics(num_classes, features.shape[1], features.device)
    batch.counts = torch.bincount(labels, minlength=num_classes)
    batch.means.index_add_(0, labels, features).div_(batch.counts.clamp_min(1).unsqueeze(1))
    deviations = features - batch.means[labels]
    # the mean of a batch is itself rounded: without this step noise below 1e-14 would be noise of the mean
    correction = torch.zeros_like(batch.means).index_add_(0, labels, deviations)
    batch.means += correction / batch.counts.clamp_min(1).unsqueeze(1)
    deviations = features - batch.means[labels]
    batch.square_deviations.index_add_(0, labels, deviations.square().sum(1))
    batch.scatter = deviations.T @ deviations
    norms = features.norm(dim=1)
    batch.norm_mean = norms.mean()
    batch.norm_square_deviation = (norms - batch.norm_mean).square().sum()
    return batch


def check_labels(labels: Tensor, num_samples: int, num_classes: int) -> None:
    """ValueError unless there is one integer label in 0..num_classes-1 for each sample."""
    if labels.shape != (num_samples,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be {num_samples} integers, one per sample, got shape {tuple(labels.shape)} of {labels.dtype}."
        )
    if num_samples and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        outside = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ValueError(f"labels must be in 0..{num_classes - 1}, got {outside!r}.")
