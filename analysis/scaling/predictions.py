"""Predictions of cells that a study file names in [report] predict = [{num_classes = 400, feature_dim = 10}]: kept with the
report, scored once trials of the cell have run. Knows the forms compared and final rows; reads and writes no file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from analysis.rows.frames import SIZES, median, values
from analysis.rows.measures import MARGIN
from analysis.scaling.form_choice import FormComparison, one_by_one
from analysis.scaling.forms import FORMS, FormFit
from analysis.scaling.joint_forms import AXES, JOINT_FORMS, JointComparison, JointFit
from analysis.statistics.inference import Expected, mixed_interval

SCHEMA = 1
LEVEL = 0.9  # of a prediction interval


@dataclass(frozen=True)
class Prediction:
    """What is expected of a cell before its trials are seen.
    cell: settings by name, those asked for and those of the fitted group. predicted, low, high: the geometric mean over
    a cell's seeds, and the ends between which LEVEL of new cells are expected; None if refused. fitted_cells: how many
    cells the form was fitted to. seen: trials of this cell that had run already and so cannot score the prediction."""

    cell: Mapping[str, Any]
    measure: str
    form: str | None
    formula: str | None
    predicted: float | None
    low: float | None
    high: float | None
    level: float
    fitted_cells: int
    seen: tuple[str, ...]
    refused: str | None


@dataclass(frozen=True)
class Score:
    """A prediction compared with later trials: their geometric mean, the relative error, whether the interval holds it.
    trials: how many were compared; not_terminal: how many did not reach the terminal phase and are not counted."""

    prediction: Prediction
    observed: float
    error: float
    inside: bool
    trials: int
    not_terminal: int


@dataclass(frozen=True)
class Scores:
    """All scored predictions of a folder, with medians over them; waiting: predictions whose cells have no new trials yet."""

    scores: tuple[Score, ...]
    waiting: int
    median_error: float
    covered: float


def predict_cells(
    cells: Iterable[Mapping[str, Any]], final: pa.Table, comparisons: Sequence[FormComparison],
    joint: Sequence[JointComparison],
) -> list[Prediction]:  # fmt: skip
    """A prediction of every measure for every cell, or a refusal with its reason.
    cells: settings by name, num_classes and feature_dim among them; the others are those that the fit knows best."""
    measures = list(dict.fromkeys([*(c.measure for c in comparisons), *(c.measure for c in joint)])) or [MARGIN]
    return [_predict(dict(cell), measure, final, comparisons, joint) for cell in cells for measure in measures]


def _predict(
    cell: dict[str, Any], measure: str, final: pa.Table, comparisons: Sequence[FormComparison],
    joint: Sequence[JointComparison],
) -> Prediction:  # fmt: skip
    # a form that is a function of temperature predicts temperatures that were never run
    is_cold = any(c.chosen and JOINT_FORMS[c.chosen].cold for c in joint)
    for name, value in cell.items():
        runs = final[name].unique().to_pylist() if name in final.column_names else []
        if name not in SIZES and value not in runs and not (name == "temperature" and is_cold):
            return _refused(cell, measure, f"no complete trial has {name} = {value}")
    of_one_dim = (c for c in one_by_one(comparisons) if c.feature_dim == cell["feature_dim"])
    together: list[FormComparison | JointComparison] = [*of_one_dim, *joint]
    for comparison in together:
        if comparison.measure == measure and comparison.chosen and (found := _expected(cell, comparison, final)):
            return found
    return _refused(cell, measure, "no form predicted its largest sizes for such a cell")


def _expected(cell: dict[str, Any], comparison: FormComparison | JointComparison, final: pa.Table) -> Prediction | None:
    """What all tested forms together say of a cell, each with its weight.
    None where the chosen form has no group for the cell, or needs a temperature."""
    told = [(fit, weight, *found) for fit, weight in comparison.weighted if (found := _of_form(cell, comparison, fit))]
    if not told or told[0][0].form != comparison.chosen:
        return None
    fit, _, group, _ = told[0]
    is_joint = isinstance(fit, JointFit)
    form, formula = f"{'joint ' * is_joint}{fit.form}", (JOINT_FORMS if is_joint else FORMS)[fit.form].formula
    ends = mixed_interval([(expected, weight) for _, weight, _, expected in told], LEVEL)
    predicted, low, high = (float(np.exp(end[0])) for end in ends)
    cell = cell | dict(comparison.settings.get(group, {}))
    if not np.isfinite([predicted, low, high]).all():
        return _refused(cell, comparison.measure, f"the form {form} has no value there")
    seen = tuple(final.take(matching(final, cell))["trial"].to_pylist())
    return Prediction(cell, comparison.measure, form, formula, predicted, low, high, LEVEL, fit.cells, seen, None)


def _of_form(
    cell: dict[str, Any], comparison: FormComparison | JointComparison, fit: FormFit | JointFit
) -> tuple[str, Expected] | None:
    """The group that a form has for the cell, and what it expects there."""
    cold = isinstance(fit, JointFit) and JOINT_FORMS[fit.form].cold
    if cold and cell.get("temperature") is None:
        return None
    asked = {name: value for name, value in cell.items() if not (cold and name == "temperature")}
    members = list(comparison.cells.group if isinstance(comparison, FormComparison) else fit.levels)
    fitting = [
        label
        for label in sorted(fit.levels)
        if all(comparison.settings.get(label, {}).get(name, value) == value for name, value in asked.items())
    ]
    if not fitting:
        return None
    group = max(fitting, key=members.count)  # of several the one with most cells
    if isinstance(fit, FormFit):
        return group, fit.expect(np.array([cell["num_classes"]]), group)
    return group, fit.expect({name: np.log([float(cell.get(name) or np.nan)]) for name in AXES}, group)


def _refused(cell: dict[str, Any], measure: str, reason: str) -> Prediction:
    return Prediction(cell, measure, None, None, None, None, None, LEVEL, 0, (), reason)


def matching(final: pa.Table, cell: Mapping[str, Any]) -> np.ndarray:
    """Indices of the rows that have all the settings of a cell; a setting the table lacks matches nothing."""
    kept = np.ones(final.num_rows, dtype=bool)
    for name, value in cell.items():
        column = final[name].to_pylist() if name in final.column_names else [object()] * final.num_rows
        kept &= np.array([found == value for found in column], dtype=bool)
    return np.flatnonzero(kept)


def kept_with(earlier: Sequence[Prediction], new: Sequence[Prediction]) -> list[Prediction]:
    """Earlier predictions and the new ones that say something else; refusals are not kept."""
    return [*earlier, *(p for p in new if p.refused is None and p not in earlier)]


def score(predictions: Sequence[Prediction], final: pa.Table) -> Scores:
    """Score, for each cell and measure, the last prediction that was made before trials of the cell had run."""
    found: dict[str, Score] = {}
    waiting: set[str] = set()
    for prediction in predictions:
        name = json.dumps([dict(prediction.cell), prediction.measure], sort_keys=True)
        scored = _score(prediction, final)
        if scored is None:
            waiting.add(name)
        elif name not in found or not prediction.seen:  # once its cell was seen, a later one is not a prediction of it
            found[name] = scored
    scores, left = tuple(found.values()), len(waiting - set(found))
    middle, covered = median(np.array([s.error for s in scores])), [s.inside for s in scores]
    return Scores(scores, left, middle, float(np.mean(covered)) if scores else float("nan"))


def _score(prediction: Prediction, final: pa.Table) -> Score | None:
    if prediction.predicted is None or prediction.low is None or prediction.high is None:
        return None
    rows = final.take(matching(final, prediction.cell))
    rows = rows.filter(pc.invert(pc.is_in(rows["trial"], value_set=pa.array(prediction.seen, pa.string()))))
    measured, terminal = values(rows, prediction.measure), values(rows, "terminal")
    counted = terminal & np.isfinite(measured) & (measured > 0)
    if not counted.any():
        return None
    observed = float(np.exp(np.mean(np.log(measured[counted]))))
    inside = bool(prediction.low <= observed <= prediction.high)
    error = abs(prediction.predicted / observed - 1)
    return Score(prediction, observed, error, inside, int(counted.sum()), int((~terminal).sum()))


def predictions_to_json(predictions: Sequence[Prediction]) -> bytes:
    content = {"predictions_schema": SCHEMA, "predictions": [asdict(p) for p in predictions]}
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()


def predictions_from_json(content: bytes | None) -> list[Prediction] | None:
    """The predictions kept in a report; none for no file, None for one that cannot be read."""
    if content is None:
        return []
    try:
        read = json.loads(content)
        kept = TypeAdapter(list[Prediction]).validate_python(read["predictions"])
        return kept if read["predictions_schema"] == SCHEMA else None
    except (ValueError, KeyError, TypeError):
        return None
