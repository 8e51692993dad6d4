"""HUG: classes far apart and samples near their own, as hyperspherical uniformity, in three forms. Knows torch.
Source: Liu, Yu, Weller, Schoelkopf, arXiv 2303.06484, and its released loss code."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gnc_models.catalog.settings import check_between
from gnc_models.classifiers.classifier import Classifier, Features, Labels, Rows
from gnc_models.losses.loss import Loss, Scalar

LEAST_EPS = 1e-10  # below it rounding of K x K Grams in float64 may leave no positive determinant
BY_DIFFERENCES = "donot_use_mm_for_euclid_dist"  # cdist's other way, by inner products, loses what is nearer than 1e-8


class _UniformityGap(Loss):
    """`inter_weight * inter + intra_weight * intra`, of unit rows (proxies of the classes) and features, in float64."""

    def __init__(
        self, *, num_classes: int, feature_dim: int, inter_weight: float = 0.15, intra_weight: float = 0.015
    ) -> None:
        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        for name, given in (("inter_weight", inter_weight), ("intra_weight", intra_weight)):
            check_between(name, given, 0.0, math.inf)
        self.inter_weight, self.intra_weight = inter_weight, intra_weight

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        proxies = functional.normalize(classifier.weight.double(), dim=1)
        points = functional.normalize(features.double(), dim=1)
        inter, intra = self.inter(proxies), self.intra(points, labels, proxies.detach())
        return (self.inter_weight * inter + self.intra_weight * intra).to(features.dtype)

    def inter(self, proxies: Rows) -> Scalar:
        """How unevenly the classes are spread; moves proxies only, and is a constant unless they are trained."""
        raise NotImplementedError

    def intra(self, points: Features, labels: Labels, proxies: Rows) -> Scalar:
        """How far samples are from their class's proxy; moves features only, towards proxies held still."""
        raise NotImplementedError


class HypersphereEnergy(_UniformityGap):
    """MHE. inter: mean over pairs of proxies of `1 / |w_i - w_j|^2`, from differences; pairs that coincide are left
    out. intra: mean over the classes in the batch of the mean distance of their samples from the proxy."""

    def inter(self, proxies: Rows) -> Scalar:
        distances = torch.pdist(proxies)
        apart = distances[distances > 0]
        return apart.square().reciprocal().sum() / max(1, len(apart))

    def intra(self, points: Features, labels: Labels, proxies: Rows) -> Scalar:
        classes, position, counts = labels.unique(return_inverse=True, return_counts=True)
        return (_distances(points, proxies[labels]) / counts[position]).sum() / len(classes)


class HypersphereSeparation(_UniformityGap):
    """MHS. inter: minus the smallest distance between two proxies, from differences; pairs that coincide are left out.
    intra: sum over the classes in the batch of the largest distance of a sample from the proxy."""

    def inter(self, proxies: Rows) -> Scalar:
        with torch.no_grad():
            distances = torch.cdist(proxies, proxies, compute_mode=BY_DIFFERENCES)
            first, second = divmod(int(distances.masked_fill_(distances == 0, torch.inf).argmin()), len(proxies))
        return -(proxies[first] - proxies[second]).norm()

    def intra(self, points: Features, labels: Labels, proxies: Rows) -> Scalar:
        classes, position = labels.unique(return_inverse=True)
        distances = _distances(points, proxies[labels])
        largest = distances.new_zeros(len(classes))
        return largest.scatter_reduce(0, position, distances, "amax", include_self=False).sum()


class GramDeterminant(_UniformityGap):
    """MGD, with the kernel `k(x, y) = exp(-|x - y|^2 / (2 kernel_width^2))` and G + logdet_eps I for every Gram G.
    inter: minus the log-determinant of the proxies' Gram; the kernel keeps it regular where K > d. intra: mean over the
    classes in the batch of the log-determinant of the Gram of their samples and their proxy, which ties a sample to
    its class. It falls to log(logdet_eps) for each sample as a class collapses: without logdet_eps, without bound."""

    def __init__(
        self, *, num_classes: int, feature_dim: int, logdet_eps: float, kernel_width: float = 1.0,
        inter_weight: float = 0.15, intra_weight: float = 0.03,
    ) -> None:  # fmt: skip
        """`logdet_eps` above 1e-10 is added to every Gram's diagonal; `kernel_width` is a distance on the sphere."""
        weights = {"inter_weight": inter_weight, "intra_weight": intra_weight}
        super().__init__(num_classes=num_classes, feature_dim=feature_dim, **weights)
        check_between("logdet_eps", logdet_eps, LEAST_EPS, math.inf)
        self.logdet_eps, self.kernel_width = logdet_eps, kernel_width

    def inter(self, proxies: Rows) -> Scalar:
        return -self._log_determinant(self._kernel(proxies))

    def intra(self, points: Features, labels: Labels, proxies: Rows) -> Scalar:
        classes = labels.unique()
        owners = torch.cat([labels, classes])
        gram = self._kernel(torch.cat([points, proxies[classes]]))
        # zero between classes: one determinant of blocks is the product of the classes' own
        blocks = torch.where(owners.unsqueeze(1) == owners, gram, 0.0)
        return self._log_determinant(blocks) / len(classes)

    def _kernel(self, points: Tensor) -> Tensor:
        return (torch.cdist(points, points, compute_mode=BY_DIFFERENCES).square() / (-2 * self.kernel_width**2)).exp()

    def _log_determinant(self, gram: Tensor) -> Tensor:
        ridge = self.logdet_eps * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return 2 * torch.linalg.cholesky(gram + ridge).diagonal().log().sum()


def _distances(points: Float[Tensor, "rows dim"], others: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
    return (points - others).norm(dim=1)
