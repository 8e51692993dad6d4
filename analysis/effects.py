"""What one setting does to a measure, in pairs of cells that share everything else. Knows frames; draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.fits import MIN_CELLS
from analysis.frames import SETTING_NAMES, distinct, groups, values
from analysis.intervals import mean_interval, paired_p

# Settings that change with another one by rule, not by choice: comparing two normalizations cannot hold them fixed.
DEPENDENT = {
    "temperature": ("seed",),
    "normalization": ("seed", "temperature", "temperature_schedule", "temperature_start", "decay_normalised"),
}
LOG_MEASURES = frozenset({"gnc1_rank", "trace_within", "cdnv_nearest", "gnc3_uncentred"})


@dataclass(frozen=True)
class SharedCell:
    """Cells alike in all but the setting: its values, and the median of the measure over the seeds at each."""

    held: dict[str, Any]
    levels: tuple[Any, ...]
    medians: tuple[float, ...]
    trials: tuple[str, ...]


@dataclass(frozen=True)
class PairedDifference:
    """Mean over shared cells of measure(level) - measure(base), in natural logarithms where is_log.

    low and high are the ends of the LEVEL interval over cells; None under MIN_CELLS cells. p: of the paired t test,
    NaN there.
    """

    measure: str
    base: Any
    level: Any
    is_log: bool
    mean: float
    low: float | None
    high: float | None
    cells: int
    p: float = float("nan")


def shared_cells(final: pa.Table, setting: str, measure: str) -> list[SharedCell]:
    """Groups of cells that differ in the setting alone and have at least two of its values with a finite measure."""
    if setting == "normalization":
        final = _at_shared_temperature(final)
    held_names = [n for n in SETTING_NAMES if n != setting and n not in DEPENDENT.get(setting, ("seed",))]
    found = []
    final = final.select(["trial", setting, measure, *held_names])
    final = final.filter(pc.and_(pc.is_valid(final[setting]), pc.is_finite(pc.fill_null(final[measure], np.nan))))
    for held, rows in groups(final, held_names):
        members = [(w[setting], values(m, measure), m["trial"].to_pylist()) for w, m in groups(rows, [setting])]
        if len(members) > 1:
            levels, measured, trials = zip(*members, strict=True)
            medians = tuple(float(np.median(v)) for v in measured)
            found.append(SharedCell(held, levels, medians, tuple(t for ts in trials for t in ts)))
    return found


def _at_shared_temperature(final: pa.Table) -> pa.Table:
    """Per size, rows at the temperature that most normalizations share; rows without a temperature stay."""
    kept = []
    for _, rows in groups(final, ["num_classes", "feature_dim"]):
        temperatures = [t for t in distinct(rows, "temperature") if t is not None]
        if temperatures:
            by = {t: rows.filter(pc.equal(rows["temperature"], t)) for t in temperatures}
            shared = max(temperatures, key=lambda t: (len(by[t]["normalization"].unique()), by[t].num_rows, -t))
            rows = rows.filter(pc.or_kleene(pc.is_null(rows["temperature"]), pc.equal(rows["temperature"], shared)))
        kept.append(rows)
    return pa.concat_tables(kept) if kept else final


def paired_differences(cells: Sequence[SharedCell], measure: str, base: Any) -> list[PairedDifference]:
    """Each level against the base level over the cells that have both."""
    is_log = measure in LOG_MEASURES
    differences: dict[Any, list[float]] = {}
    for cell in cells:
        by = dict(zip(cell.levels, cell.medians, strict=True))
        for level, value in by.items():
            if base in by and level != base and not (is_log and min(value, by[base]) <= 0):
                change = np.log(value / by[base]) if is_log else value - by[base]
                differences.setdefault(level, []).append(float(change))
    return [_difference(measure, base, level, is_log, np.array(found)) for level, found in sorted(differences.items())]


def _difference(measure: str, base: Any, level: Any, is_log: bool, found: np.ndarray) -> PairedDifference:
    mean, low, high = mean_interval(found)
    if len(found) < MIN_CELLS:
        low = high = None
    return PairedDifference(measure, base, level, is_log, mean, low, high, len(found), paired_p(found))
