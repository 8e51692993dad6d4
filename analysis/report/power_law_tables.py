"""The report's section on trends: power laws with intervals, refusals, and which form predicts best."""

from collections.abc import Sequence

from analysis.report.page import Cell, Details, Heading, Long, Number, Paragraph, Part, Table, columns, note
from analysis.report.sentences import sentence_asymptote
from analysis.rows import theory
from analysis.rows.measures import MARGIN
from analysis.rows.wording import ABSENT, bracketed, number, percent, shown
from analysis.scaling.form_choice import WORST_ERROR, FormComparison, FormVerdict
from analysis.scaling.forms import FORMS
from analysis.scaling.power_law import Exponent
from analysis.scaling.trends import Trend, own_prefactors

TIMES = "\N{MULTIPLICATION SIGN}"


def fits_sections(trends: Sequence[Trend]) -> list[Part]:
    """The fits that may be believed, then those refused with their bare estimates."""
    parts: list[Part] = [Paragraph(METHOD)]
    believed = [t for t in trends if t.believed]
    refused = [t for t in trends if t.refused]
    headers = columns(
        "measure | read at | where | own prefactor by | exponent of K [95 %] | exponent of d [95 %] | large-K theory | log residual | residuals | cells | trials | left out"
    )
    if believed:
        parts.append(Table("Power laws with intervals", headers, [[*_fit_row(t)] for t in believed]))
    else:
        parts.append(note("No power law can be claimed from these trials: the table of refusals says why for each."))
    if refused:
        rows = [[*_fit_row(t), Long(t.refused or "")] for t in refused]
        body = Table("Refused power laws", (*headers, "why refused"), rows)
        parts.append(Details(f"Refused, with the bare estimate ({len(refused)})", (body,), wide=True))
    return parts


METHOD = (
    f"Exponents a (and b) of measure = prefactor {TIMES} K^a ({TIMES} d^b), fitted by summed Huber loss to the "
    "logarithms of cells, the seeds of a cell averaged. Intervals are 95 %, the wider of a wild bootstrap-t over "
    "cells and Student's t; under five cells or three sizes none is given. Only trials that reached 99 % training "
    "accuracy enter; variability is read where trials are alike (equal steps after that, or equal excess loss over "
    "the tabulated optimum) and, beside it, at the end. A pure power law is a first form: the best margins themselves "
    "follow one only for large K."
)


def _fit_row(trend: Trend) -> list[Cell]:
    exponents = {e.name: bracketed_exponent(e) for e in trend.fit.exponents} if trend.fit else {}
    dim = trend.where.get("feature_dim")
    theory_says = (
        number(theory.asymptotic_exponent(dim)) if trend.measure == MARGIN and dim is not None and dim >= 2 else ABSENT
    )
    where = ", ".join(f"{name} {shown(value)}" for name, value in trend.where.items()) or "every feature_dim"
    return [
        trend.measure,
        trend.moment,
        where,
        ", ".join(own_prefactors(trend)) or ABSENT,
        exponents.get("num_classes", ABSENT),
        exponents.get("feature_dim", ABSENT),
        Number(theory_says),
        Number(number(trend.fit.residual_scale) if trend.fit else ABSENT),
        Long(_residual_text(trend)),
        Number(str(trend.fit.cells) if trend.fit else ABSENT),
        Number(str(trend.fit.trials) if trend.fit else ABSENT),
        _left_out(trend),
    ]


def _residual_text(trend: Trend) -> str:
    if trend.fit is None or trend.fit.diagnostics is None:
        return ABSENT
    said = trend.fit.diagnostics.warnings()
    if trend.fit.open_share:
        said.append(f"{percent(trend.fit.open_share)} of cells known as intervals only")
    return "; ".join(said) or "nothing stands out"


def _left_out(trend: Trend) -> str:
    """How many complete trials did not enter, why, and the exponents if those short of the terminal phase had."""
    reasons = ((trend.not_terminal, "not terminal"), (trend.not_positive, "no positive value then"))
    counts = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
    beside = ", ".join(f"{e.name} {bracketed_exponent(e)}" for e in trend.with_all)
    return (counts or "none") + (f"; with all of them {beside}" if beside else "")


def bracketed_exponent(exponent: Exponent) -> str:
    """`estimate [low, high]`, the ends left out where they were refused."""
    return bracketed(exponent.estimate, exponent.low, exponent.high)


def parameters_text(parameters: Sequence[Exponent]) -> str:
    """The parameters of a form with their intervals."""
    return ", ".join(f"{p.name} = {bracketed_exponent(p)}" for p in parameters) or "one prefactor"


def forms_sections(comparisons: Sequence[FormComparison]) -> list[Part]:
    """Every form that could be fitted, with its error on the largest sizes when it was fitted to the smaller ones alone."""
    parts: list[Part] = [Heading("Which form")]
    rows = [_form_row(c, v) for c in comparisons for v in c.verdicts if v.fit]
    if not rows:
        parts.append(
            note("No form with a curve or an offset can be told from a power law: that needs more class counts.")
        )
        return parts
    parts.append(Paragraph(FORMS_METHOD))
    if told := sentence_asymptote(comparisons):
        parts.append(Paragraph(told))
    if warned := misspecified_sentence(comparisons):
        parts.append(note(warned))
    headers = columns(
        "measure | d | form | parameters [95 %] | AICc | held-out error | inside 90 % | held-out K | left out | verdict"
    )
    return [*parts, Table("Forms of the trend", headers, rows)]


FORMS_METHOD = (
    "Each form was fitted to all cells, and again without the largest class counts, which it then had to predict: the "
    "held-out error is the median relative error over those cells, beside the share of them inside the 90 % "
    "prediction interval. The simplest form that is as good as the best up to the noise of the held-out cells is "
    "marked, one that misses by half or more has failed; AICc is shown beside it and decides nothing."
)


def _others(comparison: FormComparison, verdict: FormVerdict) -> str:
    """How many trials did not enter, and what the chosen form says with those short of the terminal phase."""
    if verdict.form != comparison.chosen or not comparison.with_all:
        return str(comparison.left_out)
    return f"{comparison.left_out}; with all {parameters_text(comparison.with_all)}"


def misspecified_sentence(comparisons: Sequence[FormComparison]) -> str:
    """Which trends no pure power law can follow, measured or, for margins at d >= 8, known from the best codes."""
    bent = [f"{c.measure} at d = {c.feature_dim}" for c in comparisons if c.power_law_is_misspecified]
    known = sorted({c.feature_dim for c in comparisons if c.measure == MARGIN and c.feature_dim >= IRREGULAR_DIM})
    said = []
    if bent:
        said.append(f"A pure power law is misspecified, its exponent changes with K, for {'; '.join(bent)}.")
    if known:
        said.append(
            f"At d = {', '.join(map(str, known))} a pure power law in K is misspecified whatever it fits: the best codes "
            "themselves fall along an irregular curve with plateaus there, far from their large-K exponent."
        )
    return " ".join(said)


IRREGULAR_DIM = 8  # from here on the best known margins have no power law at the class counts that can be trained


def _form_row(comparison: FormComparison, verdict: FormVerdict) -> list[Cell]:
    assert verdict.fit is not None
    held = verdict.held_out
    return [
        comparison.measure,
        Number(comparison.feature_dim),
        f"{verdict.form}: {FORMS[verdict.form].formula}",
        parameters_text(verdict.fit.parameters),
        Number(number(verdict.fit.aicc)),
        Number(percent(held.median_error) if held else ABSENT),
        Number(f"{percent(held.covered)} of {held.cells}" if held else ABSENT),
        ", ".join(map(str, held.sizes)) if held else "too few sizes",
        _others(comparison, verdict),
        "predicts best"
        if verdict.form == comparison.chosen
        else "failed"
        if held and held.median_error > WORST_ERROR
        else "",
    ]
