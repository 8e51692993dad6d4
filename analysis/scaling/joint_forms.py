"""Forms over all dimensions at once: the margin as a function of K and d, and of temperature or coldness.

`log measure = level[group] + fixed(cells) + columns(cells) @ coefficients`, tested by keeping out the largest K, the
largest d and the lowest temperature in turn. Knows theory and robust fits; draws nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from analysis.rows import theory
from analysis.rows.frames import group_labels, settings_by_label, values
from analysis.rows.measures import MARGIN
from analysis.scaling.forms import aicc
from analysis.scaling.power_law import Exponent, FitRefused, expected_ends, exponents_of, interval_halves, level_columns
from analysis.statistics.huber import LinearFit, fit_linear
from analysis.statistics.inference import MIN_CELLS, MIN_SIZES
from analysis.statistics.residual_checks import Diagnostics, diagnose

AXES = ("num_classes", "feature_dim", "temperature")
LARGEST = {"num_classes": "largest K", "feature_dim": "largest d", "temperature": "lowest temperature"}


@dataclass(frozen=True)
class JointCells:
    """Averages over seeds: log measure and the three axes [cells] (temperature NaN where null), and the group."""

    log_measure: np.ndarray
    axes: Mapping[str, np.ndarray]
    group: tuple[str, ...]

    def take(self, keep: np.ndarray) -> "JointCells":
        """The cells where keep is true."""
        group = tuple(g for g, k in zip(self.group, keep, strict=True) if k)
        return JointCells(self.log_measure[keep], {n: a[keep] for n, a in self.axes.items()}, group)


Axes = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class JointForm:
    """A form. cold: it is a function of temperature too; without it each temperature has a level of its own."""

    formula: str
    names: tuple[str, ...]
    columns: Callable[[Axes], list[np.ndarray]]
    fixed: Callable[[Axes], np.ndarray] = lambda axes: np.zeros(len(axes["num_classes"]))
    cold: bool = False
    margins_only: bool = False


def _logs(*names: str) -> Callable[[Axes], list[np.ndarray]]:
    return lambda axes: [np.log(axes[name]) for name in names]


def _by_dim(curve: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Axes], np.ndarray]:
    """The logarithm of a curve(K, d) at every cell."""

    def at(axes: Axes) -> np.ndarray:
        found = np.zeros(len(axes["num_classes"]))
        for dim in np.unique(axes["feature_dim"]):
            here = axes["feature_dim"] == dim
            found[here] = np.log(curve(axes["num_classes"][here], int(dim)))
        return found

    return at


def _tied(axes: Axes) -> np.ndarray:
    return np.array([theory.asymptotic_exponent(int(d)) for d in axes["feature_dim"]]) * np.log(axes["num_classes"])


def log_coldness(axes: Axes) -> np.ndarray:
    """Logarithm of best known margin / (temperature ln K)."""
    best = np.exp(_by_dim(theory.best_known_curve)(axes))
    return np.log(theory.coldness(best, axes["temperature"], axes["num_classes"]))


JOINT_FORMS: Mapping[str, JointForm] = {
    "power": JointForm("A K^a d^b", ("a", "b"), _logs("num_classes", "feature_dim")),
    "theory": JointForm("A K^(-2/(d-1)) d^b", ("b",), _logs("feature_dim"), _tied, margins_only=True),
    "levenshtein": JointForm(
        "A times the Levenshtein bound", (), lambda axes: [], _by_dim(theory.levenshtein_curve), margins_only=True
    ),
    "reference": JointForm(
        "A times the best known margin", (), lambda axes: [], _by_dim(theory.best_known_curve), margins_only=True
    ),
    "power-temperature": JointForm(
        "A K^a d^b temperature^g", ("a", "b", "g"), _logs("num_classes", "feature_dim", "temperature"), cold=True
    ),
    "reference-coldness": JointForm(
        "A (best known margin) coldness^g exp(h / coldness)",
        ("g", "h"),
        lambda axes: [log_coldness(axes), np.exp(-log_coldness(axes))],
        _by_dim(theory.best_known_curve),
        cold=True,
        margins_only=True,
    ),
}


@dataclass(frozen=True)
class JointFit:
    """A fitted joint form: parameters with LEVEL intervals, level by group, robust spread, AICc, diagnostics."""

    form: str
    parameters: tuple[Exponent, ...]
    levels: Mapping[str, float]
    scale: float
    aicc: float
    cells: int
    diagnostics: Diagnostics
    linear: LinearFit = field(repr=False, compare=False)

    def predict_interval(
        self, axes: Axes, group: str, *, level: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prediction at these axes and the ends between which new cells are expected, an array [n] each."""
        form = JOINT_FORMS[self.form]
        design = _design(form, axes, [group] * len(axes["num_classes"]), sorted(self.levels))
        middle = form.fixed(axes) + design @ self.linear.coefficients
        return np.exp(middle), *expected_ends(middle, design, self.linear, level)


@dataclass(frozen=True)
class KeptOut:
    """Prediction of the cells kept out at one end of an axis: median relative error, share inside 90 %, how many."""

    axis: str
    at: float
    median_error: float
    covered: float
    cells: int


@dataclass(frozen=True)
class JointVerdict:
    """One joint form's fit and its tests, or why there is none."""

    form: str
    fit: JointFit | None
    kept_out: tuple[KeptOut, ...]
    refused: str | None


@dataclass(frozen=True)
class JointComparison:
    """All joint forms of one measure. chosen: the one with the least mean error in its tests; None if none was tested."""

    measure: str
    within: tuple[str, ...]
    verdicts: tuple[JointVerdict, ...]
    chosen: str | None
    settings: Mapping[str, Mapping[str, object]]


def joint_cells(
    final: pa.Table, measure: str, within: Sequence[str]
) -> tuple[JointCells, dict[str, dict[str, object]]]:
    """Cell averages of terminal trials with a positive measure, and the settings behind each group's label."""
    measured = values(final, measure)
    kept = np.flatnonzero(
        values(final, "terminal") & np.isfinite(measured) & (measured > 0) & (values(final, "feature_dim") > 1)
    )
    rows, labels = final.take(kept), group_labels(final.take(kept), within)
    cell = np.asarray(rows["cell"].to_pylist(), dtype=str)
    _, first, index = np.unique(cell, return_index=True, return_inverse=True)
    means = np.bincount(index, weights=np.log(measured[kept])) / np.bincount(index)
    axes = {name: values(rows, name)[first] for name in AXES}
    return JointCells(means, axes, tuple(labels[i] for i in first)), settings_by_label(rows, within)


def compare_joint(final: pa.Table, measure: str, within: Sequence[str]) -> JointComparison | None:
    """Fit and test every joint form; None where fewer than two dimensions were run."""
    if final.num_rows == 0 or len(final["feature_dim"].unique()) < 2:
        return None
    verdicts: list[JointVerdict] = []
    known: dict[str, dict[str, object]] = {}
    for name, form in JOINT_FORMS.items():
        if form.margins_only and measure != MARGIN:
            continue
        cells, settings = joint_cells(final, measure, [n for n in within if not (form.cold and n == "temperature")])
        known |= settings
        verdicts.append(_verdict(name, cells))
    return JointComparison(measure, tuple(within), tuple(verdicts), _choose(verdicts), known)


def _verdict(name: str, cells: JointCells) -> JointVerdict:
    try:
        fit = fit_joint(name, cells)
    except FitRefused as refusal:
        return JointVerdict(name, None, (), str(refusal))
    tests = [_keep_out(name, cells, axis) for axis in (AXES if JOINT_FORMS[name].cold else AXES[:2])]
    return JointVerdict(name, fit, tuple(t for t in tests if t is not None), None)


def _choose(verdicts: Sequence[JointVerdict]) -> str | None:
    """Least mean error over the axes of size, fewest parameters among those as good up to a tenth."""
    tested = [(float(np.mean([k.median_error for k in v.kept_out])), v) for v in verdicts if v.kept_out and v.fit]
    if not tested:
        return None
    least = min(error for error, _ in tested)
    near = [(len(v.fit.parameters), error, v.form) for error, v in tested if v.fit and error <= 1.1 * least + 1e-9]
    return min(near)[2]


def fit_joint(name: str, cells: JointCells, *, least: int = MIN_SIZES, samples: int = 199, seed: int = 0) -> JointFit:
    """Fit one joint form.

    Args:
        least: values of num_classes, and of temperature for a form that reads it; of feature_dim two do.
        samples, seed: of the bootstrap behind the parameters' intervals.
    Raises:
        FitRefused: too few cells, dimensions or temperatures, or axes that do not vary apart.
    """
    form = JOINT_FORMS[name]
    if form.cold and not np.isfinite(cells.axes["temperature"]).all():
        raise FitRefused("some cells have no temperature")
    labels = sorted(set(cells.group))
    design = _design(form, cells.axes, cells.group, labels)
    needed = max(MIN_CELLS, design.shape[1] + 2)
    if len(design) < needed:
        raise FitRefused(f"{len(design)} cells for {design.shape[1]} parameters, at least {needed} are needed")
    for axis in AXES if form.cold else AXES[:1]:
        count = len(np.unique(cells.axes[axis]))
        if count < (least if axis != "feature_dim" else 2):
            raise FitRefused(f"{count} values of {axis} are too few for this form")
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise FitRefused("the axes do not vary independently of each other")
    fit = fit_linear(design, cells.log_measure - form.fixed(cells.axes))
    halves = interval_halves(design, fit, samples=samples, seed=seed)
    return JointFit(
        form=name,
        parameters=exponents_of(form.names, fit.coefficients, halves),
        levels=dict(zip(labels, map(float, fit.coefficients[len(form.names) :]), strict=True)),
        scale=fit.scale,
        aicc=aicc(fit.residuals, fit.threshold, design.shape[1]),
        cells=len(design),
        diagnostics=diagnose(fit, np.log(cells.axes["num_classes"])),
        linear=fit,
    )


def _design(form: JointForm, axes: Axes, group: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    columns = (column[:, None] for column in form.columns(axes))
    return np.concatenate([*columns, level_columns(group, labels)], axis=1)


def _keep_out(name: str, cells: JointCells, axis: str) -> KeptOut | None:
    """Predict the cells at the largest value (the lowest temperature) from the others; None where that cannot be."""
    along = cells.axes[axis]
    if len(np.unique(along)) < 3:
        return None
    end = float(along.min() if axis == "temperature" else along.max())
    out = along == end
    try:
        fit = fit_joint(name, cells.take(~out), least=2, samples=49)
    except FitRefused:
        return None
    errors, inside = [], []
    for label in sorted(set(cells.group) & set(fit.levels)):
        held = cells.take(out & np.array([g == label for g in cells.group]))
        if len(held.group):
            middle, low, high = fit.predict_interval(held.axes, label)
            measured = np.exp(held.log_measure)
            errors += list(np.abs(middle / measured - 1))
            inside += list((low <= measured) & (measured <= high))
    if not errors:
        return None
    return KeptOut(axis, end, float(np.median(errors)), float(np.mean(inside)), len(errors))
