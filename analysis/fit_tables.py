"""The report's section on trends: power laws with intervals, refusals, and which form predicts best."""

from collections.abc import Sequence

from analysis import page, theory
from analysis.comparison import WORST_ERROR, FormComparison, FormVerdict
from analysis.figures.look import number
from analysis.fits import Exponent
from analysis.forms import FORMS
from analysis.page import ABSENT, Cell, Long, Number
from analysis.trends import MARGIN, Trend, own_prefactors

TIMES = "\N{MULTIPLICATION SIGN}"


def fits_sections(trends: Sequence[Trend]) -> list[str]:
    """The fits that may be believed, then those refused with their bare estimates."""
    parts = [page.paragraph(METHOD)]
    believed = [t for t in trends if t.believed]
    refused = [t for t in trends if t.refused]
    headers = (
        "measure",
        "read at",
        "where",
        "own prefactor by",
        "exponent of K [95 %]",
        "exponent of d [95 %]",
        "large-K theory",
        "log residual",
        "cells",
        "trials",
        "left out",
    )
    if believed:
        parts.append(page.table("Power laws with intervals", headers, [[*_fit_row(t)] for t in believed]))
    else:
        parts.append(
            page.note("No power law can be claimed from these trials: the table of refusals says why for each.")
        )
    if refused:
        rows = [[*_fit_row(t), Long(t.refused or "")] for t in refused]
        body = page.table("Refused power laws", (*headers, "why refused"), rows)
        parts.append(page.details(f"Refused, with the bare estimate ({len(refused)})", body, wide=True))
    return parts


METHOD = (
    f"Exponents a (and b) of measure = prefactor {TIMES} K^a ({TIMES} d^b), fitted by summed Huber loss to the "
    "logarithms of cells, the seeds of a cell averaged. Intervals are 95 %, the wider of a wild bootstrap-t over "
    "cells and Student's t, and are refused under five cells or three sizes. Only trials that reached 99 % training "
    "accuracy enter; variability is read where trials are alike (equal steps after that, or equal excess loss over "
    "the tabulated optimum) and, beside it, at the end. A pure power law is a first form: the best margins themselves "
    "follow one only for large K."
)


def _fit_row(trend: Trend) -> list[Cell]:
    exponents = {e.name: _bracketed(e) for e in trend.fit.exponents} if trend.fit else {}
    dim = trend.where.get("feature_dim")
    theory_says = (
        number(theory.asymptotic_exponent(dim)) if trend.measure == MARGIN and dim is not None and dim >= 2 else ABSENT
    )
    where = ", ".join(f"{name} {_shown(value)}" for name, value in trend.where.items()) or "every feature_dim"
    return [
        trend.measure,
        trend.moment,
        where,
        ", ".join(own_prefactors(trend)) or ABSENT,
        exponents.get("num_classes", ABSENT),
        exponents.get("feature_dim", ABSENT),
        Number(theory_says),
        Number(number(trend.fit.residual_scale) if trend.fit else ABSENT),
        Number(str(trend.fit.cells) if trend.fit else ABSENT),
        Number(str(trend.fit.trials) if trend.fit else ABSENT),
        _left_out(trend),
    ]


def _left_out(trend: Trend) -> str:
    """How many complete trials did not enter, why, and the exponents if those short of the terminal phase had."""
    reasons = ((trend.not_terminal, "not terminal"), (trend.not_positive, "no positive value then"))
    counts = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
    beside = ", ".join(f"{e.name} {_bracketed(e)}" for e in trend.with_all)
    return (counts or "none") + (f"; with all of them {beside}" if beside else "")


def _bracketed(exponent: Exponent) -> str:
    if exponent.low is None or exponent.high is None:
        return number(exponent.estimate)
    return f"{number(exponent.estimate)} [{number(exponent.low)}, {number(exponent.high)}]"


def _shown(value: object) -> str:
    return ABSENT if value is None else number(value) if isinstance(value, float) else str(value)


def forms_sections(comparisons: Sequence[FormComparison]) -> list[str]:
    """Every form that could be fitted, with its error on the largest sizes when only the smaller ones were used."""
    parts = ["<h3>Which form</h3>"]
    rows = [_form_row(c, v) for c in comparisons for v in c.verdicts if v.fit]
    if not rows:
        parts.append(
            page.note("No form with a curve or an offset can be told from a power law: that needs more class counts.")
        )
        return parts
    parts.append(page.paragraph(FORMS_METHOD))
    bent = [f"{c.measure} at d = {c.feature_dim}" for c in comparisons if c.power_law_is_misspecified]
    if bent:
        parts.append(
            page.note(f"A pure power law is misspecified, its exponent changes with K, for {'; '.join(bent)}.")
        )
    headers = (
        "measure",
        "d",
        "form",
        "parameters [95 %]",
        "AICc",
        "held-out error",
        "inside 90 %",
        "held-out K",
        "verdict",
    )
    return [*parts, page.table("Forms of the trend", headers, rows)]


FORMS_METHOD = (
    "Each form was fitted to all cells, and again without the largest class counts, which it then had to predict: the "
    "held-out error is the median relative error over those cells, beside the share of them inside the 90 % "
    "prediction interval. The simplest form that is as good as the best up to the noise of the held-out cells is "
    "marked, one that misses by half or more has failed; AICc is shown beside it and decides nothing."
)


def _form_row(comparison: FormComparison, verdict: FormVerdict) -> list[Cell]:
    assert verdict.fit is not None
    held = verdict.held_out
    parameters = ", ".join(f"{p.name} = {_bracketed(p)}" for p in verdict.fit.parameters) or "one prefactor"
    return [
        comparison.measure,
        Number(str(comparison.feature_dim)),
        f"{verdict.form}: {FORMS[verdict.form].formula}",
        parameters,
        Number(number(verdict.fit.aicc)),
        Number(f"{number(100 * held.median_error)} %" if held else ABSENT),
        Number(f"{number(100 * held.covered)} % of {held.cells}" if held else ABSENT),
        ", ".join(map(str, held.sizes)) if held else "too few sizes",
        "predicts best"
        if verdict.form == comparison.chosen
        else "failed"
        if held and held.median_error > WORST_ERROR
        else "",
    ]
