"""The report's sections on laws over time, forms over all dimensions, the largest size held out, and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.report.page import Cell, Heading, Long, Number, Paragraph, Part, Table, columns, note
from analysis.report.power_law_tables import bracketed_exponent, parameters_text
from analysis.rows.wording import ABSENT, number, percent
from analysis.scaling.collapse_rates import LAWS, TimeLaw
from analysis.scaling.form_choice import LargestHeldOut, summarise_by_measure
from analysis.scaling.joint_forms import JOINT_FORMS, LARGEST, JointComparison, JointVerdict
from analysis.scaling.predictions import LEVEL, Prediction, Score, Scores


def time_sections(laws: Sequence[TimeLaw]) -> list[Part]:
    """Rates of collapse after 99 % training accuracy, by feature_dim, or why there are none."""
    rows = [_time_row(law) for law in laws if law.trials]
    if not rows:
        return [note("No trial has enough measured epochs after 99 % training accuracy for a law over time.")]
    headers = columns(
        "measure | d | law | rate a [95 %] | better in | error on last epochs | trials | cells | left out"
    )
    return [Paragraph(TIME_TEXT), Table("Time laws", headers, rows)]


def _time_row(law: TimeLaw) -> list[Cell]:
    left = [f"{law.short} with too few epochs"] if law.short else []
    left += [f"{law.at_floor} values at the float floor"] if law.at_floor else []
    rate = bracketed_exponent(law.rate) + (f" ({law.refused})" if law.refused else "")
    counts = map(Number, (percent(law.best_in), percent(law.error), law.trials, law.cells))
    told = f"{law.law}: {LAWS[law.law]}"
    return [law.measure, Number(law.feature_dim), told, rate, *counts, Long("; ".join(left) or "none")]


TIME_TEXT = (
    "How variability falls over steps counted from 99 % training accuracy, in units of the steps it took to get there. "
    "Each trial gives one rate, the rates of a cell's seeds are averaged, and intervals are over cells. Each law was "
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
    headers = columns(f"measure | form | parameters [95 %] | log residual | AICc | {tests} | residuals | verdict")
    text = (
        "One law over every K and d. It is tested by keeping out the largest K, the largest d and, where the form reads "
        "the temperature, the lowest temperature: the table shows the median relative error of the cells kept out and "
        "the share of them inside the 90 % interval."
    )
    return [Paragraph(text), Table("Joint forms", headers, rows)]


def _joint_row(comparison: JointComparison, verdict: JointVerdict) -> list[Cell]:
    assert verdict.fit is not None
    tests = {k.axis: f"{percent(k.median_error)}, {percent(k.covered)} of {k.cells} inside" for k in verdict.kept_out}
    return [
        comparison.measure,
        f"{verdict.form}: {JOINT_FORMS[verdict.form].formula}",
        parameters_text(verdict.fit.parameters),
        Number(number(verdict.fit.scale)),
        Number(number(verdict.fit.aicc)),
        *(tests.get(axis, ABSENT) for axis in LARGEST),
        Long("; ".join(verdict.fit.diagnostics.warnings()) or "nothing stands out"),
        "predicts best" if verdict.form == comparison.chosen else "",
    ]


def largest_section(found: Sequence[LargestHeldOut]) -> list[Part]:
    """How well the largest class count was predicted when even the form was chosen without it."""
    if not found:
        return [
            note("The largest class count cannot be predicted without it: no form can be fitted to the smaller ones.")
        ]
    told = "; ".join(
        f"{measure}: median relative error {percent(s.median_error)}, {percent(s.covered)} of {s.cells} cells inside "
        f"the {LEVEL:.0%} interval"
        for measure, s in summarise_by_measure(found).items()
    )
    headers = columns("measure | d | K | form | form chosen by | median error | inside 90 % | cells")
    text = f"The largest K predicted without it: form and fit come from the smaller ones alone. {told}."
    table = Table("The largest K held out", headers, [_largest_row(one) for one in found])
    return [Heading("The largest K held out"), Paragraph(text), table]


def _largest_row(found: LargestHeldOut) -> list[Cell]:
    held = found.held
    sizes = map(Number, (found.feature_dim, ", ".join(map(str, held.sizes))))
    outcome = map(Number, (percent(held.median_error), percent(held.covered), held.cells))
    return [found.measure, *sizes, found.form, found.chosen_by, *outcome]


def predictions_sections(predictions: Sequence[Prediction], scores: Scores | None) -> list[Part]:
    """The cells the study file names, and how earlier predictions did."""
    parts: list[Part] = [note(NO_CELLS)]
    if predictions:
        headers = columns("cell | measure | predicted | 90 % interval | form | cells fitted | trials seen")
        rows = [_prediction_row(p) for p in predictions]
        parts = [Paragraph(PREDICTIONS_TEXT), Table("Predictions", headers, rows)]
    return parts if scores is None else [*parts, Heading("Earlier predictions"), *score_parts(scores)]


NO_CELLS = "The study file names no cells to predict. Add [report] predict = [{num_classes = 400, feature_dim = 10}]."
PREDICTIONS_TEXT = (
    "Cells named in the study file under [report] predict. A prediction is the geometric mean over seeds that trials of "
    "the cell are expected to show. It is kept in report/predictions.json; once such trials have run, gnc report --check "
    "scores it."
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
    headers = columns("cell | measure | form | predicted | 90 % interval | observed | error | inside | trials")
    return [Paragraph(text), Table("Scores of earlier predictions", headers, [_score_row(s) for s in scores.scores])]


def _score_row(s: Score) -> list[Cell]:
    p, inside = s.prediction, "yes" if s.inside else "no"
    trials = f"{s.trials}" + (f" ({s.not_terminal} short of 99 % left out)" if s.not_terminal else "")
    outcome = (Number(number(s.observed)), Number(percent(s.error)), inside, Number(trials))
    return [Long(_cell_text(p.cell)), p.measure, p.form or "", *(_expected(p) or (ABSENT, ABSENT)), *outcome]
