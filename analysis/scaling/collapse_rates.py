"""Time laws: how fast variability falls in each trial once training accuracy has reached 99 %. Each trial gives one rate, and
intervals are over class counts; the learning rate falls during the same steps, so a rate also depends on its schedule."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from analysis.rows.frames import gathered, groups, settings_of_rows
from analysis.rows.measures import FLOAT_FLOOR, VARIABILITY, Course, terminal_courses
from analysis.scaling.power_law import Exponent
from analysis.statistics.huber import fit_linear
from analysis.statistics.inference import MIN_CELLS, mean_interval
from analysis.statistics.interval_censored import complete

LAWS: Mapping[str, str] = {
    "power": "A (1 + steps / s)^-a, s the step at which 99 % was reached",
    "exponential": "A exp(-a steps / s)",
}
MIN_EPOCHS = 6
KEPT_OUT = 0.25  # each law must predict this last share of a trial's terminal epochs


@dataclass(frozen=True)
class TrialLaw:
    """One trial's rate by each law, the median relative error of each law on the last epochs, and the values at the floor."""

    cell: str
    size: int
    rates: Mapping[str, float]
    errors: Mapping[str, float]
    at_floor: int


@dataclass(frozen=True)
class TimeLaw:
    """The trials of one feature_dim: the law that predicts their last epochs better, and its rate.
    rate: mean over class counts of the means over their cells, its ends None under MIN_CELLS class counts. best_in: share of
    trials that the chosen law predicts better. short: trials with fewer than MIN_EPOCHS terminal epochs."""

    measure: str
    feature_dim: int
    law: str
    rate: Exponent
    best_in: float
    error: float
    trials: int
    cells: int
    sizes: int
    short: int
    at_floor: int
    refused: str | None


def fit_time_laws(rows: pa.Table, final: pa.Table) -> list[TimeLaw]:
    """The time law of each variability measure at each feature_dim that has terminal trials."""
    found = []
    courses = terminal_courses(rows, final)
    cells = settings_of_rows(final, ("trial", "cell", "num_classes"))
    places = {trial: (cell, size) for trial, cell, size in cells}
    for measure in VARIABILITY:
        laws = {t: _trial_law(*places[t], c, c.measures[measure]) for t, c in courses.items()}
        for where, members in groups(final.select(["trial", "feature_dim"]), ["feature_dim"]):
            mine = [laws[t] for t in members["trial"].to_pylist() if t in laws]
            if mine:
                found.append(_summary(measure, where["feature_dim"], mine))
    return found


def _trial_law(cell: str, size: int, course: Course, measured: np.ndarray) -> TrialLaw | None:
    known = np.isfinite(measured) & (measured >= 0)
    time, measured = course.steps[known] / max(course.onset, 1.0), measured[known]
    if len(time) < MIN_EPOCHS or np.ptp(time) == 0:
        return None
    rates = {law: _rate(law, time, measured)[1] for law in LAWS}
    errors = {law: _error(law, time, measured) for law in LAWS}
    return TrialLaw(cell, size, rates, errors, int((measured <= FLOAT_FLOOR).sum()))


def _clock(law: str, time: np.ndarray) -> np.ndarray:
    return np.log1p(time) if law == "power" else time


def _rate(law: str, time: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Level and rate of log measure = level - rate * clock; values at the float floor are only known to lie below it."""
    clock, floored = _clock(law, time), measured <= FLOAT_FLOOR
    high = np.log(np.maximum(measured, FLOAT_FLOOR))
    if not floored.any():  # least squares: a report has tens of thousands of these, and rates are averaged anyway
        apart = clock - clock.mean()
        slope = float(apart @ high) / float(apart @ apart)
        return np.array([high.mean() - slope * clock.mean(), -slope])
    design = np.stack([np.ones(len(clock)), -clock], axis=1)
    target = complete(design, np.where(floored, -np.inf, high), high).target
    return np.asarray(fit_linear(design, target).coefficients)


def _error(law: str, time: np.ndarray, measured: np.ndarray) -> float:
    """Median relative error on the last epochs above the float floor when the ones before them were fitted."""
    above = np.flatnonzero(measured > FLOAT_FLOOR)
    first, judged = np.split(above, [round(len(above) * (1 - KEPT_OUT))])
    if len(first) < 3 or len(judged) == 0:
        return float("nan")
    level, rate = _rate(law, time[first], measured[first])
    predicted = np.exp(level - rate * _clock(law, time[judged]))
    return float(np.median(np.abs(predicted / measured[judged] - 1)))


def _summary(measure: str, feature_dim: int, laws: list[TrialLaw | None]) -> TimeLaw:
    known = [law for law in laws if law is not None]
    errors = np.array([[law.errors[name] for name in LAWS] for law in known]).reshape(-1, len(LAWS))
    judged = errors[np.isfinite(errors).all(axis=1)]
    wins = np.bincount(judged.argmin(axis=1), minlength=len(LAWS)) if len(judged) else np.zeros(len(LAWS))
    chosen = list(LAWS)[int(wins.argmax())]
    cells = gathered(((law.size, law.cell), law.rates[chosen]) for law in known)
    sizes = gathered((size, np.mean(rates)) for (size, _), rates in cells.items())
    mean, low, high = mean_interval(np.array([np.mean(sizes[size]) for size in sorted(sizes)]))
    refused, index = None, list(LAWS).index(chosen)
    if len(sizes) < MIN_CELLS:
        told = f"{len(sizes)} class counts with {MIN_EPOCHS} measured terminal epochs"
        refused, low, high = f"{told}, at least {MIN_CELLS} are needed", None, None
    return TimeLaw(
        measure=measure,
        feature_dim=feature_dim,
        law=chosen,
        rate=Exponent("a", mean, low, high),
        best_in=float(wins[index] / len(judged)) if len(judged) else float("nan"),
        error=float(np.median(judged[:, index])) if len(judged) else float("nan"),
        trials=len(known),
        cells=len(cells),
        sizes=len(sizes),
        short=len(laws) - len(known),
        at_floor=sum(law.at_floor for law in known),
        refused=refused,
    )
