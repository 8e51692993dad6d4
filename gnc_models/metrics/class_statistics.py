"""Per-class statistics of features in one pass: counts, means, scatter and norms, mergeable.
Knows torch. Memory is O(classes x dim + dim^2), and on the way a few blocks of BLOCK_ENTRIES numbers."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, distributed

from gnc_models.catalog.settings import check_at_least, shown
from gnc_models.geometry.pairwise import EPS, tiles
from gnc_models.shapes import Float, Int

BLOCK_ENTRIES = 1 << 22  # of the means that are handled at once: 32 MiB in float64


class ClassStatistics:
    """Counts, means and within-class scatter of features seen so far.
    Batches and other statistics join by Chan's update, which adds squared deviations from each part's own means and
    the spread between these means: a sum of squares minus a square of sums would lose every digit under collapse.
    Attributes:
        counts: samples of each class, int64.
        means: mean feature of each class, 0 for a class without samples.
        square_deviations: sum over a class's samples of `|h - mean|^2`.
        scatter: sum over all samples of `(h - mean)(h - mean)^T`, pooled over classes.
        mean_errors: a bound of how far each mean may be from the exact mean of its class's samples.
        norm_mean, norm_square_deviation: mean of `|h|` over all samples, and the sum of squared deviations from it.
    Source: Chan, Golub and LeVeque, The American Statistician 37 (1983)."""

    PARTS = ("counts", "means", "square_deviations", "mean_errors", "scatter", "norm_mean", "norm_square_deviation")

    @torch.inference_mode(False)  # tensors made within it could not be written to outside
    def __init__(
        self, num_classes: int, feature_dim: int, device: torch.device | str = "cpu", *,
        dtype: torch.dtype = torch.float64, holds_scatter: bool = True,
    ) -> None:  # fmt: skip
        """Of no samples. Without `scatter` updates take a tenth of the time in many dimensions; sums are float64."""
        check_at_least(1, num_classes=num_classes, feature_dim=feature_dim)
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype!r}.")
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.means = torch.zeros(num_classes, feature_dim, dtype=dtype, device=device)
        self.square_deviations = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.mean_errors = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.scatter = torch.zeros([feature_dim * holds_scatter] * 2, dtype=dtype, device=device)
        self.norm_mean = torch.zeros((), dtype=torch.float64, device=device)
        self.norm_square_deviation = torch.zeros((), dtype=torch.float64, device=device)

    def update(
        self, features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"], *,
        norms: Float[Tensor, " samples"] | None = None,
    ) -> "ClassStatistics":  # fmt: skip
        """Take in a batch; `norms` are lengths of the features where those before a normalization are meant."""
        num_classes, feature_dim = self.means.shape
        if features.ndim != 2 or features.shape[1] != feature_dim:
            raise ValueError(f"features must have {feature_dim} columns, got shape {tuple(features.shape)}.")
        check_labels(labels, len(features), num_classes)
        if not len(features):
            return self
        # a batch that names few of many classes must not cost as much as all of them
        named, places = labels.unique(return_inverse=True)
        batch, deviations = _of_batch(features.to(torch.float64), places, len(named), norms)
        # a single sample is its own mean
        _add_products(self.scatter, deviations[(batch.counts > 1)[places]])
        return self.merge(batch, rows=named)

    def merge(self, other: "ClassStatistics", *, rows: Int[Tensor, " named"] | None = None) -> "ClassStatistics":
        """Take in statistics of other samples of the same classes, or of those that `rows` names, without scatter."""
        size = len(self.means) if rows is None else len(rows)
        if other.means.shape != (size, self.means.shape[1]):
            got = f"got {(size, self.means.shape[1])} and {tuple(other.means.shape)}"
            raise ValueError(f"statistics must have the same classes and dimension to merge, {got}.")
        seen, joined = self.num_samples, other.num_samples
        if joined:
            shift = other.norm_mean - self.norm_mean
            spread = shift**2 * (seen * joined / (seen + joined))
            self.norm_square_deviation += other.norm_square_deviation + spread
            self.norm_mean += shift * (joined / (seen + joined))
        if rows is None:
            self.scatter += other.scatter
        for block in _blocks(other.means):
            at = block if rows is None else rows[block]
            counts, added, means = self.counts[at], other.counts[block], self.means[at].to(torch.float64)
            # integers divided by integers would be float32
            share = added.to(torch.float64) / (counts + added).clamp_min(1)
            between = other.means[block].to(torch.float64) - means
            weight = counts * share
            within = self.square_deviations[at] + other.square_deviations[block]
            self.square_deviations[at] = within + weight * between.square().sum(1)
            met_before = weight > 0  # of a class that is seen for the first time there is no spread to add
            _add_products(self.scatter, between[met_before] * weight[met_before].sqrt().unsqueeze(1))
            self.means[at] = (means + between * share.unsqueeze(1)).to(self.means.dtype)
            # The exact mean is the same average of exact means. Difference, share and product are each right to eps / 2,
            # so is the sum, and the number that is stored: of each size a whole unit covers their products too.
            carried = self.mean_errors[at] * (1 - share) + other.mean_errors[block] * share
            rounding = 2 * EPS * share * between.norm(dim=1) + self._unit * self.means[at].norm(dim=1).to(torch.float64)
            self.mean_errors[at] = torch.where(added > 0, carried * (1 + 4 * EPS) + rounding, self.mean_errors[at])
            self.counts[at] = counts + added
        return self

    @torch.inference_mode(False)
    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> "ClassStatistics":
        """Merge the statistics of all workers of a process group; each ends with those of all samples, bit for bit.
        Sums over workers in blocks: counts and means, what rounded common means lack, then deviations and spread."""
        device = self.means.device
        if distributed.get_backend(group) == "nccl":  # which knows GPUs alone, while the statistics may be on the CPU
            device = torch.device("cuda", torch.cuda.current_device())

        def total(own: Tensor) -> Tensor:
            shared = own.to(device, copy=True)
            distributed.all_reduce(shared, group=group)
            return shared.to(own.device)

        counts, processes = total(self.counts), distributed.get_world_size(group)
        norm_mean = total(self.norm_mean * self.num_samples) / counts.sum().clamp_min(1)
        norm_square = self.norm_square_deviation + self.num_samples * (self.norm_mean - norm_mean) ** 2
        scatter = self.scatter.to(torch.float64, copy=True)
        for block in _blocks(self.means):
            own, means = self.counts[block], self.means[block].to(torch.float64)
            every = counts[block].clamp_min(1).unsqueeze(1)
            common = total(means * own.unsqueeze(1)) / every
            # about the first result, so that means that agree have no spread at all
            common = common + total((means - common) * own.unsqueeze(1)) / every
            shift = means - common
            moved = own * (self.mean_errors[block] + 2 * EPS * (processes + 4) * shift.norm(dim=1))
            self.mean_errors[block] = total(moved) / every[:, 0] * (1 + 4 * EPS) + self._unit * common.norm(dim=1)
            _add_products(scatter, shift * own.to(torch.float64).sqrt().unsqueeze(1))
            self.square_deviations[block] = total(self.square_deviations[block] + own * shift.square().sum(1))
            self.means[block] = common.to(self.means.dtype)
        self.counts, self.scatter = counts, total(scatter).to(self.scatter.dtype)
        self.norm_mean, self.norm_square_deviation = norm_mean, total(norm_square)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """All that was seen, as tensors by name; not copied."""
        return {name: getattr(self, name) for name in self.PARTS}

    def load_state_dict(self, state: Mapping[str, Tensor], *, assign: bool = False) -> "ClassStatistics":
        """Begin again from what `state_dict` gave: hold its tensors (`assign`), or check and copy them into their places."""
        for name in self.PARTS:
            held: Tensor = getattr(self, name)
            given = state.get(name)
            if not isinstance(given, Tensor) or given.shape != held.shape:
                shape = tuple(given.shape) if isinstance(given, Tensor) else given
                raise ValueError(f"{name} must have the shape {tuple(held.shape)}, got {shape}. It is another meter's.")
            # what is held as it is comes from a meter at each step; a sum over all costs no memory
            is_signed = name in ("means", "scatter")
            if not assign and not (bool(given.sum().isfinite()) and (is_signed or bool((given >= 0).all()))):
                raise ValueError(f"{name} must be finite, and counts and sizes not negative. The state is broken.")
        for name in self.PARTS:
            setattr(self, name, state[name] if assign else getattr(self, name).copy_(state[name]))
        return self

    def of_classes(self, classes: Int[Tensor, " named"]) -> "ClassStatistics":
        """The statistics of these classes in float64, where the others have no samples; these ones if it is all."""
        if len(classes) == len(self.means) and self.means.dtype == torch.float64:
            return self
        found = ClassStatistics(1, 1, self.means.device)
        for name in ("counts", "square_deviations", "mean_errors"):
            setattr(found, name, getattr(self, name)[classes])
        found.means, found.scatter = self.means[classes].to(torch.float64), self.scatter.to(torch.float64)
        found.norm_mean, found.norm_square_deviation = self.norm_mean, self.norm_square_deviation
        return found

    @property
    def _unit(self) -> float:
        """Twice the rounding of a stored mean, for its conversion and the addition before."""
        return 2 * torch.finfo(self.means.dtype).eps

    @property
    def num_samples(self) -> int:
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
    def sample_centred_means(self) -> Float[Tensor, "classes dim"]:
        """Class means minus the mean of all samples, in which a class weighs as many samples as it has."""
        counts = self.counts.to(torch.float64)
        if bool((counts == counts[0]).all()):
            return self.centred_means  # the same to the last bit
        return self.means - (counts / counts.sum()) @ self.means

    @property
    def between_covariance(self) -> Float[Tensor, "dim dim"]:
        """Sigma_B: average over classes of `(mean - average)(mean - average)^T`."""
        average = self.means.mean(0)
        total = torch.zeros_like(self.scatter)
        for block in _blocks(self.means):
            centred = self.means[block] - average
            total += centred.T @ centred
        return total / len(self.means)

    def check_every_class(self) -> None:
        empty = (self.counts == 0).nonzero()[:, 0].tolist()
        if empty:
            got = f"got none of {len(empty)} classes: {shown(empty)}"
            cure = "Leave these classes' rows out, or give them samples."
            raise ValueError(f"labels must name every class at least once, {got}. {cure}")


class MeanResiduals:
    """Bounds how far computed means are from the exact means of float64 samples, by a second pass over the samples.
    The exact mean of n samples h is m + (the mean of h - m), whatever m is. With u = eps / 2, each difference h - m is
    computed to u |h - m| in every coordinate, a sum of n of them in any order to n u (the sum of their sizes), and the
    division to another u. So the exact mean is within |r| + (n + 2) u s of m, where r is the computed mean of the
    differences and s the mean of their lengths. The bound takes n eps instead of n u, which covers terms of order u^2."""

    def __init__(self, means: Float[Tensor, "classes dim"]) -> None:
        self.means, self.sums = means, torch.zeros_like(means)
        self.counts, self.lengths = means.new_zeros(2, len(means))

    def update(self, samples: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"]) -> None:
        """Take in float64 samples of these classes."""
        differences = samples - self.means[labels]
        self.sums.index_add_(0, labels, differences)
        self.counts += torch.bincount(labels, minlength=len(self.counts))
        self.lengths.index_add_(0, labels, differences.norm(dim=1))

    def bound(self) -> Float[Tensor, " classes"]:
        """How far each class's mean may be from the exact one of the samples taken in; every class must have some."""
        dim = self.means.shape[1]
        rounding = (self.counts + dim + 4) * EPS
        return (self.sums.norm(dim=1) * (1 + dim * EPS) + rounding * self.lengths) / self.counts * (1 + 4 * EPS)


def _blocks(means: Float[Tensor, "classes dim"]) -> Iterator[slice]:
    return tiles(len(means), means.shape[1], BLOCK_ENTRIES)


def _of_batch(
    features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"], num_classes: int,
    norms: Float[Tensor, " samples"] | None,
) -> tuple[ClassStatistics, Float[Tensor, "samples dim"]]:  # fmt: skip
    """Statistics of one batch of float64 features without scatter, by two passes; the deviations from the means."""
    batch = ClassStatistics(num_classes, features.shape[1], features.device, holds_scatter=False)
    batch.counts = torch.bincount(labels, minlength=num_classes)
    batch.means.index_add_(0, labels, features).div_(batch.counts.clamp_min(1).unsqueeze(1))
    deviations = features - batch.means[labels]
    # the mean of a batch is itself rounded: without this step noise below 1e-14 would be noise of the mean
    correction = torch.zeros_like(batch.means).index_add_(0, labels, deviations)
    batch.means += correction / batch.counts.clamp_min(1).unsqueeze(1)
    # The exact mean is the mean before the step plus the exact mean of the deviations: a sum of n terms and its division
    # are right to (n + 1) eps / 2 of the mean length of the deviations, which is at most the root mean square.
    terms, step = batch.counts.clamp_min(1).to(torch.float64), (correction.norm(dim=1) / batch.counts.clamp_min(1))
    deviations = features - batch.means[labels]
    batch.square_deviations.index_add_(0, labels, deviations.square().sum(1))
    spread = (batch.square_deviations / terms).sqrt() + 2 * step
    batch.mean_errors = (terms + features.shape[1] + 4) * EPS * spread + 2 * EPS * batch.means.norm(dim=1)
    norms = features.norm(dim=1) if norms is None else norms.to(torch.float64)
    batch.norm_mean = norms.mean()
    batch.norm_square_deviation = (norms - batch.norm_mean).square().sum()
    return batch, deviations


def _add_products(scatter: Float[Tensor, "size size"], rows: Float[Tensor, "rows dim"]) -> None:
    """Add the sums over rows of products of their coordinates, where scatter is held at all."""
    rows = rows[:, : len(scatter)]
    if scatter.dtype == rows.dtype:
        scatter.addmm_(rows.T, rows)
    else:
        scatter += rows.T @ rows


def check_labels(labels: Tensor, num_samples: int, num_classes: int, name: str = "labels") -> None:
    """ValueError unless there is one integer label in 0..num_classes-1 for each sample."""
    if labels.shape != (num_samples,) or labels.is_floating_point() or labels.dtype == torch.bool:
        rule = f"{name} must be {num_samples} integers, one per sample"
        raise ValueError(f"{rule}, got shape {tuple(labels.shape)} of {labels.dtype}.")
    if num_samples and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        outside = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ValueError(f"{name} must be in 0..{num_classes - 1}, got {outside!r}.")
