"""The power laws that the settings of a study suggest, each fitted or refused with its reason, and what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows import measures
from analysis.rows.frames import SIZES, group_labels, groups, independent_settings, ranks, values
from analysis.rows.measures import MARGIN, SHORTFALL, VARIABILITY, measured_interval, usable, without_positive
from analysis.scaling.power_law import Exponent, FitRefused, PowerLawFit, fit_power_law
from gnc_models.progress import counted

# gnc1_pinv is not among the measures: it is divided by K, which alone gives an exponent of -1.
MEASURES = (MARGIN, *VARIABILITY)
AT_THE_END = (MARGIN, SHORTFALL)
AT_END = "end of training"
MAX_SERIES = 40  # single series in the report; the pooled fits use every row all the same


@dataclass(frozen=True)
class Trend:
    """One power law that was asked for, fitted or refused.
    predictor: the size that it is a trend in. where: the settings held fixed. within: settings whose values each have a
    prefactor of their own. moment: when in training the measure was read. fit: the bare estimate or None where refused says
    why there are no intervals. not_terminal, not_positive: complete trials left out. with_all: with not_terminal ones."""

    measure: str
    predictor: str
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
        return None if self.refused else self.fit


def own_prefactors(trend: Trend) -> list[str]:
    """The settings of `within` that take more than one value among the fitted cells."""
    labels = trend.fit.levels if trend.fit else ()
    levels = [dict(part.split(" = ", 1) for part in label.split(", ") if part) for label in labels]
    return [name for name in trend.within if len({level.get(name) for level in levels}) > 1]


def fit_trends(final: pa.Table, rows: pa.Table | None = None) -> list[Trend]:
    """Every trend in num_classes (and feature_dim) that the settings of the complete trials suggest.
    rows: their measured epochs, from which variability is read at shared moments; beside them it is read at the end."""
    others = independent_settings(final)
    final = measures.for_fits(final, others)
    matched = [] if rows is None else [measures.at_equal_steps(rows, final), measures.at_equal_loss_excess(rows, final)]
    asked = [(final, measure, AT_END) for measure in AT_THE_END]
    asked += [(read_then, measure, moment) for read_then, moment in filter(None, matched) for measure in VARIABILITY]
    asked += [(final, measure, AT_END) for measure in VARIABILITY]
    found: list[Trend] = []
    for table, measure, moment in counted(asked, "trends", len(asked)):
        found += trends_of(table, measure, others, moment, series=moment == AT_END)
    return found


def trends_of(
    final: pa.Table, measure: str, others: Sequence[str], moment: str = AT_END, *, series: bool = True
) -> list[Trend]:
    """The trends of one measure: in each size over all values of the other, in num_classes at each feature_dim, by series.
    others: settings whose values each have a prefactor. series: whether single series are fitted too, and not only where
    the test says that their exponents differ."""
    # margins are not pooled over feature_dim: by theory their exponent differs there, and few sizes do not show it
    found = []
    if measure != MARGIN and len(final["feature_dim"].unique()) > 1:
        for name, other in (SIZES, SIZES[::-1]):
            found.append(fit_trend(final, measure, {}, [other, *others], moment, predictor=name))
    for where, rows in counted(groups(final, ["feature_dim"]), "dimensions", len(final["feature_dim"].unique())):
        pooled = fit_trend(rows, measure, where, others, moment)
        found.append(pooled)
        if series or (pooled.fit and pooled.fit.slopes_differ):
            single = [g for g in groups(rows, others) if len(g[1]["num_classes"].unique()) > 1]
            for held, members in single[:MAX_SERIES] if len(single) > 1 else []:
                found.append(fit_trend(members, measure, where | held, [], moment))
    return found


def fit_trend(
    rows: pa.Table, measure: str, where: dict[str, Any], within: Sequence[str], moment: str = AT_END,
    *, predictor: str = "num_classes",
) -> Trend:  # fmt: skip
    """Fit one trend on the trials that reached the terminal phase and whose measure is positive.
    Refused where a size has values and none of them is positive: the trend of the others would not be that of all."""
    terminal, positive = values(rows, "terminal"), usable(*measured_interval(rows, measure))
    fit, refused = _fit(rows.take(np.flatnonzero(terminal & positive)), measure, predictor, within)
    if lost := without_positive(rows, measure, positive, predictor):
        refused = refused or lost
    others = None if terminal.all() else _fit(rows.take(np.flatnonzero(positive)), measure, predictor, within)[0]
    left_out, with_all = (int((~terminal).sum()), int((terminal & ~positive).sum())), others.exponents if others else ()
    return Trend(measure, predictor, where, tuple(within), moment, fit, refused, *left_out, with_all)


def _fit(kept: pa.Table, measure: str, predictor: str, within: Sequence[str]) -> tuple[PowerLawFit | None, str | None]:
    """The fit, or the bare estimate and the reason why it has no intervals."""
    if kept.num_rows == 0:
        return None, "no trial reached the terminal phase with a positive value"
    sizes, cell, group = values(kept, predictor), ranks(kept, "cell"), group_labels(kept, within)
    try:
        low, high = measured_interval(kept, measure)
        return fit_power_law(low, sizes, name=predictor, cell=cell, group=group, upper=high), None
    except FitRefused as refusal:
        return refusal.estimate, str(refusal)
