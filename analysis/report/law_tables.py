"""The report's tables of laws: trends in K and d, their forms, laws over time, forms over all d, and predictions."""

from collections.abc import Sequence

import numpy as np

from analysis.report.page import TEXTS, Cell, Details, Heading, Long, Number, Paragraph, Part, note, table
from analysis.report.sentences import sentence_asymptote, sentences_opposite, sentences_trend, series_of
from analysis.rows import theory
from analysis.rows.measures import MARGIN
from analysis.rows.wording import ABSENT, LETTERS, bracketed, number, percent, shown
from analysis.scaling.collapse_rates import LAWS, TimeLaw
from analysis.scaling.form_choice import WORST_ERROR, FormComparison, FormVerdict, one_by_one
from analysis.scaling.form_claims import LargestHeldOut, summarise_by_measure
from analysis.scaling.forms import FORMS
from analysis.scaling.joint_forms import JOINT_FORMS, LARGEST, JointComparison, JointVerdict
from analysis.scaling.power_law import EQUAL_LEVEL, Exponent
from analysis.scaling.predictions import LEVEL, Prediction, Score, Scores
from analysis.scaling.trends import MAX_SERIES, Trend, own_prefactors
from gnc_models.progress import amount

VARIED = "gnc1_rank"  # the measure of variability whose trend is put into words
IRREGULAR_DIM = 8  # from here on the best known margins have no power law at the class counts that can be trained


def fits_sections(trends: Sequence[Trend]) -> list[Part]:
    """The power laws with intervals, then those that were refused, with their bare estimates."""
    method = TEXTS["power_laws"].format(level=EQUAL_LEVEL)
    parts: list[Part] = [Paragraph(method), *map(Paragraph, sentences_trend(trends))]
    for moment in [t.moment for t in trends if t.measure == VARIED][:1]:
        parts += map(Paragraph, sentences_trend(trends, VARIED, moment))
    parts += map(note, sentences_opposite(trends))
    many = max((len(t.fit.levels) for t in trends if t.fit and "feature_dim" in t.where), default=0)
    if many > MAX_SERIES:
        parts.append(note(f"Of up to {many} series, the first {MAX_SERIES} at each d are fitted by themselves too."))
    believed = [_fit_row(t) for t in trends if t.believed]
    refused = [_fit_row(t, Long(t.refused)) for t in trends if t.refused]
    none = note("No power law can be claimed from these trials: the table of refusals says why for each.")
    parts.append(table("believed", believed) if believed else none)
    if refused:
        body = (table("refused", refused),)
        parts.append(Details(f"Refused, with the bare estimate ({len(refused)})", body, wide=True))
    return parts


def _fit_row(trend: Trend, *refused: Long) -> list[Cell]:
    fit, dim = trend.fit, trend.where.get("feature_dim")
    exponents = {e.name: bracketed_exponent(e) for e in fit.exponents} if fit else {}
    limit = theory.asymptotic_exponent(dim) if trend.measure == MARGIN and dim is not None and dim >= 2 else np.nan
    where = ", ".join(f"{LETTERS.get(name, name)} = {shown(value)}" for name, value in trend.where.items()) or "every d"
    found = (exponents.get("num_classes", ABSENT), exponents.get("feature_dim", ABSENT), Number(number(limit)))
    basis: list[Cell] = [Number(ABSENT), Number(ABSENT), Long(ABSENT), *[Number(ABSENT)] * 3]
    if fit:
        signs = fit.diagnostics.warnings() if fit.diagnostics else []
        signs += [f"{percent(fit.open_share)} of cells known as intervals only"] if fit.open_share else []
        residuals = Long("; ".join(signs) or "nothing stands out")
        spread = (Number(shown(fit.slopes_p)), Number(number(fit.residual_scale)), residuals)
        basis = [*spread, *map(Number, (fit.sizes, fit.cells, fit.trials))]
    own = ", ".join(own_prefactors(trend)) or ABSENT
    return [trend.measure, Long(where), *found, *refused, trend.moment, own, *basis, _left_out(trend)]


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
        return [Heading("Which form"), note(TEXTS["no_forms"])]
    parts: list[Part] = [Heading("Which form"), Paragraph(TEXTS["forms"])]
    parts += [Paragraph(sentence) for c in comparisons if (sentence := sentence_asymptote(c))]
    parts += [note(f"{c.measure} at d = {c.feature_dim}: {c.verdicts[0].refused}.") for c in comparisons if c.series]
    if sentence := misspecified_sentence(each):
        parts.append(note(sentence))
    return [*parts, table("forms", rows)]


def misspecified_sentence(comparisons: Sequence[FormComparison]) -> str:
    """Which trends are no pure power law: by their fits or, for margins at d >= 8, by the best codes."""
    bent = [f"{c.measure} at d = {c.feature_dim}" for c in comparisons if c.power_law_is_misspecified]
    known = sorted({c.feature_dim for c in comparisons if c.measure == MARGIN and c.feature_dim >= IRREGULAR_DIM})
    sentences = []
    if bent:
        sentences.append(f"A pure power law is misspecified, its exponent changes with K, for {'; '.join(bent)}.")
    if known:
        sentences.append(TEXTS["irregular"].format(dims=", ".join(map(str, known))))
    return " ".join(sentences)


def _form_row(comparison: FormComparison, verdict: FormVerdict) -> list[Cell]:
    assert verdict.fit is not None
    held, is_chosen, others = verdict.held_out, verdict.form == comparison.chosen, str(comparison.left_out)
    if is_chosen and comparison.with_all:
        others += f"; with all {parameters_text(comparison.with_all)}"
    failed = held is not None and held.median_error > WORST_ERROR
    return [
        comparison.measure,
        ", ".join(filter(None, (str(comparison.feature_dim), series_of(comparison)))),
        Long(f"{verdict.form}: {FORMS[verdict.form].formula}"),
        "predicts best" if is_chosen else "failed" if failed else "",
        bracketed_exponent(comparison.slope) if is_chosen and comparison.slope else "",
        Number(percent(held.median_error) if held else ABSENT),
        Number(f"{percent(held.covered)} of {held.cells}" if held else ABSENT),
        ", ".join(map(str, held.sizes)) if held else "too few sizes",
        parameters_text(verdict.fit.parameters),
        Number(number(verdict.fit.aicc)),
        others,
    ]


def time_sections(laws: Sequence[TimeLaw]) -> list[Part]:
    """Rates of collapse after 99 % training accuracy, by feature_dim, or why there are none."""
    rows = [_time_row(law) for law in laws if law.trials]
    if not rows:
        return [note("No trial has enough measured epochs after 99 % training accuracy for a law over time.")]
    return [Paragraph(TEXTS["time"]), table("time", rows)]


def _time_row(law: TimeLaw) -> list[Cell]:
    left = [f"{law.short} with too few epochs"] if law.short else []
    left += [f"{amount(law.at_floor, 'value')} at the float floor"] if law.at_floor else []
    rate = bracketed_exponent(law.rate) + (f" ({law.refused})" if law.refused else "")
    counts = map(Number, (percent(law.best_in), percent(law.error), law.sizes, law.cells, law.trials))
    formula = f"{law.law}: {LAWS[law.law]}"
    return [law.measure, Number(law.feature_dim), formula, rate, *counts, Long("; ".join(left) or "none")]


def joint_sections(comparisons: Sequence[JointComparison]) -> list[Part]:
    """Forms over all dimensions with their tests, or why there are none."""
    rows = [_joint_row(c, v) for c in comparisons for v in c.verdicts if v.fit]
    if not rows:
        return [note("No form over several dimensions can be fitted: that needs two dimensions and five cells.")]
    return [Paragraph(TEXTS["joint"]), table("joint", rows, tests=" | ".join(LARGEST.values()))]


def _joint_row(comparison: JointComparison, verdict: JointVerdict) -> list[Cell]:
    fit = verdict.fit
    assert fit is not None
    tests = {k.axis: f"{percent(k.median_error)}, {percent(k.covered)} of {k.cells} inside" for k in verdict.kept_out}
    form = Long(f"{verdict.form}: {JOINT_FORMS[verdict.form].formula}")
    named = (form, "predicts best" if verdict.form == comparison.chosen else "")
    residuals = Long("; ".join(fit.diagnostics.warnings()) or "nothing stands out")
    numbers = (Number(number(fit.scale)), Number(number(fit.aicc)), residuals)
    ends = (tests.get(axis, ABSENT) for axis in LARGEST)
    return [comparison.measure, *named, *ends, parameters_text(fit.parameters), *numbers]


def largest_section(found: Sequence[LargestHeldOut]) -> list[Part]:
    """How well the largest class count was predicted when even the form was chosen without it."""
    if not found:
        return [note("The largest class count cannot be predicted: no form can be fitted to the smaller ones.")]
    told = ((measure, s, f"{percent(s.covered)} of {s.cells}") for measure, s in summarise_by_measure(found).items())
    outcome_of = TEXTS["largest_outcome"].format
    outcomes = "; ".join(outcome_of(measure, percent(s.median_error), inside, LEVEL) for measure, s, inside in told)
    rows: list[list[Cell]] = []
    for one in found:
        held, sizes = one.held, ", ".join(map(str, one.held.sizes))
        outcome = map(Number, (percent(held.median_error), percent(held.covered), held.cells))
        rows.append([one.measure, Number(one.feature_dim), Number(sizes), one.form, *outcome])
    text = f"The largest K predicted without it: form and fit come from the smaller ones alone. {outcomes}."
    return [Paragraph(text), table("largest", rows)]


def predictions_sections(predictions: Sequence[Prediction], scores: Scores | None) -> list[Part]:
    """The cells the study file names, and how earlier predictions did."""
    parts: list[Part] = [note(TEXTS["no_cells"])]
    if predictions:
        parts = [Paragraph(TEXTS["predictions"]), table("predictions", [_prediction_row(p) for p in predictions])]
    return parts if scores is None else [*parts, Heading("Earlier predictions"), *score_parts(scores)]


def _prediction_row(p: Prediction) -> list[Cell]:
    if p.predicted is None:
        return [*_asked(p), ABSENT, Long(p.refused or ""), ABSENT, ABSENT, ABSENT]
    return [*_asked(p), *_expected(p), f"{p.form}: {p.formula}", Number(p.fitted_cells), Number(len(p.seen))]


def _asked(p: Prediction) -> tuple[Cell, Cell]:
    return Long(", ".join(f"{name} = {value}" for name, value in p.cell.items())), p.measure


def _expected(p: Prediction) -> tuple[Cell, Cell]:
    assert p.predicted is not None
    assert p.low is not None
    assert p.high is not None
    return Number(number(p.predicted)), f"{number(p.low)} to {number(p.high)}"


def score_parts(scores: Scores) -> list[Part]:
    """How earlier predictions did against the trials that arrived since."""
    waiting = f" {amount(scores.waiting, 'prediction')} without trials so far." * bool(scores.waiting)
    if not scores.scores:
        return [note(f"No earlier prediction can be scored yet.{waiting}")]
    scored = amount(len(scores.scores), "prediction has", "predictions have")
    text = TEXTS["scores"].format(scored, percent(scores.median_error), percent(scores.covered))
    return [Paragraph(text + waiting), table("scores", [_score_row(s) for s in scores.scores])]


def _score_row(s: Score) -> list[Cell]:
    trials = f"{s.trials}" + (f" ({s.not_terminal} short of 99 % left out)" if s.not_terminal else "")
    outcome = (Number(number(s.observed)), Number(percent(s.error)), "yes" if s.inside else "no", Number(trials))
    return [*_asked(s.prediction), s.prediction.form or "", *_expected(s.prediction), *outcome]
