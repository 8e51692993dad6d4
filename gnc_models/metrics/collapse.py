"""One measurement: checks the arguments, prepares the facts that the columns asked for need, and has them made."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from gnc_models.catalog.settings import check_number
from gnc_models.columns import Values, choose, facts_needed, make_columns
from gnc_models.geometry.margins import Margins, check_tolerance, margins_of_directions, one_vs_rest_margins
from gnc_models.geometry.pairwise import EPS, unit
from gnc_models.metrics import alignment, norms, samples, separation, simplex, uniformity, variability  # noqa: F401 - their columns
from gnc_models.metrics.class_statistics import ClassStatistics, check_labels
from gnc_models.metrics.feature_views import SeenFeatures, View
from gnc_models.shapes import Bool, Float, Int

TOLERANCE = 1e-6  # relative gap of the certified margins
Normalization = Literal["both", "features", "weights", "none"]
Mode = Literal["all", "min"]  # certified margins of all rows, or the smallest alone


@dataclass(frozen=True)
class Collapse:
    """What one measurement found: a value for each column, with the parts that later steps keep."""

    values: Values
    solved: Mapping[str, Margins]  # by what they are of: "rows" of unit length, "means", ...; to begin the next from
    means: Float[Tensor, "classes dim"] | None = None

    @property
    def margins(self) -> Margins:
        """Of the unit classifier rows; KeyError where no column needed them."""
        return self.solved["rows"]

    @property
    def class_means(self) -> Float[Tensor, "classes dim"]:
        """In float64; of unit features if the head normalises features; NaN for a class without samples."""
        assert self.means is not None, "statistics alone were measured, and whoever holds them has the means"
        return self.means


def measure_collapse(
    features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"],
    weights: Float[Tensor, "classes dim"] | None, *, normalization: Normalization, temperature: float | None,
    bias: Float[Tensor, " classes"] | None = None, columns: Collection[str] | None = None,
    test_features: Float[Tensor, "test_samples dim"] | None = None,
    test_labels: Int[Tensor, " test_samples"] | None = None,
    ood_features: Float[Tensor, "ood_samples dim"] | None = None,
    class_inputs: Float[Tensor, "classes input_dim"] | None = None, counted: Bool[Tensor, " samples"] | None = None,
    absent_classes: bool = False, tolerance: float = TOLERANCE, warm_starts: Mapping[str, Margins] | None = None,
) -> Collapse:  # fmt: skip
    """The geometric columns of a measurement (study.store.schemas.Measurement), in float64.
    Args: as of `gnc.measure`, and
        features, weights: as they are before any normalization. Margins are of the rows without the bias.
        class_inputs: mean input of each class, flattened; rows of classes without samples are not read.
        counted: which training samples enter; None for all. The counts of classes are those of all samples.
        absent_classes: whether classes without a sample that counts may be. Their rows enter the margins, while
            what is measured at class means leaves them out.
        warm_starts: those of a measurement of similar rows and means, from which margins begin.
    Returns:
        The values by column name; None where a quantity does not exist (variability from one sample per class, energies
        of coinciding means, ...), never zero for it.
    Source: docs/metrics.md names the paper of each formula."""
    _check_samples(weights, features, labels, (test_features, test_labels), ood_features)
    num_classes = int(labels.max()) + 1 if weights is None else len(weights)
    _check_settings(features, counted, class_inputs, num_classes)
    wanted, unit_features = choose(columns, ["rows"] if weights is None else []), normalization in ("both", "features")
    sample_counts = torch.bincount(labels, minlength=num_classes)
    features = features.detach()
    if counted is not None:
        features, labels = features[counted], labels[counted]
    holds_sphere = "sphere" in facts_needed(wanted)
    size = num_classes, features.shape[1]
    seen = SeenFeatures(*size, unit_features=unit_features, holds_sphere=holds_sphere, device=features.device)
    seen.update(features, labels)
    solve = _Solver(tolerance, warm_starts or {})
    facts = _Facts(seen, seen.present(absent_classes), weights, (normalization, temperature, bias), solve)
    facts.sample_counts = sample_counts
    facts.view = View(features, labels, num_classes, facts.classes, unit_features)
    facts.test = None if test_features is None or test_labels is None else (test_features.detach(), test_labels)
    facts.ood_features, facts.class_inputs = ood_features, class_inputs
    means = seen.head.means.new_full(size, torch.nan)
    means[facts.classes] = facts.head.means
    return Collapse(facts.measure(wanted), solve.solved, means)


def measure_statistics(
    seen: SeenFeatures, weights: Float[Tensor, "classes dim"] | None, *, normalization: Normalization,
    temperature: float | None, bias: Float[Tensor, " classes"] | None = None, columns: Collection[str] | None = None,
    tolerance: float = TOLERANCE, warm_starts: Mapping[str, Margins] | None = None,
) -> Collapse:  # fmt: skip
    """The columns that statistics tell without the samples, as `measure_collapse` gives them.
    Classes without samples are left out of what is measured at class means. ValueError as there, and for a column that
    needs single samples, rows or unit features that are not there."""
    if weights is not None:
        _check_features("weights", weights, seen.head.means.shape[1])
        if len(weights) != len(seen.head.counts):
            raise ValueError(f"weights must have {len(seen.head.counts)} rows, one per class, got {len(weights)}.")
    lacking = ["samples"] + ["rows"] * (weights is None) + ["unit features"] * (seen.sphere is None)
    wanted, solve = choose(columns, lacking), _Solver(tolerance, warm_starts or {})
    facts = _Facts(seen, seen.present(absent_classes=True), weights, (normalization, temperature, bias), solve)
    facts.sample_counts = seen.head.counts
    return Collapse(facts.measure(wanted), solve.solved)


_Logits = tuple[str, float | None, Tensor | None]  # normalization, temperature and bias


class _Facts:
    """What columns are made of, by the names of their parameters; each is made when the first column asks for it."""

    sample_counts: Int[Tensor, " classes"]  # training samples of every class, also of samples that do not count
    view: View
    test: tuple[Tensor, Tensor] | None
    ood_features: Tensor | None
    class_inputs: Tensor | None

    def __init__(
        self, seen: SeenFeatures, classes: Tensor, weights: Tensor | None, logits: _Logits, solve: "_Solver"
    ) -> None:
        normalization, temperature, bias = logits
        check_normalization(normalization, temperature)
        is_finite = bias is None or bool(bias.isfinite().all())
        if bias is not None and (weights is None or bias.shape != weights.shape[:1] or not is_finite):
            got = f"shape {tuple(bias.shape)}" if is_finite else "NaN or infinity in it"
            got = "it without weights" if weights is None else got
            raise ValueError(f"bias must be finite, one number per classifier row, got {got}.")
        if not float(seen.head.norm_mean):
            raise ValueError("features must not all be zero, got nothing else. The encoder is dead.")
        self._seen, self._weights, self.solve = seen, weights, solve
        self.classes = classes  # those with samples that count, in order; rows of the statistics
        self.normalization, self.temperature, self.bias = normalization, temperature, bias
        self.unit_weights = normalization in ("both", "weights")

    def measure(self, wanted: Collection[str]) -> Values:
        self._spread_wanted = "margins" in facts_needed(wanted)
        return make_columns(wanted, partial(getattr, self))

    @cached_property
    def head(self) -> ClassStatistics:
        return self._seen.head.of_classes(self.classes)

    @cached_property
    def between(self) -> variability.Spectrum:
        return tuple(torch.linalg.eigh(self.head.between_covariance))

    @cached_property
    def sphere(self) -> ClassStatistics:
        assert self._seen.sphere is not None, "columns that need it were refused"
        return self.head if self._seen.sphere is self._seen.head else self._seen.sphere.of_classes(self.classes)

    @cached_property
    def rows(self) -> Tensor:
        assert self._weights is not None, "columns that need them were refused"
        dead = (~self._weights.any(1)).nonzero()[:, 0].tolist()
        if dead:
            got = f"got {len(dead)}, the first is {dead[0]}"
            raise ValueError(f"weights must have no row of zeros, {got}. Leave these classes out.")
        return self._weights.detach().to(torch.float64)

    @cached_property
    def unit_rows(self) -> Tensor:
        return unit(self.rows)

    @property
    def head_rows(self) -> Tensor:
        return self.unit_rows if self.unit_weights else self.rows

    @property
    def own_rows(self) -> Tensor:
        return self.rows if len(self.classes) == len(self.rows) else self.rows[self.classes]

    @property
    def used_rows(self) -> Tensor:
        return unit(self.own_rows) if self.unit_weights else self.own_rows

    @property
    def mean_errors(self) -> Tensor:
        """How far the class means may be from the exact ones of the features as the head sees them."""
        view = getattr(self, "view", None)
        found: Tensor = self.head.mean_errors if view is None else view.mean_errors(self.head.means)
        # every direction is off by what `unit` says, and so is their mean
        return found + EPS / 2 * (self.head.means.shape[1] / 2 + 3) * self._seen.unit_features

    @cached_property
    def margins(self) -> Margins:
        return self.solve("rows", self.rows, mode="all")

    @property
    def smallest(self) -> tuple[float, float]:
        return (self.margins if self._spread_wanted else self.solve("rows", self.rows)).minimum


class _Solver:
    """Certified margins, each begun from margins of similar rows where there are any."""

    def __init__(self, tolerance: float, before: Mapping[str, Margins]) -> None:
        check_tolerance(tolerance)  # also where no column needs margins
        self._tolerance, self._before = tolerance, before
        self.solved: dict[str, Margins] = {}
        self._rows: Tensor | None = None  # the classifier's, once their margins are solved

    def __call__(
        self, name: str, rows: Tensor, *, mode: Mode = "min", directions: bool = True, errors: Tensor | None = None
    ) -> Margins:
        """Of the rows' directions, where the rows may be off by `errors`; or of the rows as they are."""
        start = self._before.get(name)
        if self._rows is not None and _are_near(rows, self._rows):
            start = self.solved["rows"]
        if start is not None and len(start.lower) != len(rows):
            start = None
        find = partial(margins_of_directions, errors=errors) if directions else one_vs_rest_margins
        self.solved[name] = find(rows, tolerance=self._tolerance, mode=mode, warm_start=start)
        if name == "rows":
            self._rows = rows
        return self.solved[name]


def _are_near(rows: Tensor, others: Tensor) -> bool:
    """Whether margins of the one are worth a start for the other's: at (1000, 512) .5 apart it takes twice the time."""
    return rows.shape == others.shape and float((unit(rows) - unit(others)).square().sum(1).mean()) < 0.2**2


Samples = tuple[Tensor | None, Tensor | None]


def _check_samples(weights: Tensor | None, features: Tensor, labels: Tensor, test: Samples, ood: Tensor | None) -> None:
    test_features, test_labels = test
    like = features if weights is None else weights
    if like.ndim != 2:
        name = "features" if weights is None else "weights"
        raise ValueError(f"{name} must be a matrix, one row per class or sample, got shape {tuple(like.shape)}.")
    sets = {"weights": weights, "features": features, "test_features": test_features, "ood_features": ood}
    for name, values in sets.items():
        if values is not None:
            _check_features(name, values, like.shape[1])
    num_classes = len(weights) if weights is not None else int(labels.max()) + 1 if labels.numel() else 1
    check_labels(labels, len(features), num_classes)
    if (test_features is None) != (test_labels is None):
        raise ValueError("test_features and test_labels must be given together or not at all, got one of them.")
    if test_features is not None and test_labels is not None:
        check_labels(test_labels, len(test_features), num_classes, "test_labels")


def _check_features(name: str, values: Tensor, feature_dim: int) -> None:
    if values.ndim == 2 and not len(values):
        raise ValueError(f"{name} must have at least one row, got none.")
    if values.ndim != 2 or values.shape[1] != feature_dim:
        rule = f"{name} must be a matrix with {feature_dim} columns, as weights"
        raise ValueError(f"{rule}, got shape {tuple(values.shape)}.")
    broken = 0 if bool(values.sum().isfinite()) else int((~values.isfinite()).any(1).sum())
    if broken:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {broken} of {len(values)} rows.")


def _check_settings(features: Tensor, counted: Tensor | None, class_inputs: Tensor | None, num_classes: int) -> None:
    if counted is not None and (counted.shape != (len(features),) or counted.dtype != torch.bool or not counted.any()):
        rule = f"counted must be {len(features)} booleans, one per sample and some true"
        raise ValueError(f"{rule}, got shape {tuple(counted.shape)} of {counted.dtype}.")
    if class_inputs is not None and (class_inputs.ndim != 2 or len(class_inputs) != num_classes):
        rule = f"class_inputs must have one row per class ({num_classes})"
        raise ValueError(f"{rule}, got shape {tuple(class_inputs.shape)}.")


def check_normalization(normalization: str, temperature: float | None) -> None:
    """ValueError for a normalization that is none, or a temperature that it does not take."""
    if normalization not in ("both", "features", "weights", "none"):
        raise ValueError(f"normalization must be both, features, weights or none, got {normalization!r}.")
    if temperature is not None:
        check_number("temperature", temperature)
    if (temperature is None) != (normalization == "none") or not (temperature is None or 0 < temperature < math.inf):
        rule = "temperature must be above 0 and finite, and None with normalization 'none'"
        raise ValueError(f"{rule}, got {temperature!r} with {normalization!r}.")
