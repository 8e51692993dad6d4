"""Forms over all dimensions at once: the margin as a function of K and d, and of temperature or coldness; tested by keeping
out the largest K, the largest d and the lowest temperature in turn. Knows theory and robust fits; draws nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student_t

from analysis.rows import theory
from analysis.rows.frames import settings_by_label
from analysis.rows.measures import MARGIN, for_fits
from analysis.scaling.cells import Cells, select, with_levels
from analysis.scaling.form_choice import Ends, cells_of, judge
from analysis.scaling.forms import aicc, weigh
from analysis.scaling.power_law import Exponent, FitRefused, exponents_of
from analysis.statistics.huber import Design, clustered_covariance, fit_linear
from analysis.statistics.inference import LEVEL, MIN_CELLS, MIN_SIZES, Expected, Weight, mixed_interval
from analysis.statistics.residual_checks import Diagnostics, diagnose
from gnc_models.progress import amount

AXES = ("num_classes", "feature_dim", "temperature")
LARGEST = {"num_classes": "largest K", "feature_dim": "largest d", "temperature": "lowest temperature"}
Axes = Mapping[str, np.ndarray]  # the logarithm of each axis at every cell; temperature NaN where it is null
Columns = Callable[[Axes], list[np.ndarray]]


def log_axes(cells: Cells) -> Axes:
    return dict(zip(AXES, cells.log_predictors.T, strict=True))


@dataclass(frozen=True)
class JointForm:
    """A form. cold: it is a function of temperature too; without it each temperature has a level of its own."""

    formula: str
    names: tuple[str, ...]
    columns: Columns
    fixed: Callable[[Axes], np.ndarray] = lambda axes: np.zeros(len(axes["num_classes"]))
    cold: bool = False
    margins_only: bool = False


def _columns(*names: str) -> Columns:
    return lambda axes: [axes[name] for name in names]


def _by_dim(log_curve: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Axes], np.ndarray]:
    """A curve(log K, d) at every cell."""

    def at(axes: Axes) -> np.ndarray:
        found = np.zeros(len(axes["num_classes"]))
        for dim in np.unique(axes["feature_dim"]):
            here = axes["feature_dim"] == dim
            found[here] = log_curve(axes["num_classes"][here], round(float(np.exp(dim))))
        return found

    return at


_tied = _by_dim(lambda log_k, d: theory.asymptotic_exponent(d) * log_k)
_levenshtein = _by_dim(lambda log_k, d: np.log(theory.levenshtein_curve(np.exp(log_k), d)))
_best_known = _by_dim(lambda log_k, d: np.log(theory.best_known_curve(np.exp(log_k), d)))


def log_coldness(axes: Axes) -> np.ndarray:
    """Logarithm of best known margin / (temperature ln K)."""
    temperature, num_classes = np.exp(axes["temperature"]), np.exp(axes["num_classes"])
    return np.log(theory.coldness(np.exp(_best_known(axes)), temperature, num_classes))


JOINT_FORMS: Mapping[str, JointForm] = {
    "power": JointForm("A K^a d^b", ("a", "b"), _columns("num_classes", "feature_dim")),
    "theory": JointForm("A K^(-2/(d-1)) d^b", ("b",), _columns("feature_dim"), _tied, margins_only=True),
    "levenshtein": JointForm("A times the Levenshtein bound", (), _columns(), _levenshtein, margins_only=True),
    "reference": JointForm("A times the best known margin", (), _columns(), _best_known, margins_only=True),
    "power-temperature": JointForm("A K^a d^b temperature^g", ("a", "b", "g"), _columns(*AXES), cold=True),
    "reference-coldness": JointForm("A (best known margin) coldness^g exp(h / coldness)", ("g", "h"),
                                    lambda axes: [log_coldness(axes), np.exp(-log_coldness(axes))],
                                    _best_known, cold=True, margins_only=True),
}  # fmt: skip


@dataclass(frozen=True)
class JointFit:
    """A fitted joint form: parameters, level by group, robust spread, AICc, diagnostics.
    Parameters have LEVEL intervals where there are MIN_CELLS class counts and as many dimensions. sizes: class counts.
    covariance: of the parameters, then the levels."""

    form: str
    parameters: tuple[Exponent, ...]
    levels: Mapping[str, float]
    scale: float
    aicc: float
    cells: int
    sizes: int
    diagnostics: Diagnostics
    covariance: np.ndarray = field(repr=False, compare=False)

    def expect(self, axes: Axes, group: str) -> Expected:
        """Where the logarithms of new cells at these axes are expected."""
        form = JOINT_FORMS[self.form]
        design = _design(form, axes, [group] * len(axes["num_classes"]), list(self.levels))
        coefficients = np.array([*(p.estimate for p in self.parameters), *self.levels.values()])
        reach = np.einsum("np,pq,nq->n", design.dense, self.covariance, design.dense)
        middle = form.fixed(axes) + design.at(coefficients)
        return Expected(middle, np.sqrt(reach + self.scale**2), max(self.sizes - 2, 1))


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

    @property
    def mean_error(self) -> float:
        """Mean over the tests of their median errors; NaN without any."""
        return float(np.mean([k.median_error for k in self.kept_out])) if self.kept_out else float("nan")


@dataclass(frozen=True)
class JointComparison:
    """All joint forms of one measure. chosen: the one with the least mean error in its tests; None if none was tested."""

    measure: str
    within: tuple[str, ...]
    verdicts: tuple[JointVerdict, ...]
    chosen: str | None
    settings: Mapping[str, Mapping[str, object]]

    @property
    def weighted(self) -> list[tuple[JointFit, Weight]]:
        """The fits that were tested, with their weights in a prediction; the chosen form's first.
        In the interval they go with one over the square of the scatter: most joint forms miss by far more than the noise."""
        tested = [(v.mean_error, v.fit) for v in self.verdicts if v.kept_out and v.fit]
        weights = [(fit, Weight(w.value, w.interval / max(fit.scale, 1e-9) ** 2)) for fit, w in weigh(tested)]
        return sorted(weights, key=lambda entry: entry[0].form != self.chosen)


def compare_joint(final: pa.Table, measure: str, within: Sequence[str]) -> JointComparison | None:
    """Fit and test every joint form; None where fewer than two dimensions were run."""
    final = for_fits(final, within).filter(pc.greater(final["feature_dim"], 1))  # on a line there is no margin
    if final.num_rows == 0 or len(final["feature_dim"].unique()) < 2:
        return None
    verdicts: list[JointVerdict] = []
    known: dict[str, dict[str, object]] = {}
    for name, form in JOINT_FORMS.items():
        if form.margins_only and measure != MARGIN:
            continue
        held = [n for n in within if not (form.cold and n == "temperature")]
        known |= settings_by_label(final, held)
        if (cells := cells_of(final, measure, held, AXES)) is not None:
            try:
                fit, refused = fit_joint(name, cells), None
            except FitRefused as refusal:
                fit, refused = None, str(refusal)
            tests = (_keep_out(name, cells, axis) for axis in (AXES if form.cold else AXES[:2]) if fit)
            verdicts.append(JointVerdict(name, fit, tuple(test for test in tests if test), refused))
    return JointComparison(measure, tuple(within), tuple(verdicts), _choose(verdicts), known)


def _choose(verdicts: Sequence[JointVerdict]) -> str | None:
    """Least mean error over the axes of size, fewest parameters among those as good up to a tenth."""
    tested = [(v.mean_error, v) for v in verdicts if v.kept_out and v.fit]
    if not tested:
        return None
    least = min(error for error, _ in tested)
    near = [(len(v.fit.parameters), error, v.form) for error, v in tested if v.fit and error <= 1.1 * least + 1e-9]
    return min(near)[2]


def fit_joint(name: str, cells: Cells, *, least: int = MIN_SIZES) -> JointFit:
    """Fit one joint form; FitRefused for too few cells, dimensions or temperatures, or axes that do not vary apart.
    least: values of num_classes, and of temperature for a form that reads it; of feature_dim two do."""
    form, axes = JOINT_FORMS[name], log_axes(cells)
    if form.cold and not np.isfinite(axes["temperature"]).all():
        raise FitRefused("some cells have no temperature")
    labels = sorted(cells.counts)
    design = _design(form, axes, cells.group, labels)
    needed = max(MIN_CELLS, design.shape[1] + 2)
    if design.shape[0] < needed:
        counts = f"{amount(design.shape[0], 'cell')} for {design.shape[1]} parameters"
        raise FitRefused(f"{counts}, at least {needed} are needed")
    for axis in AXES if form.cold else AXES[:2]:
        count = len(np.unique(axes[axis]))
        if count < (least if axis != "feature_dim" else 2):
            raise FitRefused(f"too few values of {axis} for this form, {count}")
    if not design.has_full_rank():
        raise FitRefused("the axes do not vary independently of each other")
    fit = fit_linear(design, cells.log_measure - form.fixed(axes))
    clusters = [len(np.unique(axes[axis])) for axis in AXES[:2]]
    jackknives = [clustered_covariance(fit, axes[axis]) for axis in AXES[:2]]
    students = [student_t.ppf((1 + LEVEL) / 2, max(count - 2, 1)) for count in clusters]
    halves = [student * np.sqrt(np.diag(found)) for student, found in zip(students, jackknives, strict=True)]
    known = np.max(halves, axis=0) if min(clusters) >= MIN_CELLS else None
    return JointFit(
        form=name, parameters=exponents_of(form.names, fit.coefficients, known),
        levels=dict(zip(labels, map(float, fit.coefficients[len(form.names) :]), strict=True)), scale=fit.scale,
        aicc=aicc(fit.residuals, fit.threshold, design.shape[1]), cells=design.shape[0], sizes=clusters[0],
        diagnostics=diagnose(fit, axes["num_classes"]), covariance=jackknives[0],
    )  # fmt: skip


def _design(form: JointForm, axes: Axes, group: Sequence[str], labels: Sequence[str]) -> Design:
    columns = np.array(form.columns(axes)).reshape(-1, len(group)).T
    return with_levels(columns, group, labels)


def _keep_out(name: str, cells: Cells, axis: str) -> KeptOut | None:
    """Predict the cells at the largest value (the lowest temperature) from the others; None where that cannot be."""
    along = log_axes(cells)[axis]
    if len(np.unique(along)) < 3:
        return None
    end = along.min() if axis == "temperature" else along.max()
    out = along == end
    try:
        fit = fit_joint(name, select(cells, ~out), least=2)
    except FitRefused:
        return None

    def expected(at: np.ndarray, group: str) -> Ends:
        axes = {name: np.log(at[:, i]) for i, name in enumerate(AXES)}
        middle, low, high = np.exp(mixed_interval([(fit.expect(axes, group), Weight())], 0.9))
        return middle, low, high

    held = judge(select(cells, out), set(fit.levels), expected)
    at = float(f"{np.exp(end):.6g}")
    return KeptOut(axis, at, held.median_error, held.covered, held.cells) if held else None
