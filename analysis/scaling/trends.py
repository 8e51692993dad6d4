"""The power laws that the settings of a study suggest, each fitted or refused with its reason, and what was left out.

Knows frames and fits; does not know figures or pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows.frames import group_labels, groups, independent_settings, values
from analysis.rows.matched_time import VARIABILITY, at_equal_loss_excess, at_equal_steps
from analysis.rows.measures import MARGIN, SHORTFALL, measured_interval, usable
from analysis.scaling.power_law import Exponent, FitRefused, PowerLawFit, fit_power_law

# gnc1_pinv is not among the measures: it is divided by K, which alone gives an exponent of -1.
MEASURES = (MARGIN, *VARIABILITY)
AT_THE_END = (MARGIN, SHORTFALL)
AT_END = "end of training"
MAX_SERIES = 40  # single series in the report; the pooled fits use every row all the same


@dataclass(frozen=True)
class Trend:
    """One power law that was asked for, fitted or refused.

    where: the settings held fixed. within: settings whose values each have a prefactor of their own. moment: when in
    training the measure was read. fit: the fit with intervals; the bare estimate or None where refused says why there
    are none. not_terminal, not_positive: complete trials left out. with_all: the exponents with the trials that are not
    terminal included, empty where there are none.
    """

    measure: str
    predictors: tuple[str, ...]
    where: dict[str, Any]
    within: tuple[str, ...]
    moment: str
    fit: PowerLawFit | None
    refused: str | None
    not_terminal: int
    not_positive: int
    with_all: tuple[Exponent, ...]

    @property
    def believed(self) -> PowerLawFit | None:
        """The fit when it has intervals."""
        return None if self.refused else self.fit


def own_prefactors(trend: Trend) -> list[str]:
    """The settings of `within` that take more than one value among the fitted cells."""
    labels = trend.fit.levels if trend.fit else ()
    levels = [dict(part.split(" = ", 1) for part in label.split(", ") if part) for label in labels]
    return [name for name in trend.within if len({level.get(name) for level in levels}) > 1]


def fit_trends(final: pa.Table, rows: pa.Table | None = None) -> list[Trend]:
    """Every trend in num_classes (and feature_dim) that the settings of these rows suggest.

    For each measure: one series per feature_dim and combination of the other settings; one fit per feature_dim with an
    exponent common to its series; one over all with exponents of num_classes and feature_dim.

    Args:
        final: one row per complete trial. rows: their measured epochs, from which variability is read at shared moments;
            without them, and beside them, it is read at the end.
    """
    others = independent_settings(final)
    found = _trends_of(final, AT_THE_END, AT_END, others, series=True)
    matched = [] if rows is None else [at_equal_steps(rows, final), at_equal_loss_excess(rows, final)]
    for moment in filter(None, matched):
        found += _trends_of(moment.rows, VARIABILITY, moment.moment, others, series=False)
    return found + _trends_of(final, VARIABILITY, AT_END, others, series=True)


def _trends_of(
    final: pa.Table, measures: Sequence[str], moment: str, others: list[str], *, series: bool
) -> list[Trend]:
    found = []
    for measure in measures:
        if len(final["feature_dim"].unique()) > 1:
            found.append(fit_trend(final, measure, ("num_classes", "feature_dim"), {}, others, moment))
        for where, rows in groups(final, ["feature_dim"]):
            found.append(fit_trend(rows, measure, ("num_classes",), where, others, moment))
            single = [g for g in groups(rows, others) if len(g[1]["num_classes"].unique()) > 1] if series else []
            for held, members in single[:MAX_SERIES] if len(single) > 1 else []:
                found.append(fit_trend(members, measure, ("num_classes",), where | held, [], moment))
    return found


def fit_trend(
    rows: pa.Table,
    measure: str,
    predictors: tuple[str, ...],
    where: dict[str, Any],
    within: Sequence[str],
    moment: str = AT_END,
) -> Trend:
    """Fit one trend on the trials that reached the terminal phase and whose measure is positive."""
    terminal, positive = values(rows, "terminal"), usable(*measured_interval(rows, measure))
    fit, refused = _fit(rows.take(np.flatnonzero(terminal & positive)), measure, predictors, within)
    others = None if terminal.all() else _fit(rows.take(np.flatnonzero(positive)), measure, predictors, within)[0]
    return Trend(
        measure=measure,
        predictors=predictors,
        where=where,
        within=tuple(within),
        moment=moment,
        fit=fit,
        refused=refused,
        not_terminal=int((~terminal).sum()),
        not_positive=int((terminal & ~positive).sum()),
        with_all=others.exponents if others else (),
    )


def _fit(
    kept: pa.Table, measure: str, predictors: tuple[str, ...], within: Sequence[str]
) -> tuple[PowerLawFit | None, str | None]:
    """The fit, or the bare estimate and the reason why it has no intervals."""
    if kept.num_rows == 0:
        return None, "no trial reached the terminal phase with a positive value"
    numbers = {name: values(kept, name) for name in predictors}
    cell, group = kept["cell"].to_pylist(), group_labels(kept, within)
    try:
        low, high = measured_interval(kept, measure)
        return fit_power_law(low, numbers, cell=cell, group=group, upper=high), None
    except FitRefused as refusal:
        return refusal.estimate, str(refusal)
