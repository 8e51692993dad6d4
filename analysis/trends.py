"""Which power laws a study can be asked for, each fitted or refused with its reason, and what was left out.

Knows frames and fits; does not know figures or HTML.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.fits import FitRefused, PowerLawFit, fit_power_law
from analysis.frames import SHOWN_SETTINGS, groups, values, varied_settings

MARGIN = "margin_min_lower"
# gnc1_pinv is not among them: its division by K puts an exponent of -1 in by itself.
VARIABILITY = ("gnc1_rank", "trace_within", "cdnv_nearest")
MEASURES = (MARGIN, *VARIABILITY)
MAX_SERIES = 40  # single series in the report; the pooled fits use every row all the same


@dataclass(frozen=True)
class Trend:
    """One question to the data and its answer.

    where: the settings held fixed. within: settings that have a prefactor of their own. fit: with intervals, or the
    bare estimate when refused says why there are none, or None. not_terminal and not_positive: complete trials left out.
    """

    measure: str
    predictors: tuple[str, ...]
    where: dict[str, Any]
    within: tuple[str, ...]
    fit: PowerLawFit | None
    refused: str | None
    not_terminal: int
    not_positive: int

    @property
    def believed(self) -> PowerLawFit | None:
        """The fit when it has intervals."""
        return None if self.refused else self.fit


def fit_trends(final: pa.Table) -> list[Trend]:
    """Every trend in num_classes (and feature_dim) that the settings of these rows suggest.

    For each measure: one series per feature_dim and combination of the other settings; one fit per feature_dim with an
    exponent common to its series; one over all with exponents of num_classes and feature_dim.
    """
    others = independent_settings(final)
    found = []
    for measure in MEASURES:
        found.append(fit_trend(final, measure, ("num_classes", "feature_dim"), {}, others))
        for where, rows in groups(final, ["feature_dim"]):
            found.append(fit_trend(rows, measure, ("num_classes",), where, others))
            series = [g for g in groups(rows, others) if len(g[1]["num_classes"].unique()) > 1]
            for held, members in series[:MAX_SERIES] if len(series) > 1 else []:
                found.append(fit_trend(members, measure, ("num_classes",), where | held, []))
    return found


def fit_trend(
    rows: pa.Table, measure: str, predictors: tuple[str, ...], where: dict[str, Any], within: Sequence[str]
) -> Trend:
    """Fit one trend on the trials that reached the terminal phase and whose measure is positive."""
    terminal, measured = values(rows, "terminal"), values(rows, measure)
    positive = np.isfinite(measured) & (measured > 0)
    kept = rows.take(np.flatnonzero(terminal & positive))
    fit, refused = None, None
    if kept.num_rows == 0:
        refused = "no trial reached the terminal phase with a positive value"
    else:
        group = [", ".join(f"{n} = {v}" for n, v in zip(within, row, strict=True)) for row in _tuples(kept, within)]
        try:
            fit = fit_power_law(
                values(kept, measure),
                {name: values(kept, name) for name in predictors},
                cell=kept["cell"].to_pylist(),
                group=group,
            )
        except FitRefused as refusal:
            fit, refused = refusal.estimate, str(refusal)
    return Trend(
        measure=measure,
        predictors=predictors,
        where=where,
        within=tuple(within),
        fit=fit,
        refused=refused,
        not_terminal=int((~terminal).sum()),
        not_positive=int((terminal & ~positive).sum()),
    )


def trend_to_json(trend: Trend) -> dict[str, Any]:
    """A trend as fits.json holds it: plain numbers, null where there is nothing."""
    return dataclasses.asdict(trend)


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    columns = [table[name].to_pylist() for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def independent_settings(final: pa.Table) -> list[str]:
    """Settings that vary by themselves: not with the size (samples chosen by feature_dim) or with another of these."""
    varied = [name for name in varied_settings(final) if name not in ("num_classes", "feature_dim", "seed")]
    kept: list[str] = []
    for name in sorted(varied, key=lambda n: n not in SHOWN_SETTINGS):
        rows = groups(final, ["num_classes", "feature_dim", *kept])
        if any(len(members[name].unique()) > 1 for _, members in rows):
            kept.append(name)
    return kept
