"""The report's tables of laws: trends in K and d, their forms, laws over time, forms over all d, and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.report.page import TIMES, Cell, Details, Heading, Long, Number, Paragraph, Part, Table, columns, note
from analysis.report.sentences import sentence_asymptote, sentences_opposite, sentences_trend, series_of
from analysis.rows import theory
from analysis.rows.measures import MARGIN
from analysis.rows.wording import ABSENT, LETTERS, bracketed, number, percent, shown
from analysis.scaling.collapse_rates import LAWS, TimeLaw
from analysis.scaling.form_choice import WORST_ERROR, FormComparison, FormVerdict, one_by_one
from analysis.scaling.forms import FORMS
from analysis.scaling.joint_forms import JOINT_FORMS, LARGEST, JointComparison, JointVerdict
from analysis.scaling.largest_size import LargestHeldOut, summarise_by_measure
from analysis.scaling.power_law import EQUAL_LEVEL, Exponent, PowerLawFit
from analysis.scaling.predictions import LEVEL, Prediction, Score, Scores
from analysis.scaling.trends import Trend, own_prefactors


def fits_sections(trends: Sequence[Trend]) -> list[Part]:
    """The power laws with intervals, then those that were refused, with their bare estimates."""
    parts: list[Part] = [Paragraph(METHOD), *map(Paragraph, sentences_trend(trends, ()))]
    moments = [t.moment for t in trends if t.measure == VARIED]
    for moment in dict.fromkeys(moments[:1]):
        parts += [Paragraph(sentence) for sentence in sentences_trend(trends, (), VARIED, moment)]
    parts += [note(sentence) for sentence in sentences_opposite(trends)]
    believed = [_fit_row(t) for t in trends if t.believed]
    refused = [_fit_row(t, Long(t.refused)) for t in trends if t.refused]
    found, basis = columns(FOUND), columns(BASIS)
    if believed:
        parts.append(Table("Power laws with intervals", [*found, *basis], believed))
    else:
        parts.append(note("No power law can be claimed from these trials: the table of refusals says why for each."))
    if refused:
        body = Table("Refused power laws", [*found, "why refused", *basis], refused)
        parts.append(Details(f"Refused, with the bare estimate ({len(refused)})", (body,), wide=True))
    return parts


FOUND = "measure | where | exponent of K [95 %] | exponent of d [95 %] | large-K theory"
BASIS = "read at | own prefactor by | equal exponents, p | log residual | residuals | sizes | cells | trials | left out"
VARIED = "gnc1_rank"  # the measure of variability whose trend is put into words
METHOD = (
    f"Exponents a of measure = prefactor {TIMES} K^a (or d^a), fitted by summed Huber loss to logarithms. The seeds of a "
    "cell are averaged first. Then the cells of one class count are averaged over the series (for instance "
    "temperatures), each freed of its series' prefactor: what makes a class count easy or hard is shared by all of them, "
    "so the number of class counts decides how sure an exponent is, not the number of cells. Intervals are 95 %, Student's "
    "t with errors that allow for unequal noise; under five sizes there is none. Before series are pooled an F "
    f"test asks whether they have one exponent; where p is below {EQUAL_LEVEL}, each is reported by itself. A trend in K "
    "over every feature_dim has a prefactor for each d and is tested alike, and so is a trend in d. Only trials that "
    "reached 99 % training "
    "accuracy are fitted. Variability is read at a moment that all trials share (equal steps after 99 %, or equal excess "
    "loss over the tabulated optimum), and also at the end. A pure power law is only a first approximation: the best "
    "margins themselves follow one only for large K."
)


def _fit_row(trend: Trend, *refused: Long) -> list[Cell]:
    fit, dim = trend.fit, trend.where.get("feature_dim")
    exponents = {e.name: bracketed_exponent(e) for e in fit.exponents} if fit else {}
    limit = theory.asymptotic_exponent(dim) if trend.measure == MARGIN and dim is not None and dim >= 2 else np.nan
    where = ", ".join(f"{LETTERS.get(name, name)} = {shown(value)}" for name, value in trend.where.items()) or "every d"
    return [
        trend.measure,
        Long(where),
        exponents.get("num_classes", ABSENT),
        exponents.get("feature_dim", ABSENT),
        Number(number(limit)),
        *refused,
        trend.moment,
        ", ".join(own_prefactors(trend)) or ABSENT,
        Number(number(fit.slopes_p) if fit and fit.slopes_p is not None else ABSENT),
        Number(number(fit.residual_scale) if fit else ABSENT),
        Long(_residual_text(fit) if fit else ABSENT),
        Number(fit.sizes if fit else ABSENT),
        Number(fit.cells if fit else ABSENT),
        Number(fit.trials if fit else ABSENT),
        _left_out(trend),
    ]


def _residual_text(fit: PowerLawFit) -> str:
    sentences = fit.diagnostics.warnings() if fit.diagnostics else []
    if fit.open_share:
        sentences.append(f"{percent(fit.open_share)} of cells known as intervals only")
    return "; ".join(sentences) or "nothing stands out"


def _left_out(trend: Trend) -> str:
    """How many complete trials were left out and why, and the exponents with those that are not terminal included."""
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
    each = one_by_one(comparisons)
    rows = [_form_row(c, v) for c in each for v in c.verdicts if v.fit]
    if not rows:
        sentence = (
            "No form with a curve or an offset can be distinguished from a power law: that needs more class counts."
        )
        return [Heading("Which form"), note(sentence)]
    parts: list[Part] = [Heading("Which form"), Paragraph(FORMS_METHOD)]
    parts += [Paragraph(sentence) for c in comparisons if (sentence := sentence_asymptote(c))]
    parts += [note(f"{c.measure} at d = {c.feature_dim}: {c.verdicts[0].refused}.") for c in comparisons if c.series]
    if sentence := misspecified_sentence(each):
        parts.append(note(sentence))
    headers = columns(
        "measure | d | form | verdict | mean exponent [95 %] | held-out error | inside 90 % | held-out K | parameters [95 % if the form is true] | AICc | left out"
    )
    return [*parts, Table("Forms of the trend", headers, rows)]


FORMS_METHOD = (
    "Each form was fitted to all cells, and again without the largest class counts, which it then had to predict: the "
    "held-out error is the median relative error over those cells, beside the share of them inside the 90 % "
    "prediction interval. The simplest form that is as good as the best up to the noise of the held-out sizes is "
    "marked; a form that misses by half or more has failed. Beside the marked form stands the mean exponent from the least "
    "to the largest K by all forms together, each weighted by its held-out error: its interval allows for the choice, while "
    "the interval of a form's own parameter does not. AICc is shown too, but decides "
    "nothing. Series whose exponents differ are compared one by one."
)


def _others(comparison: FormComparison, verdict: FormVerdict) -> str:
    """How many trials were left out, and the chosen form's parameters with those that are not terminal included."""
    if verdict.form != comparison.chosen or not comparison.with_all:
        return str(comparison.left_out)
    return f"{comparison.left_out}; with all {parameters_text(comparison.with_all)}"


def misspecified_sentence(comparisons: Sequence[FormComparison]) -> str:
    """Which trends are no pure power law: by their fits or, for margins at d >= 8, by the best codes."""
    bent = [f"{c.measure} at d = {c.feature_dim}" for c in comparisons if c.power_law_is_misspecified]
    known = sorted({c.feature_dim for c in comparisons if c.measure == MARGIN and c.feature_dim >= IRREGULAR_DIM})
    sentences = []
    if bent:
        sentences.append(f"A pure power law is misspecified, its exponent changes with K, for {'; '.join(bent)}.")
    if known:
        sentences.append(
            f"At d = {', '.join(map(str, known))} a pure power law in K is misspecified whatever it fits: the best codes "
            "themselves fall along an irregular curve with plateaus there, far from their large-K exponent."
        )
    return " ".join(sentences)


IRREGULAR_DIM = 8  # from here on the best known margins have no power law at the class counts that can be trained


def _form_row(comparison: FormComparison, verdict: FormVerdict) -> list[Cell]:
    assert verdict.fit is not None
    held = verdict.held_out
    failed = held is not None and held.median_error > WORST_ERROR
    return [
        comparison.measure,
        ", ".join(filter(None, (str(comparison.feature_dim), series_of(comparison)))),
        Long(f"{verdict.form}: {FORMS[verdict.form].formula}"),
        "predicts best" if verdict.form == comparison.chosen else "failed" if failed else "",
        bracketed_exponent(comparison.slope) if verdict.form == comparison.chosen and comparison.slope else "",
        Number(percent(held.median_error) if held else ABSENT),
        Number(f"{percent(held.covered)} of {held.cells}" if held else ABSENT),
        ", ".join(map(str, held.sizes)) if held else "too few sizes",
        parameters_text(verdict.fit.parameters),
        Number(number(verdict.fit.aicc)),
        _others(comparison, verdict),
    ]


def time_sections(laws: Sequence[TimeLaw]) -> list[Part]:
    """Rates of collapse after 99 % training accuracy, by feature_dim, or why there are none."""
    rows = [_time_row(law) for law in laws if law.trials]
    if not rows:
        return [note("No trial has enough measured epochs after 99 % training accuracy for a law over time.")]
    headers = columns(
        "measure | d | law | rate a [95 %] | better in | error on last epochs | sizes | cells | trials | left out"
    )
    return [Paragraph(TIME_TEXT), Table("Time laws", headers, rows)]


def _time_row(law: TimeLaw) -> list[Cell]:
    left = [f"{law.short} with too few epochs"] if law.short else []
    left += [f"{law.at_floor} values at the float floor"] if law.at_floor else []
    rate = bracketed_exponent(law.rate) + (f" ({law.refused})" if law.refused else "")
    counts = map(Number, (percent(law.best_in), percent(law.error), law.sizes, law.cells, law.trials))
    formula = f"{law.law}: {LAWS[law.law]}"
    return [law.measure, Number(law.feature_dim), formula, rate, *counts, Long("; ".join(left) or "none")]


TIME_TEXT = (
    "How variability falls after 99 % training accuracy. Time is counted in steps from there, in units of the steps it "
    "took to get there. Each trial gives one rate, the rates of a cell's seeds are averaged, then those of the cells of a class count, and "
    "intervals are over class counts. Each law was "
    "fitted to the earlier three quarters of a trial's epochs after 99 % and had to predict the rest; the law that did "
    "better in more trials is shown. A value at the float floor, the rounding error of the features, counts as lying "
    "below it. The learning rate falls over the same steps, so a rate describes collapse under this schedule."
)


def joint_sections(comparisons: Sequence[JointComparison]) -> list[Part]:
    """Forms over all dimensions with their tests, or why there are none."""
    rows = [_joint_row(c, v) for c in comparisons for v in c.verdicts if v.fit]
    if not rows:
        return [note("No form over several dimensions can be fitted: that needs two dimensions and five cells.")]
    tests = " | ".join(LARGEST.values())
    headers = columns(f"measure | form | verdict | {tests} | parameters [95 %] | log residual | AICc | residuals")
    text = (
        "One law over every K and d. It is tested by keeping out the largest K, the largest d and, where the form reads "
        "the temperature, the lowest temperature: the table shows the median relative error of the cells kept out and "
        "the share of them inside the 90 % interval. Intervals of parameters are the wider of two jackknives, over class "
        "counts and over dimensions; with fewer than five of either there are none."
    )
    return [Paragraph(text), Table("Joint forms", headers, rows)]


def _joint_row(comparison: JointComparison, verdict: JointVerdict) -> list[Cell]:
    assert verdict.fit is not None
    tests = {k.axis: f"{percent(k.median_error)}, {percent(k.covered)} of {k.cells} inside" for k in verdict.kept_out}
    return [
        comparison.measure,
        Long(f"{verdict.form}: {JOINT_FORMS[verdict.form].formula}"),
        "predicts best" if verdict.form == comparison.chosen else "",
        *(tests.get(axis, ABSENT) for axis in LARGEST),
        parameters_text(verdict.fit.parameters),
        Number(number(verdict.fit.scale)),
        Number(number(verdict.fit.aicc)),
        Long("; ".join(verdict.fit.diagnostics.warnings()) or "nothing stands out"),
    ]


def largest_section(found: Sequence[LargestHeldOut]) -> list[Part]:
    """How well the largest class count was predicted when even the form was chosen without it."""
    if not found:
        return [note("The largest class count cannot be predicted: no form can be fitted to the smaller ones.")]
    outcomes = "; ".join(
        f"{measure}: median relative error {percent(s.median_error)}, {percent(s.covered)} of {s.cells} cells inside "
        f"the {LEVEL:.0%} interval"
        for measure, s in summarise_by_measure(found).items()
    )
    headers = columns("measure | d | K | form | median error | inside 90 % | cells")
    text = f"The largest K predicted without it: form and fit come from the smaller ones alone. {outcomes}."
    return [Paragraph(text), Table("The largest K held out", headers, [_largest_row(one) for one in found])]


def _largest_row(found: LargestHeldOut) -> list[Cell]:
    held = found.held
    sizes = map(Number, (found.feature_dim, ", ".join(map(str, held.sizes))))
    outcome = map(Number, (percent(held.median_error), percent(held.covered), held.cells))
    return [found.measure, *sizes, found.form, *outcome]


def predictions_sections(predictions: Sequence[Prediction], scores: Scores | None) -> list[Part]:
    """The cells the study file names, and how earlier predictions did."""
    parts: list[Part] = [note(NO_CELLS)]
    if predictions:
        headers = columns("cell | measure | predicted | 90 % interval | best form | cells fitted | trials seen")
        rows = [_prediction_row(p) for p in predictions]
        parts = [Paragraph(PREDICTIONS_TEXT), Table("Predictions", headers, rows)]
    return parts if scores is None else [*parts, Heading("Earlier predictions"), *score_parts(scores)]


NO_CELLS = "The study file names no cells to predict. Add [report] predict = [{num_classes = 400, feature_dim = 10}]."
PREDICTIONS_TEXT = (
    "Cells named in the study file under [report] predict. A prediction is the geometric mean over seeds that trials of "
    "the cell are expected to show: the weighted mean of all tested forms, where a form weighs more the smaller its error "
    "on held-out cells; the best by itself is named. It is kept in report/predictions.json; once such trials have run, gnc "
    "report --check scores it."
)


def _prediction_row(p: Prediction) -> list[Cell]:
    expected = _expected(p)
    if expected is None:
        return [Long(_cell_text(p.cell)), p.measure, ABSENT, Long(p.refused or ""), ABSENT, ABSENT, ABSENT]
    counts = (Number(p.fitted_cells), Number(len(p.seen)))
    return [Long(_cell_text(p.cell)), p.measure, *expected, f"{p.form}: {p.formula}", *counts]


def _expected(p: Prediction) -> tuple[Cell, Cell] | None:
    if p.predicted is None or p.low is None or p.high is None:
        return None
    return Number(number(p.predicted)), f"{number(p.low)} to {number(p.high)}"


def _cell_text(cell: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in cell.items())


def score_parts(scores: Scores) -> list[Part]:
    """How earlier predictions did against the trials that arrived since."""
    waiting = f" {scores.waiting} predictions wait for trials of their cells." if scores.waiting else ""
    if not scores.scores:
        return [note(f"No earlier prediction can be scored yet.{waiting}")]
    text = (
        f"{len(scores.scores)} predictions have trials that arrived later: median relative error "
        f"{percent(scores.median_error)}, {percent(scores.covered)} inside the 90 % interval.{waiting}"
    )
    headers = columns("cell | measure | best form | predicted | 90 % interval | observed | error | inside | trials")
    return [Paragraph(text), Table("Scores of earlier predictions", headers, [_score_row(s) for s in scores.scores])]


def _score_row(s: Score) -> list[Cell]:
    p, inside = s.prediction, "yes" if s.inside else "no"
    trials = f"{s.trials}" + (f" ({s.not_terminal} short of 99 % left out)" if s.not_terminal else "")
    outcome = (Number(number(s.observed)), Number(percent(s.error)), inside, Number(trials))
    return [Long(_cell_text(p.cell)), p.measure, p.form or "", *(_expected(p) or (ABSENT, ABSENT)), *outcome]
