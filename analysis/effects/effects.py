"""What one setting does to a measure, in pairs of cells that share everything else. Knows frames; draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.rows.frames import SETTING_NAMES, distinct, groups, values
from analysis.statistics.inference import MIN_CELLS, mean_interval, paired_p

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
    measured = values(final, measure)
    kept = np.flatnonzero(np.isfinite(measured) & np.array(final[setting].is_valid().to_pylist(), dtype=bool))
    final, measured = final.take(kept), measured[kept]
    # one pass over the rows: a table for each cell would take minutes at ten thousand trials
    members: dict[tuple[Any, ...], dict[Any, list[int]]] = {}
    keys = zip(*(final[name].to_pylist() for name in held_names), strict=True)
    for index, (key, level) in enumerate(zip(keys, final[setting].to_pylist(), strict=True)):
        members.setdefault(key, {}).setdefault(level, []).append(index)
    trial = final["trial"].to_pylist()
    found = []
    for key in sorted(members, key=lambda k: tuple((v is None, v if v is not None else 0) for v in k)):
        levels = sorted(members[key])
        if len(levels) > 1:
            inside = [members[key][level] for level in levels]
            medians = tuple(float(np.median(measured[i])) for i in inside)
            trials = tuple(trial[i] for several in inside for i in several)
            found.append(SharedCell(dict(zip(held_names, key, strict=True)), tuple(levels), medians, trials))
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
