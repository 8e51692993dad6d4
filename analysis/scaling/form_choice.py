"""Chooses the form of a trend: every form is fitted, and tested by predicting the largest sizes from the smaller ones.

AICc is reported too, but decides nothing. Knows forms and frames; draws nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows.frames import group_labels, groups, independent_settings, settings_by_label, values
from analysis.rows.measures import MARGIN
from analysis.scaling.forms import MARGIN_FORMS, VARIABILITY_FORMS, FormFit, fit_form
from analysis.scaling.power_law import Cells, Exponent, FitRefused, average_cells, select
from analysis.scaling.trends import MEASURES

# The largest quarter of the sizes is held out, at least one size.
HELD_OUT_SHARE = 0.25
ROUND_OFF = 1e-9  # a smaller curvature is rounding error, in data without noise
WORST_ERROR = 0.5  # a form that misses by more than this has not predicted anything


@dataclass(frozen=True)
class HeldOut:
    """How well a form fitted to the smaller sizes predicted the larger: relative errors, and the share inside 90 %."""

    median_error: float
    covered: float
    cells: int
    sizes: tuple[int, ...]
    errors: tuple[float, ...] = field(default=(), repr=False)

    @property
    def mean_error(self) -> float:
        """Mean relative error; with few cells it separates two forms more often than the median does."""
        return float(np.mean(self.errors)) if self.errors else self.median_error


@dataclass(frozen=True)
class FormVerdict:
    """One form's fit and its test; refused says why there are none."""

    form: str
    fit: FormFit | None
    held_out: HeldOut | None
    refused: str | None


@dataclass(frozen=True)
class FormComparison:
    """All forms for one measure at one feature_dim. chosen: see `choose`.

    left_out: complete trials that did not reach the terminal phase or have no positive value. with_all: the chosen
    form's parameters with those trials included, empty where none was left out. settings: of each group, by its label.
    """

    measure: str
    feature_dim: int
    within: tuple[str, ...]
    verdicts: tuple[FormVerdict, ...]
    chosen: str | None
    cells: Cells
    left_out: int = 0
    with_all: tuple[Exponent, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def power_law_is_misspecified(self) -> bool:
        """Whether the curvature of the curved form keeps its sign over its whole interval."""
        curved = [v.fit for v in self.verdicts if v.form == "curved" and v.fit]
        if not curved:
            return False
        bend = next(p for p in curved[0].parameters if p.name == "b")
        if bend.low is None or bend.high is None or bend.low * bend.high <= 0:
            return False
        return min(abs(bend.low), abs(bend.high)) > ROUND_OFF


def compare_all(final: pa.Table) -> list[FormComparison]:
    """A comparison for each measure at each feature_dim that has at least three class counts."""
    found = []
    within = independent_settings(final)
    for measure in MEASURES:
        for where, rows in groups(final, ["feature_dim"]):
            dim = where["feature_dim"]
            cells = cells_of(rows, measure, within)
            if dim >= 2 and cells is not None and len(np.unique(cells.log_predictors)) >= 3:
                compared = compare_forms(cells, dim, measure, within)
                found.append(_with_others(compared, rows))
    return found


def _with_others(compared: FormComparison, rows: pa.Table) -> FormComparison:
    """The comparison with the number of trials left out, the fit that includes them, and the settings of its groups."""
    measured, within = values(rows, compared.measure), compared.within
    positive = np.isfinite(measured) & (measured > 0)
    left_out = int((~(positive & values(rows, "terminal"))).sum())
    everything = cells_of(rows, compared.measure, within, terminal_only=False)
    others: tuple[Exponent, ...] = ()
    if compared.chosen and everything is not None and not values(rows, "terminal").all():
        with suppress(FitRefused):
            others = fit_form(compared.chosen, everything, compared.feature_dim, samples=49).parameters
    return replace(compared, left_out=left_out, with_all=others, settings=settings_by_label(rows, within))


def cells_of(rows: pa.Table, measure: str, within: Sequence[str], *, terminal_only: bool = True) -> Cells | None:
    """Cell averages of the trials that reached the terminal phase with a positive measure; None without any."""
    measured = values(rows, measure)
    wanted = values(rows, "terminal") | (not terminal_only)
    kept = rows.take(np.flatnonzero(wanted & np.isfinite(measured) & (measured > 0)))
    if kept.num_rows == 0:
        return None
    group = group_labels(kept, within)
    predictors = {"num_classes": values(kept, "num_classes")}
    return average_cells(values(kept, measure), predictors, kept["cell"].to_pylist(), group)


def compare_forms(cells: Cells, feature_dim: int, measure: str, within: Sequence[str] = ()) -> FormComparison:
    """Fit and test every form that suits the measure."""
    names = MARGIN_FORMS if measure == MARGIN else VARIABILITY_FORMS
    verdicts = tuple(verdict_of(name, cells, feature_dim) for name in names)
    return FormComparison(measure, feature_dim, tuple(within), verdicts, choose(verdicts), cells)


def choose(verdicts: Sequence[FormVerdict]) -> str | None:
    """The form with fewest parameters whose mean held-out error is as good as the best, up to the noise of those cells.

    Where a simple form is true, a form that contains it predicts equally well, and the smaller error alone would choose
    it half the time. The mean is compared, since the median of three held-out cells depends on one of them.
    """
    tested = [(v.held_out.mean_error, v.fit, v) for v in verdicts if v.held_out and v.fit]
    if not tested:
        return None
    least, fit, best = min(tested, key=lambda entry: entry[0])
    assert best.held_out is not None
    if best.held_out.median_error > WORST_ERROR:
        return None
    as_good = least + fit.scale / np.sqrt(best.held_out.cells)
    near = [(len(fit.parameters), error, v.form) for error, fit, v in tested if error <= as_good]
    return min(near)[2]


def verdict_of(name: str, cells: Cells, feature_dim: int, *, samples: int = 499) -> FormVerdict:
    """One form fitted and tested; samples: of the bootstrap behind its parameters' intervals."""
    try:
        fit = fit_form(name, cells, feature_dim, samples=samples)
    except FitRefused as refusal:
        return FormVerdict(name, None, None, str(refusal))
    return FormVerdict(name, fit, hold_out(name, cells, feature_dim), None)


def hold_out(name: str, cells: Cells, feature_dim: int) -> HeldOut | None:
    """Fit to the smaller sizes and predict the cells of the larger; None where too little is left to fit."""
    return predict_out(name, cells, feature_dim, largest_sizes(cells))


def largest_sizes(cells: Cells) -> np.ndarray:
    """The logarithms of the sizes that are held out."""
    sizes = np.unique(cells.log_predictors[:, 0])
    return sizes[-max(1, round(HELD_OUT_SHARE * len(sizes))) :]


def predict_out(name: str, cells: Cells, feature_dim: int, top: np.ndarray) -> HeldOut | None:
    """Predict the cells of these log sizes from all the others; None where too little is left to fit."""
    out = np.isin(cells.log_predictors[:, 0], top)
    try:
        fit = fit_form(name, select(cells, ~out), feature_dim, samples=49)
    except FitRefused:
        return None
    held = select(cells, out)
    errors: list[float] = []
    inside: list[bool] = []
    for measured, k, group in zip(np.exp(held.log_measure), np.exp(held.log_predictors), held.group, strict=True):
        if group in fit.levels:
            low, high = fit.predict_interval(k, group)
            errors.append(abs(float(fit.predict(k, group)[0]) / measured - 1))
            inside.append(bool(low[0] <= measured <= high[0]))
    if not errors:
        return None
    sizes = tuple(round(float(np.exp(s))) for s in top)
    return HeldOut(float(np.median(errors)), float(np.mean(inside)), len(errors), sizes, tuple(map(float, errors)))


@dataclass(frozen=True)
class LargestHeldOut:
    """One measure at one feature_dim: the form, how it was chosen (held-out sizes of the rest, or AICc), the outcome."""

    measure: str
    feature_dim: int
    form: str
    chosen_by: str
    held: HeldOut


def hold_out_largest(comparisons: Sequence[FormComparison]) -> list[LargestHeldOut]:
    """The largest size predicted by a form that is both chosen and fitted without it.

    A form chosen by its error on the largest sizes has seen them, so its error there is no prediction error. Comparisons
    whose smaller sizes do not suffice for any form are left out.
    """
    return [found for found in map(_hold_out_largest, comparisons) if found is not None]


def _hold_out_largest(comparison: FormComparison) -> LargestHeldOut | None:
    log_k = comparison.cells.log_predictors[:, 0]
    rest = select(comparison.cells, log_k < log_k.max())
    if len(np.unique(rest.log_predictors)) < 2:
        return None
    inner = compare_forms(rest, comparison.feature_dim, comparison.measure, comparison.within)
    fits = [v.fit for v in inner.verdicts if v.fit]
    if not fits:
        return None
    form = inner.chosen or min(fits, key=lambda fit: fit.aicc).form
    held = predict_out(form, comparison.cells, comparison.feature_dim, np.array([log_k.max()]))
    if held is None:
        return None
    chosen_by = "its largest sizes" if inner.chosen else "AICc"
    return LargestHeldOut(comparison.measure, comparison.feature_dim, form, chosen_by, held)


def summarise_by_measure(found: Sequence[LargestHeldOut]) -> dict[str, HeldOut]:
    """By measure, the outcomes of all its dimensions as one."""
    summaries = {}
    for measure in dict.fromkeys(one.measure for one in found):
        own = [one.held for one in found if one.measure == measure]
        errors, cells = [e for held in own for e in held.errors], sum(held.cells for held in own)
        covered = sum(held.covered * held.cells for held in own) / cells
        sizes = tuple(sorted({size for held in own for size in held.sizes}))
        summaries[measure] = HeldOut(float(np.median(errors)), covered, cells, sizes, tuple(errors))
    return summaries
