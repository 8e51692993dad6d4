"""Time laws: how fast variability falls in each trial once training accuracy has reached 99 %. Each trial gives one rate, and
intervals are over class counts; the learning rate falls during the same steps, so a rate also depends on its schedule."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.rows.frames import codes, values
from analysis.rows.measures import FLOAT_FLOOR, VARIABILITY, Courses, terminal_courses
from analysis.scaling.power_law import Exponent
from analysis.statistics.huber import fit_linear
from analysis.statistics.inference import MIN_CELLS, mean_interval
from analysis.statistics.interval_censored import complete
from gnc_models.progress import amount

LAWS: Mapping[str, str] = {
    "power": "A (1 + steps / s)^-a, s the step at which 99 % was reached",
    "exponential": "A exp(-a steps / s)",
}
MIN_EPOCHS = 6
KEPT_OUT = 0.25  # each law must predict this last share of a trial's terminal epochs


@dataclass(frozen=True)
class TrialLaws:
    """By trial, with its cell and class count: rates [trials, laws], median relative errors on the last epochs, floored values.
    known: which trials have MIN_EPOCHS terminal epochs; the other arrays are of these alone."""

    known: np.ndarray
    rates: np.ndarray
    errors: np.ndarray
    at_floor: np.ndarray


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
    courses = terminal_courses(rows, final)
    mine = final.take(pc.index_in(courses.trials, value_set=final["trial"].combine_chunks()))
    cell, sizes = codes(mine, ["cell"])[0], values(mine, "num_classes").astype(int)
    dims, found = values(mine, "feature_dim").astype(int), []
    for measure in VARIABILITY:
        laws = _trial_laws(courses, courses.measures[measure])
        for dim in np.unique(dims):
            found.append(_summary(measure, int(dim), laws, dims == dim, cell, sizes))
    return found


def _trial_laws(courses: Courses, measured: np.ndarray) -> TrialLaws:
    trials = len(courses.onset)
    trial = np.repeat(np.arange(trials), np.diff(courses.bounds))
    is_number = np.isfinite(measured) & (measured >= 0)
    time = courses.steps / np.maximum(courses.onset, 1.0)[trial]
    count, latest, earliest = np.zeros(trials), np.full(trials, -np.inf), np.full(trials, np.inf)
    np.add.at(count, trial[is_number], 1)
    np.maximum.at(latest, trial[is_number], time[is_number])
    np.minimum.at(earliest, trial[is_number], time[is_number])
    known = (count >= MIN_EPOCHS) & (latest > earliest)
    kept = is_number & known[trial]
    trial, time, measured = np.unique(trial[kept], return_inverse=True)[1], time[kept], measured[kept]
    rates = np.stack([_lines(_clock(law, time), measured, trial)[1] for law in LAWS], axis=1)
    errors = np.stack([_errors(_clock(law, time), measured, trial) for law in LAWS], axis=1)
    return TrialLaws(known, rates, errors, np.bincount(trial, measured <= FLOAT_FLOOR).astype(int))


def _clock(law: str, time: np.ndarray) -> np.ndarray:
    return np.log1p(time) if law == "power" else time


def _lines(clock: np.ndarray, measured: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """Level and rate [2, trials] of log measure = level - rate * clock; values at the float floor only lie below it."""
    # least squares where nothing is floored: a report has a hundred thousand of these, and rates are averaged anyway
    count, high = np.bincount(trial), np.log(np.maximum(measured, FLOAT_FLOOR))
    centre = np.bincount(trial, clock) / count
    apart = clock - centre[trial]
    with np.errstate(invalid="ignore"):
        slope = np.bincount(trial, apart * high) / np.bincount(trial, apart**2)
    found = np.stack([np.bincount(trial, high) / count - slope * centre, -slope])
    floored = measured <= FLOAT_FLOOR
    for one in np.unique(trial[floored]):
        mine = slice(*np.searchsorted(trial, [one, one + 1]))
        design = np.stack([np.ones(count[one]), -clock[mine]], axis=1)
        target, _ = complete(design, np.where(floored[mine], -np.inf, high[mine]), high[mine])
        found[:, one] = fit_linear(design, target).coefficients
    return found


def _errors(clock: np.ndarray, measured: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """Median relative error [trials] on the last epochs above the float floor when the ones before them were fitted."""
    found, above = np.full(trial.max(initial=-1) + 1, np.nan), measured > FLOAT_FLOOR
    clock, measured, trial = clock[above], measured[above], trial[above]
    count = np.bincount(trial, minlength=len(found))
    fitted = np.rint(count * (1 - KEPT_OUT))
    is_fitted = np.arange(len(trial)) - (np.cumsum(count) - count)[trial] < fitted[trial]
    judged = np.flatnonzero((fitted >= 3) & (fitted < count))
    enters = np.isin(trial, judged)
    trial = np.searchsorted(judged, trial)
    level, rate = _lines(*(column[is_fitted & enters] for column in (clock, measured, trial)))
    late = ~is_fitted & enters
    mine = trial[late]
    missed = np.abs(np.exp(level[mine] - rate[mine] * clock[late]) / measured[late] - 1)
    missed, count = missed[np.lexsort((missed, mine))], np.bincount(mine, minlength=len(judged))
    starts = np.cumsum(count) - count
    found[judged] = (missed[starts + (count - 1) // 2] + missed[starts + count // 2]) / 2
    return found


def _summary(
    measure: str, feature_dim: int, laws: TrialLaws, mine: np.ndarray, cell: np.ndarray, size: np.ndarray
) -> TimeLaw:
    """The law of the trials that are mine; mine, cell, size: of all trials."""
    own, (errors, rates, at_floor) = mine[laws.known], (laws.errors, laws.rates, laws.at_floor)
    judged = errors[own & np.isfinite(errors).all(axis=1)]
    wins = np.bincount(judged.argmin(axis=1), minlength=len(LAWS)) if len(judged) else np.zeros(len(LAWS))
    index = int(wins.argmax())
    _, first, index_of = np.unique(cell[mine & laws.known], return_index=True, return_inverse=True)
    by_cell = np.bincount(index_of, rates[own, index]) / np.bincount(index_of)
    sizes, size_of = np.unique(size[mine & laws.known][first], return_inverse=True)
    mean, low, high = mean_interval(np.bincount(size_of, by_cell) / np.bincount(size_of))
    refused = None
    if len(sizes) < MIN_CELLS:
        told = f"{amount(len(sizes), 'class count')} with {MIN_EPOCHS} measured terminal epochs"
        refused, low, high = f"{told}, at least {MIN_CELLS} are needed", None, None
    return TimeLaw(
        measure=measure, feature_dim=feature_dim, law=list(LAWS)[index], rate=Exponent("a", mean, low, high),
        best_in=float(wins[index] / len(judged)) if len(judged) else float("nan"),
        error=float(np.median(judged[:, index])) if len(judged) else float("nan"), trials=int(own.sum()),
        cells=len(by_cell), sizes=len(sizes), short=int(mine.sum() - own.sum()), at_floor=int(at_floor[own].sum()),
        refused=refused,
    )  # fmt: skip
