"""The report's sections on time laws, joint forms, blind tests and predictions. Numbers come in, HTML goes out."""

from collections.abc import Sequence

from analysis.report.page import ABSENT, Cell, Heading, Long, Number, Paragraph, Part, Table, note
from analysis.report.power_law_tables import bracketed
from analysis.rows.wording import number, percent
from analysis.scaling.collapse_rates import LAWS, TimeLaw
from analysis.scaling.held_out_largest import Blind, summarise_blind
from analysis.scaling.joint_forms import JOINT_FORMS, LARGEST, JointComparison, JointVerdict
from analysis.scaling.predictions import LEVEL, Prediction, Scores


def time_sections(laws: Sequence[TimeLaw]) -> list[Part]:
    """Rates of collapse after 99 % training accuracy, by feature_dim, or why there are none."""
    told = [law for law in laws if law.trials]
    if not told:
        return [note("No trial has enough measured epochs after 99 % training accuracy for a law over time.")]
    headers = [
        "measure",
        "d",
        "law",
        "rate a [95 %]",
        "better in",
        "error on last epochs",
        "trials",
        "cells",
        "left out",
    ]
    rows: list[list[Cell]] = []
    for law in told:
        left = [f"{law.short} with too few epochs"] * bool(law.short) + [
            f"{law.at_floor} values at the float floor"
        ] * bool(law.at_floor)
        rows.append(
            [
                law.measure,
                Number(str(law.feature_dim)),
                f"{law.law}: {LAWS[law.law]}",
                bracketed(law.rate) + (f" ({law.refused})" if law.refused else ""),
                Number(percent(law.best_in)),
                Number(percent(law.error)),
                Number(str(law.trials)),
                Number(str(law.cells)),
                Long("; ".join(left) or "none"),
            ]
        )
    return [Paragraph(TIME_TEXT), Table("Time laws", headers, rows)]


TIME_TEXT = (
    "How variability falls over steps counted from 99 % training accuracy, in units of the steps it took to get there: "
    "one rate a trial, averaged over the seeds of a cell, intervals over cells. Each law was fitted to the earlier "
    "three quarters of a trial's terminal epochs and had to predict the rest; the one that did better in more trials is "
    "shown. Values at the float floor count as lying below it. The learning rate falls over the same steps, so a rate "
    "is of collapse under this schedule."
)


def joint_sections(comparisons: Sequence[JointComparison]) -> list[Part]:
    """Forms over all dimensions with their tests, or why there are none."""
    rows = [_joint_row(c, v) for c in comparisons for v in c.verdicts if v.fit]
    if not rows:
        return [note("No form over several dimensions can be fitted: that needs two dimensions and five cells.")]
    headers = (
        "measure",
        "form",
        "parameters [95 %]",
        "log residual",
        "AICc",
        *LARGEST.values(),
        "residuals",
        "verdict",
    )
    text = (
        "One law over every K and d, tested by keeping out the largest K, the largest d and, where the form reads the "
        "temperature, the lowest one: median relative error and share of the cells kept out inside the 90 % interval."
    )
    return [Paragraph(text), Table("Joint forms", headers, rows)]


def _joint_row(comparison: JointComparison, verdict: JointVerdict) -> list[Cell]:
    assert verdict.fit is not None
    tests = {k.axis: f"{percent(k.median_error)}, {percent(k.covered)} of {k.cells} inside" for k in verdict.kept_out}
    return [
        comparison.measure,
        f"{verdict.form}: {JOINT_FORMS[verdict.form].formula}",
        ", ".join(f"{p.name} = {bracketed(p)}" for p in verdict.fit.parameters) or "one prefactor",
        Number(number(verdict.fit.scale)),
        Number(number(verdict.fit.aicc)),
        *(tests.get(axis, ABSENT) for axis in LARGEST),
        Long("; ".join(verdict.fit.diagnostics.warnings()) or "nothing stands out"),
        "predicts best" if verdict.form == comparison.chosen else "",
    ]


def blind_section(found: Sequence[Blind]) -> list[Part]:
    """How well the largest class count was predicted when even the form was chosen without it."""
    if not found:
        return [note("The largest class count cannot be predicted blind: the smaller ones carry no form.")]
    told = "; ".join(
        f"{s.measure}: median relative error {percent(s.median_error)}, {percent(s.covered)} of {s.cells} cells inside "
        f"the {LEVEL:.0%} interval" for s in summarise_blind(found)
    )  # fmt: skip
    headers = ("measure", "d", "K", "form", "form chosen by", "median error", "inside 90 %", "cells")
    rows: list[list[Cell]] = [
        [
            b.measure,
            Number(str(b.feature_dim)),
            Number(", ".join(map(str, b.held.sizes))),
            b.form,
            b.chosen_by,
            Number(percent(b.held.median_error)),
            Number(percent(b.held.covered)),
            Number(str(b.held.cells)),
        ]
        for b in found
    ]
    text = f"The largest K predicted blind, form and fit from the smaller ones alone. {told}."
    return [Heading("Predicted blind"), Paragraph(text), Table("Blind predictions", headers, rows)]


def predictions_sections(predictions: Sequence[Prediction], scores: Scores | None) -> list[Part]:
    """The cells the study file names, and how earlier predictions did."""
    parts: list[Part] = []
    if predictions:
        headers = ("cell", "measure", "predicted", "90 % interval", "form", "cells fitted", "trials seen")
        rows = [_prediction_row(p) for p in predictions]
        text = (
            "Cells named in the study file under [report] predict: the geometric mean over seeds that a trial there is "
            "expected to show. They are kept in report/predictions.json; gnc report --check scores them when trials arrive."
        )
        parts += [Paragraph(text), Table("Predictions", headers, rows)]
    else:
        parts.append(
            note(
                "The study file names no cells to predict. Add [report] predict = [{num_classes = 400, feature_dim = 10}]."
            )
        )
    if scores is not None:
        parts += [Heading("Earlier predictions"), *_scored(scores)]
    return parts


def _prediction_row(p: Prediction) -> list[Cell]:
    cell = ", ".join(f"{k} = {v}" for k, v in p.cell.items())
    if p.predicted is None or p.low is None or p.high is None:
        return [Long(cell), p.measure, ABSENT, Long(p.refused or ""), ABSENT, ABSENT, ABSENT]
    numbers: list[Cell] = [Number(number(p.predicted)), f"{number(p.low)} to {number(p.high)}"]
    return [
        Long(cell),
        p.measure,
        *numbers,
        f"{p.form}: {p.formula}",
        Number(str(p.fitted_cells)),
        Number(str(len(p.seen))),
    ]


def _scored(scores: Scores) -> list[Part]:
    waiting = f" {scores.waiting} predictions wait for trials of their cells." if scores.waiting else ""
    if not scores.scores:
        return [note(f"No earlier prediction can be scored yet.{waiting}")]
    text = (
        f"{len(scores.scores)} predictions have trials that arrived later: median relative error "
        f"{percent(scores.median_error)}, {percent(scores.covered)} inside the 90 % interval.{waiting}"
    )
    headers = ("cell", "measure", "predicted", "90 % interval", "observed", "error", "inside", "trials")
    rows: list[list[Cell]] = []
    for s in scores.scores:
        cell = ", ".join(f"{k} = {v}" for k, v in s.prediction.cell.items())
        expected = _prediction_row(s.prediction)[2:4]
        outcome = [
            Number(number(s.observed)),
            Number(percent(s.error)),
            "yes" if s.inside else "no",
            Number(str(s.trials)),
        ]
        rows.append([Long(cell), s.prediction.measure, *expected, *outcome])
    return [Paragraph(text), Table("Scores of earlier predictions", headers, rows)]
