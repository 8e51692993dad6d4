"""Every loss once more, slowly: one sample, class or pair at a time, in Python's floats. For the contract tests only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Row = list[float]


@dataclass(frozen=True)
class Batch:
    """Features and rows as they are, with what the normalization scales."""

    features: list[Row]
    labels: list[int]
    rows: list[Row]
    unit_features: bool
    unit_rows: bool
    temperature: float

    def score(self, sample: int, label: int) -> float:
        """`<w, h>` on what is scaled."""
        feature, row = self.features[sample], self.rows[label]
        return dot(unit(feature) if self.unit_features else feature, unit(row) if self.unit_rows else row)

    def logits(self, sample: int) -> Row:
        return [self.score(sample, label) / self.temperature for label in range(len(self.rows))]

    def samples_of(self, label: int) -> list[int]:
        return [sample for sample, own in enumerate(self.labels) if own == label]


def dot(a: Row, b: Row) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def unit(row: Row) -> Row:
    return [x / math.sqrt(dot(row, row)) for x in row]


def cosine(a: Row, b: Row) -> float:
    return dot(unit(a), unit(b))


def distance(a: Row, b: Row) -> float:
    """Between the unit vectors."""
    return math.dist(unit(a), unit(b))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def cross_entropy_of(logits: Row, label: int) -> float:
    return math.log(math.fsum(math.exp(z - logits[label]) for z in logits))


def probability(logits: Row, label: int) -> float:
    return 1 / math.fsum(math.exp(z - logits[label]) for z in logits)


def ref_cross_entropy(batch: Batch) -> float:
    return mean([cross_entropy_of(batch.logits(i), y) for i, y in enumerate(batch.labels)])


def ref_log_cross_entropy(batch: Batch) -> float:
    return batch.temperature * math.log(ref_cross_entropy(batch))


def ref_hardmax(batch: Batch) -> float:
    return max(
        batch.score(i, j) - batch.score(i, y)
        for i, y in enumerate(batch.labels)
        for j in range(len(batch.rows))
        if j != y
    )


def ref_label_smoothing(batch: Batch, label_smoothing: float) -> float:
    losses = []
    for i, y in enumerate(batch.labels):
        logits = batch.logits(i)
        share = label_smoothing / len(logits)
        for j in range(len(logits)):
            weight = share + (1 - label_smoothing if j == y else 0)
            losses.append(weight * cross_entropy_of(logits, j))
    return math.fsum(losses) / len(batch.labels)


def ref_focal(batch: Batch, focal_gamma: float) -> float:
    shares = [probability(batch.logits(i), y) for i, y in enumerate(batch.labels)]
    return mean([-((1 - p) ** focal_gamma) * math.log(p) for p in shares])


def ref_mse(batch: Batch) -> float:
    errors = []
    for i, y in enumerate(batch.labels):
        errors.append(math.fsum((z - (j == y)) ** 2 for j, z in enumerate(batch.logits(i))))
    return mean(errors) / 2


def ref_hug_mhe(batch: Batch, inter_weight: float, intra_weight: float) -> float:
    rows = batch.rows
    inter = mean([1 / distance(rows[i], rows[j]) ** 2 for i in range(len(rows)) for j in range(i)])
    intra = mean([mean(_from_proxy(batch, label)) for label in set(batch.labels)])
    return inter_weight * inter + intra_weight * intra


def ref_hug_mhs(batch: Batch, inter_weight: float, intra_weight: float) -> float:
    rows = batch.rows
    inter = -min(distance(rows[i], rows[j]) for i in range(len(rows)) for j in range(i))
    intra = math.fsum(max(_from_proxy(batch, label)) for label in set(batch.labels))
    return inter_weight * inter + intra_weight * intra


def ref_hug_mgd(
    batch: Batch, inter_weight: float, intra_weight: float, kernel_width: float, logdet_eps: float
) -> float:
    def log_determinant(points: list[Row]) -> float:
        gram = np.eye(len(points)) * logdet_eps
        for i, a in enumerate(points):
            for j, b in enumerate(points):
                gram[i, j] += math.exp(-(distance(a, b) ** 2) / (2 * kernel_width**2))
        return float(np.linalg.slogdet(gram)[1])

    within = [
        log_determinant([batch.features[i] for i in batch.samples_of(label)] + [batch.rows[label]])
        for label in set(batch.labels)
    ]
    return -inter_weight * log_determinant(batch.rows) + intra_weight * mean(within)


def _from_proxy(batch: Batch, label: int) -> list[float]:
    return [distance(batch.features[i], batch.rows[label]) for i in batch.samples_of(label)]


def _with_own_cosine(batch: Batch, own: Callable[[float], float]) -> float:
    losses = []
    for feature, y in zip(batch.features, batch.labels, strict=True):
        cosines = [cosine(feature, row) for row in batch.rows]
        cosines[y] = own(cosines[y])
        losses.append(cross_entropy_of([c / batch.temperature for c in cosines], y))
    return mean(losses)


def ref_cosface(batch: Batch, margin_penalty: float) -> float:
    return _with_own_cosine(batch, lambda c: c - margin_penalty)


def ref_arcface(batch: Batch, margin_penalty: float) -> float:
    def own(c: float) -> float:
        angle = math.acos(c)
        if angle + margin_penalty > math.pi:
            return c - margin_penalty * math.sin(margin_penalty)
        return math.cos(angle + margin_penalty)

    return _with_own_cosine(batch, own)


def ref_supervised_contrastive(batch: Batch) -> float:
    losses = []
    for i, y in enumerate(batch.labels):
        others = [j for j in range(len(batch.labels)) if j != i]
        positives = [j for j in others if batch.labels[j] == y]
        logit = {j: cosine(batch.features[i], batch.features[j]) / batch.temperature for j in others}
        total = math.log(math.fsum(math.exp(z) for z in logit.values()))
        if positives:
            losses.append(mean([total - logit[j] for j in positives]))
    return mean(losses)


REFERENCES: dict[str, Callable[..., float]] = {
    name.removeprefix("ref_"): function for name, function in globals().copy().items() if name.startswith("ref_")
}
