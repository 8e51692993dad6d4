"""The sentences at the top of the report: what was studied, and the result. Their numbers come from fits and rows.

Knows rows and fits; does not know pages.
"""

import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.rows import theory
from analysis.rows.frames import StudyFrame, distinct, median, values
from analysis.rows.measures import MARGIN
from analysis.rows.wording import number, percent
from analysis.scaling.form_choice import FormComparison
from analysis.scaling.power_law import Exponent
from analysis.scaling.trends import Trend, own_prefactors

BEATEN = 1e-6  # above the best known margin by more than its rounding
STATE_ORDER = ("complete", "stopped", "diverged", "failed")


def study_name(frame: StudyFrame) -> str:
    """The name in the study file; `Study` where there is none."""
    try:
        return str(tomllib.loads(frame.study or "").get("name") or "Study")
    except tomllib.TOMLDecodeError:
        return "Study"


def listed(items: Sequence[Any], *, most: int = 6) -> str:
    """`a, b and c`; a longer list as its ends."""
    texts = [number(float(i)) if isinstance(i, int | float) else str(i) for i in items if i is not None]
    if len(texts) > most:
        return f"{texts[0]} to {texts[-1]}"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else ""


def sentence_studied(frame: StudyFrame) -> str:
    """What was studied: data, networks, the grid, and how the trials ended."""
    trials = frame.trials
    networks, data = (listed(distinct(trials, name)) for name in ("encoder", "dataset"))
    sizes, dims = (listed(distinct(trials, name)) for name in ("num_classes", "feature_dim"))
    parts = [f"{trials.num_rows} trial{'s' * (trials.num_rows != 1)} of {networks} on {data}"]
    parts.append(f"K = {sizes} classes in d = {dims} feature dimensions")
    if temperatures := [t for t in distinct(trials, "temperature") if t is not None]:
        parts.append(f"temperature {listed(temperatures)}")
    parts.append(f"normalization {listed(distinct(trials, 'normalization'))}")
    states = trials["state"].to_pylist()
    ends = ", ".join(f"{states.count(s)} {s}" for s in STATE_ORDER if s in states)
    terminal = int(values(frame.final, "terminal").sum()) if frame.final.num_rows else 0
    return f"{'; '.join(parts)}. {ends.capitalize()}; {terminal} reached 99 % training accuracy."


def sentences_answer(frame: StudyFrame, trends: Sequence[Trend]) -> str:
    """The answer in two sentences: what training did, and how the margin goes with the number of classes."""
    if frame.final.num_rows == 0:
        return "No trial is complete, so there is no answer yet."
    return f"{sentence_collapse(frame)} {sentence_trend(trends)}"


def sentence_collapse(frame: StudyFrame) -> str:
    """Variability, duality and margin at the end against the beginning, and the margin against the best code known."""
    parts = []
    for name, label in (("gnc1_rank", "variability (gnc1_rank)"), ("gnc3_uncentred", "duality gap (gnc3_uncentred)")):
        first, last = medians_over_training(frame, name)
        if np.isfinite([first, last]).all():
            verb = "fell" if last < first else "rose"
            parts.append(f"the median {label} {verb} from {number(first)} to {number(last)}")
    start = "Over training " + " and ".join(parts) if parts else "The trials were measured only at their end"
    return f"{start}; {clause_ratio(frame.final)}."


def clause_ratio(final: pa.Table) -> str:
    """How near the minimum margin comes to that of the best code known."""
    margins, best = values(final, MARGIN), values(final, "reference_margin_lower")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(best > 0, margins / best, np.nan)
    if not np.isfinite(ratio).any():
        median = number(float(np.nanmedian(margins)))
        return f"the minimum margin is {median} in the median, and no best known code is tabulated to compare it with"
    low, high = int(np.nanargmin(ratio)), int(np.nanargmax(ratio))
    beaten = ", which is a better code than the tables hold" if ratio[high] > 1 + BEATEN else ""
    return (
        f"the minimum margin reaches {percent(float(np.nanmedian(ratio)))} of the best known code's in the median, "
        f"from {percent(ratio[low])} at {_where(final, low)} to {percent(ratio[high])} at {_where(final, high)}{beaten}"
    )


def sentence_trend(trends: Sequence[Trend]) -> str:
    """The margin's exponent in the number of classes with its interval, or why none is claimed."""
    margin = [t for t in trends if t.measure == MARGIN and t.predictors == ("num_classes",)]
    fitted = sorted((t for t in margin if t.fit), key=lambda t: (t.refused is not None, -_cells(t)))
    if not fitted:
        return f"No trend in the number of classes can be told: {margin[0].refused if margin else 'no margins'}."
    best = fitted[0]
    assert best.fit is not None
    dim, exponent = best.where["feature_dim"], best.fit.exponents[0]
    if best.refused:
        return (
            f"No exponent of the margin is claimed: at d = {dim} the bare estimate is K to the power "
            f"{number(exponent.estimate)}, without an interval ({best.refused})."
        )
    limit = ""
    if dim >= 2:
        limit = f"; for large K the exponent of the best codes tends to {number(theory.asymptotic_exponent(dim))}"
    names = own_prefactors(best)
    own = f", with one prefactor for each {' and '.join(names)}" if names else ""
    over = f"over {best.fit.cells} cells{own}{limit}"
    return f"At d = {dim} the margin scales as K to the power {interval_text(exponent)} {over}."


def _cells(trend: Trend) -> int:
    return trend.fit.cells if trend.fit else 0


def sentence_asymptote(comparisons: Sequence[FormComparison]) -> str:
    """Whether the exponents of margins agree with theory's large-K exponent, by the form that carries a correction."""
    parts = []
    for comparison in comparisons:
        fits = {v.form: v.fit for v in comparison.verdicts if v.fit}
        if comparison.measure != MARGIN or comparison.feature_dim < 2 or comparison.chosen is None:
            continue
        limit = theory.asymptotic_exponent(comparison.feature_dim)
        name = comparison.chosen if comparison.chosen in ("power", "corrected") else "corrected"
        if name not in fits:
            continue
        slope = fits[name].parameters[0]
        assert slope.low is not None
        assert slope.high is not None
        inside = "covers" if slope.low <= limit <= slope.high else "does not cover"
        kind = "the asymptote of the form with a correction" if name == "corrected" else "the exponent"
        parts.append(
            f"at d = {comparison.feature_dim} {kind} is {interval_text(slope)}, which {inside} {number(limit)}"
        )
    return f"Against the large-K exponent -2/(d-1) of the best codes: {'; '.join(parts)}." if parts else ""


def interval_text(exponent: Exponent) -> str:
    """`estimate (low to high)`, the ends left out where they were refused."""
    if exponent.low is None or exponent.high is None:
        return number(exponent.estimate)
    return f"{number(exponent.estimate)} (95 % interval {number(exponent.low)} to {number(exponent.high)})"


def medians_over_training(frame: StudyFrame, name: str) -> tuple[float, float]:
    """Median over complete trials of a measure at the first measured epoch after a step, and at the last."""
    complete = pa.array(frame.final["trial"].to_pylist(), pa.string())
    rows = frame.rows.select(["trial", "step", name])
    rows = rows.filter(pc.and_(pc.is_in(rows["trial"], value_set=complete), pc.greater(rows["step"], 0)))
    trial, measured = values(rows, "trial"), values(rows, name)
    changes = np.flatnonzero(trial[1:] != trial[:-1]) + 1 if len(trial) else np.zeros(0, dtype=int)
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(trial)]]) - 1
    several = ends > starts
    return median(measured[starts[several]]), median(measured[ends[several]])


def _where(final: pa.Table, index: int) -> str:
    row = {name: final[name][index].as_py() for name in ("feature_dim", "num_classes", "temperature")}
    cold = "" if row["temperature"] is None else f", temperature {number(row['temperature'])}"
    return f"d = {row['feature_dim']}, K = {row['num_classes']}{cold}"
