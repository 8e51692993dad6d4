"""The forms that a trend in the number of classes can have: pure power, offset, tied to theory, a bound's curve, curved.

Every form is `log measure = level[group] + fixed(K, shape) + columns(K) @ coefficients`. Shape parameters are searched
on grids that zoom in; at each grid point the linear parameters are solved for (variable projection). Knows theory and
robust fits; does not know tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from analysis.rows import theory
from analysis.scaling.power_law import (
    Cells,
    Exponent,
    FitRefused,
    expected_ends,
    exponents_of,
    interval_halves,
    level_columns,
)
from analysis.statistics.huber import LinearFit, fit_linear, huber_losses
from analysis.statistics.inference import MIN_CELLS

Columns = Callable[[np.ndarray, int], np.ndarray]
Fixed = Callable[[np.ndarray, int, np.ndarray], np.ndarray]
GRID = 33  # points of a shape parameter's range
# Points of the grids that zoom in, how many steps of the last one they reach, and how many grids there are.
FINE, NEAR, ZOOMS = 13, 2, 10


@dataclass(frozen=True)
class Form:
    """One form. names: its linear coefficients; shapes: its shape parameters with the range that is searched."""

    formula: str
    names: tuple[str, ...] = ()
    columns: Columns = lambda k, d: np.empty((len(k), 0))
    fixed: Fixed = lambda k, d, shape: np.zeros(len(k))
    shapes: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class FormFit:
    """A fitted form: parameters with intervals, levels by group, Huber scale of log residuals, AICc.

    centre: the offset form measures K in units of this size, so that its parameters do not depend on a unit.
    """

    form: str
    feature_dim: int
    parameters: tuple[Exponent, ...]
    levels: Mapping[str, float]
    scale: float
    aicc: float
    cells: int
    residuals: tuple[float, ...]
    centre: float
    linear: LinearFit = field(repr=False, compare=False)

    def predict(self, num_classes: np.ndarray, group: str = "") -> np.ndarray:
        """The measure at these class counts."""
        return np.exp(self._log(np.asarray(num_classes, dtype=float), group))

    def predict_interval(
        self, num_classes: np.ndarray | float, group: str = "", *, level: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ends between which the averages of new cells are expected, an array each."""
        k = np.atleast_1d(np.asarray(num_classes, dtype=float))
        return expected_ends(self._log(k, group), design_of(self, k, group), self.linear, level)

    def _shape(self) -> np.ndarray:
        return np.array([p.estimate for p in self.parameters[len(FORMS[self.form].names) :]])

    def _log(self, k: np.ndarray, group: str) -> np.ndarray:
        form = FORMS[self.form]
        linear = np.array([p.estimate for p in self.parameters[: len(form.names)]])
        scaled = k / self.centre
        return np.asarray(
            self.levels[group] + form.fixed(_argument(form, scaled, k), self.feature_dim, self._shape())
            + form.columns(k, self.feature_dim) @ linear
        )  # fmt: skip


def design_of(fit: FormFit, num_classes: np.ndarray, group: str = "") -> np.ndarray:
    """Derivatives [n, parameters] of the log prediction at these class counts by every parameter, the levels last."""
    k = np.asarray(num_classes, dtype=float)
    own = _jacobian(FORMS[fit.form], k / fit.centre, k, fit.feature_dim, fit._shape())
    return np.concatenate([own, level_columns([group] * len(k), sorted(fit.levels))], axis=1)


def _log_columns(*powers: int) -> Columns:
    return lambda k, d: np.stack([np.log(k) ** power for power in powers], axis=1)


def _correction(k: np.ndarray, d: int) -> np.ndarray:
    return np.asarray(k ** theory.asymptotic_exponent(d))[:, None]


FORMS: Mapping[str, Form] = {
    "power": Form("A K^a", ("a",), _log_columns(1)),
    "offset": Form(
        "A (K^a + c)",
        fixed=lambda k, d, shape: np.log(k ** shape[0] + np.exp(shape[1])),
        shapes={"a": (-4.0, 2.0), "log c": (-9.0, 3.0)},
    ),
    "theory": Form(
        "A K^(-2/(d-1)) exp(c K^(-2/(d-1)))",
        ("c",),
        _correction,
        lambda k, d, shape: theory.asymptotic_exponent(d) * np.log(k),
    ),
    "corrected": Form(
        "A K^a exp(c K^(-2/(d-1)))",
        ("a", "c"),
        lambda k, d: np.concatenate([np.log(k)[:, None], _correction(k, d)], axis=1),
    ),
    "levenshtein": Form(
        "A times the Levenshtein bound", fixed=lambda k, d, shape: np.log(theory.levenshtein_curve(k, d))
    ),
    "reference": Form("A times the best known margin", fixed=lambda k, d, shape: np.log(theory.best_known_curve(k, d))),
    "curved": Form("A K^(a + b log K)", ("a", "b"), _log_columns(1, 2)),
}
# Margins can follow a bound's curve; for variability there is no such theory.
MARGIN_FORMS = tuple(FORMS)
VARIABILITY_FORMS = ("power", "offset", "curved")


def fit_form(name: str, cells: Cells, feature_dim: int, *, samples: int = 499, seed: int = 0) -> FormFit:
    """Fit one form to cells whose only predictor is num_classes.

    Args:
        name: one of FORMS. cells: from `analysis.scaling.power_law.average_cells`. feature_dim: d of all of them.
        samples, seed: of the bootstrap behind the parameters' intervals.
    Returns:
        The fit with LEVEL intervals on its parameters.
    Raises:
        FitRefused: fewer than MIN_CELLS cells, two cells fewer than parameters, sizes that do not tell them apart, or a
            shape parameter whose search leaves its range.
        ValueError: an unknown form.
    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973) for variable projection.
    """
    if name not in FORMS:
        raise ValueError(f"form must be one of {list(FORMS)}, got {name!r}.")
    form, k = FORMS[name], np.exp(cells.log_predictors[:, 0])
    centre = float(np.exp(np.mean(np.log(np.unique(k)))))
    labels = sorted(set(cells.group))
    levels = level_columns(cells.group, labels)
    columns = form.columns(k, feature_dim)
    count = columns.shape[1] + len(form.shapes) + len(labels)
    _check_enough(k, count, len(labels))
    inner = np.concatenate([columns, levels], axis=1)
    shape = _search(form, inner, cells.log_measure, k, centre, feature_dim)
    for (parameter, (least, most)), value in zip(form.shapes.items(), shape, strict=True):
        if not least <= value <= most:  # no offset, or a curve that rises without end
            raise FitRefused(f"the sizes do not tell {parameter}: its best value lies beyond {least:g} to {most:g}")
    target = cells.log_measure - form.fixed(_argument(form, k / centre, k), feature_dim, shape)
    solved = fit_linear(inner, target)
    design = np.concatenate([_jacobian(form, k / centre, k, feature_dim, shape), levels], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise FitRefused("the sizes do not tell the form's parameters apart")
    # around the solution the shape parameters are linear too: their interval comes from that tangent
    tangent = fit_linear(design, solved.residuals)
    halves = interval_halves(design, tangent, samples=samples, seed=seed)
    estimates = [*solved.coefficients[: columns.shape[1]], *shape]
    return FormFit(
        form=name,
        feature_dim=feature_dim,
        parameters=exponents_of([*form.names, *form.shapes], estimates, halves),
        levels=dict(zip(labels, map(float, solved.coefficients[columns.shape[1] :]), strict=True)),
        scale=tangent.scale,
        aicc=aicc(solved.residuals, solved.threshold, count),
        cells=len(k),
        residuals=tuple(map(float, solved.residuals)),
        centre=centre,
        linear=tangent,
    )


def _check_enough(k: np.ndarray, count: int, num_groups: int) -> None:
    cells, sizes = len(k), len(np.unique(k))
    if cells < max(MIN_CELLS, count + 2):
        raise FitRefused(f"{cells} cells for {count} parameters, at least {max(MIN_CELLS, count + 2)} are needed")
    if sizes < count - num_groups + 2:
        raise FitRefused(f"{sizes} sizes, at least {count - num_groups + 2} are needed for this form")


def aicc(residuals: np.ndarray, threshold: float, count: int) -> float:
    """Corrected Akaike criterion of Gaussian noise in which outliers weigh as much as in the Huber loss.

    Source: Hurvich and Tsai, Biometrika 76 (1989); one parameter more than `count` for the noise.
    """
    size = np.abs(residuals)
    bent = np.where(size <= threshold, size**2, threshold * (2 * size - threshold))
    n, k = len(residuals), count + 1
    spread = max(float(bent.mean()), 1e-24)
    return float(n * np.log(spread) + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1))


def _argument(form: Form, scaled: np.ndarray, k: np.ndarray) -> np.ndarray:
    """What fixed(K, shape) is a function of: K in units of the centre where there are shapes, K itself for bounds."""
    return scaled if form.shapes else k


def _search(
    form: Form, inner: np.ndarray, target: np.ndarray, k: np.ndarray, centre: float, feature_dim: int
) -> np.ndarray:
    """Shape parameters of least Huber loss: a grid over their ranges, then grids that zoom in around the best point."""
    if not form.shapes:
        return np.zeros(0)
    low, high = (np.array(ends) for ends in zip(*form.shapes.values(), strict=True))
    # one threshold for all points of the grid, or a bad shape would buy itself a lenient loss
    quadratic = np.concatenate([_log_columns(1, 2)(k, feature_dim), inner], axis=1)
    threshold = max(fit_linear(quadratic, target).threshold, 1e-9)
    best = (low + high) / 2
    for zoom in range(1 + ZOOMS):
        count = FINE if zoom else GRID
        axes = [np.linspace(a, b, count) for a, b in zip(low, high, strict=True)]
        points = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
        fixed = np.stack([form.fixed(_argument(form, k / centre, k), feature_dim, point) for point in points])
        best = points[int(np.argmin(huber_losses(inner, target - fixed, threshold)))]
        step = (high - low) / (count - 1)
        low, high = best - NEAR * step, best + NEAR * step
    return np.asarray(best)


def _jacobian(form: Form, scaled: np.ndarray, k: np.ndarray, feature_dim: int, shape: np.ndarray) -> np.ndarray:
    """Derivative of the log measure by every parameter but the levels, [n, parameters]."""
    found = [form.columns(k, feature_dim)]
    for index in range(len(shape)):
        step = np.zeros(len(shape))
        step[index] = 1e-5
        argument = _argument(form, scaled, k)
        change = form.fixed(argument, feature_dim, shape + step) - form.fixed(argument, feature_dim, shape - step)
        found.append(change[:, None] / 2e-5)
    return np.concatenate(found, axis=1)
