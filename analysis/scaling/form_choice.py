"""Chooses the form of a trend: every form is fitted, and tested by predicting the largest sizes from the smaller ones. AICc
is reported too, but decides nothing. Knows forms and frames; draws nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows.frames import SIZES, group_labels, groups, independent_settings, ranks, settings_by_label, values
from analysis.rows.measures import MARGIN, for_fits, without_positive
from analysis.scaling.cells import Cells, average_cells, select
from analysis.scaling.forms import MARGIN_FORMS, VARIABILITY_FORMS, FormFit, fit_form, weigh
from analysis.scaling.power_law import EQUAL_LEVEL, Exponent, FitRefused
from analysis.scaling.trends import MEASURES
from analysis.statistics.inference import LEVEL, Weight, mixed_interval, p_text
from gnc_models.progress import counted

ROUND_OFF = 1e-9  # a smaller curvature is rounding error, in data without noise
WORST_ERROR = 0.5  # a form that misses by more than this has not predicted anything
MOST_SERIES = 12  # fitted one by one at one feature_dim where their slopes differ
Ends = tuple[np.ndarray, np.ndarray, np.ndarray]  # prediction and its interval's ends


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
    """One form's fit and its test; refused says why there is no fit with intervals, bare is the fit without them."""

    form: str
    fit: FormFit | None
    held_out: HeldOut | None
    refused: str | None
    bare: FormFit | None = None


@dataclass(frozen=True)
class FormComparison:
    """All forms for one measure at one feature_dim. chosen: see `choose`.
    left_out: complete trials that are not terminal or have no positive value. with_all: the chosen form's parameters with
    those trials included. settings: of each group, by its label. series: a comparison for each group by itself where their
    slopes differ, the largest MOST_SERIES; slopes_p: the p value that they do not."""

    measure: str
    feature_dim: int
    within: tuple[str, ...]
    verdicts: tuple[FormVerdict, ...]
    chosen: str | None
    cells: Cells
    left_out: int = 0
    with_all: tuple[Exponent, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    series: tuple["FormComparison", ...] = ()
    slopes_p: float | None = None

    @property
    def weighted(self) -> list[tuple[FormFit, Weight]]:
        """The fits that predicted the held-out sizes, with their weights in what is said of all; the chosen form's first."""
        tested = [(v.held_out.mean_error, v.fit) for v in self.verdicts if v.held_out and v.fit]
        return sorted(weigh(tested), key=lambda entry: entry[0].form != self.chosen)

    def expected(self, num_classes: np.ndarray, group: str) -> Ends:
        """The prediction of all tested forms together, and the ends that 90 % of new cells lie between."""
        parts = [(fit.expect(num_classes, group), weight) for fit, weight in self.weighted if group in fit.levels]
        middle, low, high = np.exp(mixed_interval(parts, 0.9))
        return middle, low, high

    @property
    def slope(self) -> Exponent | None:
        """The mean exponent from the least to the largest size, by all tested forms together; None without a chosen one."""
        if not self.chosen:
            return None
        k = np.exp(self.cells.log_predictors[:, 0])
        parts = [(fit.mean_exponent(k.min(), k.max()), weight) for fit, weight in self.weighted]
        return Exponent("mean exponent", *(float(end[0]) for end in mixed_interval(parts, LEVEL)))

    @property
    def power_law_is_misspecified(self) -> bool:
        """Whether the curvature of the curved form keeps its sign over its whole interval."""
        fits = [v.fit for v in self.verdicts if v.form == "curved" and v.fit]
        bends = (p for fit in fits for p in fit.parameters if p.name == "b")
        return any(not bend.holds(0) and min(abs(bend.low or 0), abs(bend.high or 0)) > ROUND_OFF for bend in bends)


def compare_all(final: pa.Table) -> list[FormComparison]:
    """A comparison for each measure at each feature_dim that has at least three class counts."""
    found = []
    within = independent_settings(final)
    final = for_fits(final, within)
    for measure in counted(MEASURES, "measures", len(MEASURES)):
        for where, rows in counted(groups(final, ["feature_dim"]), "dimensions", len(final["feature_dim"].unique())):
            cells, dim = cells_of(rows, measure, within), where["feature_dim"]
            if dim >= 2 and cells is not None and len(np.unique(cells.log_predictors)) >= 3:
                lost = without_positive(rows, measure, values(rows, measure) > 0)
                found.append(_with_others(compare_forms(cells, dim, measure, within, refused=lost), rows))
    return found


def one_by_one(comparisons: Iterable[FormComparison]) -> list[FormComparison]:
    """The comparisons, each whose series have different slopes followed by those series."""
    return [one for comparison in comparisons for one in (comparison, *comparison.series)]


def _with_others(compared: FormComparison, rows: pa.Table) -> FormComparison:
    """The comparison with the number of trials left out, the fit that includes them, and the settings of its groups."""
    terminal, measured = values(rows, "terminal"), values(rows, compared.measure)
    left_out = int((~(terminal & np.isfinite(measured) & (measured > 0))).sum())
    everything = cells_of(rows, compared.measure, compared.within, terminal_only=False)
    others: tuple[Exponent, ...] = ()
    if compared.chosen and everything is not None and not terminal.all():
        with suppress(FitRefused):
            others = fit_form(compared.chosen, everything, compared.feature_dim).parameters
    return replace(with_settings(compared, rows), left_out=left_out, with_all=others)


def with_settings(compared: FormComparison, rows: pa.Table) -> FormComparison:
    """The comparison, and those of its series, with the settings of their groups in these rows."""
    settings = settings_by_label(rows, compared.within)
    series = tuple(with_settings(one, rows) for one in compared.series)
    own = {label: settings[label] for label in set(compared.cells.group) if label in settings}
    return replace(compared, settings=own, series=series)


def cells_of(
    rows: pa.Table, measure: str, within: Sequence[str], axes: Sequence[str] = SIZES[:1], *, terminal_only: bool = True
) -> Cells | None:
    """Cell averages of the trials that reached the terminal phase with a positive measure; None without any."""
    measured = values(rows, measure)
    wanted = values(rows, "terminal") | (not terminal_only)
    kept = rows.take(np.flatnonzero(wanted & np.isfinite(measured) & (measured > 0)))
    if kept.num_rows == 0:
        return None
    predictors = {name: values(kept, name) for name in axes}
    return average_cells(values(kept, measure), predictors, ranks(kept, "cell"), group_labels(kept, within))


def compare_forms(
    cells: Cells, feature_dim: int, measure: str, within: Sequence[str] = (), *,
    names: Sequence[str] | None = None, refused: str = "",
) -> FormComparison:  # fmt: skip
    """Fit and test every form that suits the measure, or those named; groups whose slopes differ one by one.
    refused: a reason why none may be fitted."""
    names = names or (MARGIN_FORMS if measure == MARGIN else VARIABILITY_FORMS)
    about, slopes_p = (measure, feature_dim, tuple(within)), cells.means.slopes_p
    if slopes_p is None or slopes_p >= EQUAL_LEVEL or refused:
        refusals = (FormVerdict(name, None, None, refused) for name in names)
        verdicts = tuple(refusals if refused else (verdict_of(name, cells, feature_dim) for name in names))
        return FormComparison(*about, verdicts, choose(verdicts), cells, slopes_p=slopes_p)
    labels = sorted(cells.counts, key=lambda g: (-cells.counts[g], g))
    reason = f"the exponents of the {len(labels)} series differ ({p_text(slopes_p)} that they are equal)"
    own = (select(cells, np.array(cells.group) == label) for label in labels[:MOST_SERIES])
    series = tuple(compare_forms(one, feature_dim, measure, within, names=names) for one in own)
    verdicts = tuple(FormVerdict(name, None, None, reason) for name in names)
    return FormComparison(*about, verdicts, None, cells, series=series, slopes_p=slopes_p)


def choose(verdicts: Sequence[FormVerdict]) -> str | None:
    """The form with fewest parameters whose mean held-out error is as good as the best, up to the noise of those sizes.
    Where a simple form is true, a form that contains it predicts equally well, and the smaller error alone would choose
    it half the time. The mean is compared, since the median of three held-out cells depends on one of them."""
    tested = [(v.held_out.mean_error, v.fit, v) for v in verdicts if v.held_out and v.fit]
    if not tested:
        return None
    least, fit, best = min(tested, key=lambda entry: entry[0])
    assert best.held_out is not None
    if best.held_out.median_error > WORST_ERROR:
        return None
    as_good = least + fit.scale / np.sqrt(len(best.held_out.sizes))
    near = [(len(fit.parameters), error, v.form) for error, fit, v in tested if error <= as_good]
    return min(near)[2]


def verdict_of(name: str, cells: Cells, feature_dim: int) -> FormVerdict:
    try:
        fit = fit_form(name, cells, feature_dim)
    except FitRefused as refusal:
        return FormVerdict(name, None, None, str(refusal), refusal.estimate)
    return FormVerdict(name, fit, hold_out(name, cells, feature_dim), None)


def hold_out(name: str, cells: Cells, feature_dim: int) -> HeldOut | None:
    """Fit to the smaller sizes and predict the cells of the larger; None where too little is left to fit."""
    smaller, larger = cells.halves
    try:
        fit = fit_form(name, smaller, feature_dim)
    except FitRefused as refusal:  # a test needs the prediction alone, not the intervals that were refused
        if refusal.estimate is None:
            return None
        fit = refusal.estimate
    return judge(larger, set(fit.levels), lambda k, g: (fit.predict(k[:, 0], g), *fit.predict_interval(k[:, 0], g)))


def judge(held: Cells, known: set[str], expected: Callable[[np.ndarray, str], Ends]) -> HeldOut | None:
    """Predictions compared with the cells of the known groups that were kept out.
    expected: of the predictors [cells, predictors] of cells of one group."""
    measured, sizes, group = np.exp(held.log_measure), np.exp(held.log_predictors), np.array(held.group)
    ends = np.full((3, len(measured)), np.nan)
    for name in known.intersection(held.group):
        ends[:, group == name] = expected(sizes[group == name], name)
    kept = np.isin(group, list(known))
    if not kept.any():
        return None
    measured, (middle, low, high) = measured[kept], ends[:, kept]
    errors, inside = np.abs(middle / measured - 1), (low <= measured) & (measured <= high)
    told = tuple(round(float(size)) for size in np.unique(sizes[:, 0]))
    return HeldOut(float(np.median(errors)), float(np.mean(inside)), len(errors), told, tuple(map(float, errors)))
