"""Forms of a trend in the number of classes, `log measure = level[group] + fixed(K, shape) + columns(K) @ coefficients`. Shape
parameters are searched on grids that zoom in; at each point the linear ones are solved for (variable projection)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.rows import theory
from analysis.scaling.cells import Cells
from analysis.scaling.power_law import Exponent, FitRefused, expect, exponents_of, interval_halves, why_no_interval
from analysis.statistics.huber import Design, LinearFit, fit_linear, huber_losses
from analysis.statistics.inference import Expected, Weight, mixed_interval

Columns = Callable[[np.ndarray, int], np.ndarray]
Fixed = Callable[[np.ndarray, int, np.ndarray], np.ndarray]
GRID = 33  # points of a shape parameter's range
# Points of the grids that zoom in, how many steps of the last one they reach, and how many grids there are.
FINE, REACH, ZOOMS = 13, 2, 10
LEAST_SQUARE = 1e-18  # of error and noise, in data without noise


@dataclass(frozen=True)
class Form:
    """One form. names: its linear coefficients; shapes: its shape parameters with the range that is searched."""

    formula: str
    names: tuple[str, ...] = ()
    columns: Columns = lambda k, d: np.empty((len(k), 0))
    fixed: Fixed = lambda k, d, shape: np.zeros(len(k))
    shapes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def argument(self, k: np.ndarray, centre: float) -> np.ndarray:
        """What fixed(K, shape) is a function of: K in units of the centre where there are shapes, K itself for bounds."""
        return k / centre if self.shapes else k


@dataclass(frozen=True)
class FormFit:
    """A fitted form: parameters with intervals, levels by group, Huber scale of the sizes' log residuals, AICc.
    centre: the offset form measures K in units of this size, so that its parameters do not depend on a unit.
    own_variance: by group, of a new cell about the value of its size; own_degrees: of freedom, that it is known with."""

    form: str
    feature_dim: int
    parameters: tuple[Exponent, ...]
    levels: Mapping[str, float]
    scale: float
    aicc: float
    cells: int
    sizes: int
    centre: float
    own_variance: Mapping[str, float] = field(repr=False)
    own_degrees: int = field(repr=False)
    linear: LinearFit = field(repr=False, compare=False)

    def predict(self, num_classes: np.ndarray, group: str = "") -> np.ndarray:
        return np.exp(self._log(np.asarray(num_classes, dtype=float), group))

    def predict_interval(self, num_classes: np.ndarray | float, group: str = "") -> tuple[np.ndarray, np.ndarray]:
        """The ends between which 90 % of the averages of new cells at new class counts are expected, an array each."""
        expected = self.expect(np.atleast_1d(np.asarray(num_classes, dtype=float)), group)
        _, low, high = np.exp(mixed_interval([(expected, Weight())], 0.9))
        return low, high

    def expect(self, num_classes: np.ndarray, group: str) -> Expected:
        """Where the logarithms of the averages of new cells are expected."""
        k = np.asarray(num_classes, dtype=float)
        return expect(self._log(k, group), design_of(self, k), self.linear, self.own_variance[group], self.own_degrees)

    def mean_exponent(self, least: float, largest: float) -> Expected:
        """The mean exponent between two sizes, as if the form were true."""
        ends, width, group = np.array([least, largest]), np.log(largest / least), min(self.levels)
        slope = np.diff(self._log(ends, group)) / width
        change = np.diff(design_of(self, ends), axis=0)[0] / width
        spread = np.sqrt(change @ self.linear.covariance @ change)
        return Expected(slope, spread[None], max(self.sizes - len(change), 1))

    def _shape(self) -> np.ndarray:
        return np.array([p.estimate for p in self.parameters[len(FORMS[self.form].names) :]])

    def _log(self, k: np.ndarray, group: str) -> np.ndarray:
        form = FORMS[self.form]
        linear = np.array([p.estimate for p in self.parameters[: len(form.names)]])
        fixed = form.fixed(form.argument(k, self.centre), self.feature_dim, self._shape())
        return np.asarray(self.levels[group] + fixed + form.columns(k, self.feature_dim) @ linear)


def design_of(fit: FormFit, num_classes: np.ndarray) -> np.ndarray:
    """Derivatives [n, parameters] of the log prediction at these class counts by every parameter, the level last."""
    k = np.asarray(num_classes, dtype=float)
    own = _jacobian(FORMS[fit.form], k, fit.centre, fit.feature_dim, fit._shape())
    return np.concatenate([own, np.ones((len(k), 1))], axis=1)


def _log_columns(*powers: int) -> Columns:
    return lambda k, d: np.stack([np.log(k) ** power for power in powers], axis=1)


def _correction(times: float) -> Columns:
    """log K and what fades as so many times the exponent of theory."""
    return lambda k, d: np.stack([np.log(k), k ** (times * theory.asymptotic_exponent(d))], axis=1)


FORMS: Mapping[str, Form] = {
    "power": Form("A K^a", ("a",), _log_columns(1)),
    "offset": Form("A (K^a + c)", fixed=lambda k, d, shape: np.log(k ** shape[0] + np.exp(shape[1])),
                   shapes={"a": (-4.0, 2.0), "log c": (-9.0, 3.0)}),
    "theory": Form("A K^(-2/(d-1)) exp(c K^(-2/(d-1)))", ("c",), lambda k, d: _correction(1)(k, d)[:, 1:],
                   lambda k, d, shape: theory.asymptotic_exponent(d) * np.log(k)),
    "corrected": Form("A K^a exp(c K^(-2/(d-1)))", ("a", "c"), _correction(1)),
    "levenshtein": Form("A times the Levenshtein bound",
                        fixed=lambda k, d, shape: np.log(theory.levenshtein_curve(k, d))),
    "reference": Form("A times the best known margin", fixed=lambda k, d, shape: np.log(theory.best_known_curve(k, d))),
    "curved": Form("A K^(a + b log K)", ("a", "b"), _log_columns(1, 2)),
    "corrected-slow": Form("A K^a exp(c K^(-1/(d-1)))", ("a", "c"), _correction(0.5)),
    "corrected-fast": Form("A K^a exp(c K^(-4/(d-1)))", ("a", "c"), _correction(2)),
}  # fmt: skip
# How the correction of theory's law fades is not known: its exponent is told from all three together, by `asymptote`.
CORRECTIONS = ("corrected", "corrected-slow", "corrected-fast")
# Margins can follow a bound's curve; for variability there is no such theory.
MARGIN_FORMS = tuple(name for name in FORMS if name not in CORRECTIONS[1:])
VARIABILITY_FORMS = ("power", "offset", "curved")
# What any smooth law looks like over a range; its odds were set on planted studies (tools/planted_studies.py).
FLEXIBLE, FLEXIBLE_ODDS = "curved", 6.0


def weigh(tested: Sequence[tuple[float, Any]]) -> list[tuple[Any, Weight]]:
    """Each fit with its weight: one over its held-out error, to whose square that of the noise is added.
    So no form weighs much more than another for an error that chance made small. In the interval the flexible form has
    FLEXIBLE_ODDS or more against all others, less where it scatters more than the best: few sizes do not show how a law
    bends beyond them, and a straighter form, wrong there, does not say so. A fit has a `form` and a `scale`, its noise."""
    noise = min((fit.scale for _, fit in tested), default=0.0)
    weights = np.array([1 / max(error**2 + noise**2, LEAST_SQUARE) ** 0.5 for error, _ in tested])
    flexible = np.array([fit.form == FLEXIBLE for _, fit in tested], dtype=bool)
    scatter = np.array([fit.scale for _, fit in tested])[flexible]
    least = weights[~flexible].sum() * FLEXIBLE_ODDS * noise**2 / np.maximum(scatter**2, LEAST_SQUARE)
    of_interval = weights.copy()
    of_interval[flexible] = np.maximum(weights[flexible], least)
    both = zip(weights / weights.sum(), of_interval / of_interval.sum(), strict=True)
    return [(fit, Weight(*map(float, pair))) for (_, fit), pair in zip(tested, both, strict=True)]


def fit_form(name: str, cells: Cells, feature_dim: int) -> FormFit:
    """Fit one form to cells whose only predictor is num_classes, with LEVEL intervals on its parameters.
    FitRefused: fewer than MIN_CELLS sizes, two sizes fewer than parameters, sizes that do not tell them apart, or a
    shape parameter whose search leaves its range. ValueError: an unknown form.
    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973) for variable projection."""
    if name not in FORMS:
        raise ValueError(f"form must be one of {list(FORMS)}, got {name!r}.")
    form, means = FORMS[name], cells.means
    k, levels = np.exp(means.log_size), np.ones((len(means.log_size), 1))
    centre = float(np.exp(np.mean(means.log_size)))
    argument, columns = form.argument(k, centre), form.columns(k, feature_dim)
    count = columns.shape[1] + len(form.shapes) + 1
    reason = why_no_interval(means, count)
    if len(k) <= count:
        raise FitRefused(reason)
    inner = Design(np.concatenate([columns, levels], axis=1))
    shape = _search(form, inner, means.log_measure, argument, feature_dim)
    for (parameter, (least, most)), value in zip(form.shapes.items(), shape, strict=True):
        if not least <= value <= most:  # no offset, or a curve that rises without end
            raise FitRefused(f"the sizes do not tell {parameter}: its best value lies beyond {least:g} to {most:g}")
    solved = fit_linear(inner, means.log_measure - form.fixed(argument, feature_dim, shape))
    design = np.concatenate([_jacobian(form, k, centre, feature_dim, shape), levels], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise FitRefused("the sizes do not tell the form's parameters apart")
    # around the solution the shape parameters are linear too: their interval comes from that tangent
    tangent = fit_linear(design, solved.residuals)
    estimates = [*solved.coefficients[: columns.shape[1]], *shape]
    halves = None if reason else interval_halves(design, tangent)
    fit = FormFit(
        form=name, feature_dim=feature_dim, parameters=exponents_of([*form.names, *form.shapes], estimates, halves),
        levels={g: float(level + solved.coefficients[-1]) for g, level in means.levels.items()}, scale=tangent.scale,
        aicc=aicc(solved.residuals, solved.threshold, count), cells=len(cells.group), sizes=len(k), centre=centre,
        own_variance=means.own_variance, own_degrees=means.own_degrees, linear=tangent,
    )  # fmt: skip
    if reason:
        raise FitRefused(reason, fit)
    return fit


def aicc(residuals: np.ndarray, threshold: float, count: int) -> float:
    """Corrected Akaike criterion of Gaussian noise in which outliers weigh as much as in the Huber loss.
    Source: Hurvich and Tsai, Biometrika 76 (1989); one parameter more than `count` for the noise."""
    size = np.abs(residuals)
    bent = np.where(size <= threshold, size**2, threshold * (2 * size - threshold))
    n, k = len(residuals), count + 1
    spread = max(float(bent.mean()), 1e-24)
    return float(n * np.log(spread) + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1))


def _search(form: Form, inner: Design, target: np.ndarray, argument: np.ndarray, feature_dim: int) -> np.ndarray:
    """Shape parameters of least Huber loss: a grid over their ranges, then grids that zoom in around the best point."""
    if not form.shapes:
        return np.zeros(0)
    low, high = (np.array(ends) for ends in zip(*form.shapes.values(), strict=True))
    # one threshold for all points of the grid, or a bad shape would buy itself a lenient loss
    quadratic = np.concatenate([_log_columns(1, 2)(argument, feature_dim), inner.columns], axis=1)
    threshold = max(fit_linear(quadratic, target).threshold, 1e-9)
    best = (low + high) / 2
    for zoom in range(1 + ZOOMS):
        count = FINE if zoom else GRID
        axes = [np.linspace(a, b, count) for a, b in zip(low, high, strict=True)]
        points = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
        fixed = form.fixed(argument, feature_dim, points.T[..., None])  # [points, sizes]
        best = points[int(np.argmin(huber_losses(inner, target - fixed, threshold)))]
        step = (high - low) / (count - 1)
        low, high = best - REACH * step, best + REACH * step
    return np.asarray(best)


def _jacobian(form: Form, k: np.ndarray, centre: float, feature_dim: int, shape: np.ndarray) -> np.ndarray:
    """Derivative of the log measure by every parameter but the levels, [n, parameters]."""
    argument, steps = form.argument(k, centre), 1e-5 * np.eye(len(shape))
    ends = ([form.fixed(argument, feature_dim, shape + sign * step) for step in steps] for sign in (1, -1))
    changes = ((up - down)[:, None] / 2e-5 for up, down in zip(*ends, strict=True))
    return np.concatenate([form.columns(k, feature_dim), *changes], axis=1)
