"""Rows that are moving averages of their class's features (CMF). Knows torch; does not know losses or networks."""

from collections.abc import Callable

import torch
from torch import Tensor

from gnc_models.catalog.pairings import check_classifier
from gnc_models.catalog.settings import check_choice
from gnc_models.classifiers.classifier import Classifier, Features, Labels, random_directions

CLASS_MEAN_FORMS = ("sum", "mean")
CLASS_MEAN_UPDATES = ("before", "after")


class ClassMeanClassifier(Classifier):
    """Rows that are moving averages of their class's features (CMF): no gradient, always of unit length."""

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        normalization: str,
        temperature: float | None,
        init_norm: float,
        class_mean_form: str = "sum",
        class_mean_momentum: float = 0.9,
        class_mean_update: str = "before",
    ) -> None:
        """Rows start in random directions (torch's default generator); `Classifier` lists the other arguments.
        Args:
            class_mean_form: "sum" as in the paper, or "mean".
            class_mean_momentum: beta in [0, 1): how much of the old row stays.
            class_mean_update: a batch moves the rows "before" its own loss, as the paper's code does, or "after"."""
        super().__init__(normalization=normalization, temperature=temperature)
        check_classifier("class_mean", normalization, num_classes, feature_dim, None)
        check_choice("class_mean_form", class_mean_form, CLASS_MEAN_FORMS)
        check_choice("class_mean_update", class_mean_update, CLASS_MEAN_UPDATES)
        if not 0 <= class_mean_momentum < 1:
            raise ValueError(f"class_mean_momentum must be at least 0 and below 1, got {class_mean_momentum!r}.")
        self.form, self.momentum = class_mean_form, class_mean_momentum
        self.observes_before_loss = class_mean_update == "before"
        self.register_buffer("weight", random_directions(num_classes, feature_dim))

    @torch.no_grad()
    def observe(
        self, features: Features, labels: Labels, *, sum_over_workers: Callable[[Tensor], object] | None = None
    ) -> None:
        """`W <- normalize(beta W + (1 - beta) S)`, S the sum or mean of each class's features in the batch.
        Features count as the classifier scales them; rows of classes that are not in the batch stay as they are.
        sum_over_workers: adds up a tensor in place over the processes that share the batch; None: it is all here.
        Source: Jiang et al., arXiv 2310.05351 (class-mean features; the sum is that of the released code)."""
        sums = torch.zeros_like(self.weight)
        sums.index_add_(0, labels, self.scaled_features(features.to(sums.dtype)))
        counts = torch.bincount(labels, minlength=len(sums)).to(sums.dtype).unsqueeze(1)
        if sum_over_workers is not None:
            sum_over_workers(sums)
            sum_over_workers(counts)
        if self.form == "mean":
            sums /= counts.clamp_min(1)
        moved = self.momentum * self.weight + (1 - self.momentum) * sums
        norms = moved.norm(dim=1, keepdim=True)
        # a sum that cancels the old row leaves no direction: the old one stays
        turns = (counts > 0) & (norms > torch.finfo(norms.dtype).eps)
        self.weight.copy_(torch.where(turns, moved / norms, self.weight))
