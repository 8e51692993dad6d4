"""The values of one setting beside each other, paired over seeds and everything else that is shared. A unit is one seed in
cells that differ in the compared setting alone. Each seed gives one number, its mean over the shared cells, and intervals
and tests are over seeds: the sizes were chosen, while the seeds stand for chance. Knows rows and statistics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows import frames
from analysis.rows.frames import SIZES, codes, distinct, gathered, settings_of_rows, values, varied_settings
from analysis.rows.measures import measure_values
from analysis.rows.wording import shown_value
from analysis.statistics import inference
from analysis.statistics.inference import LEVEL, MIN_SEEDS, mean_interval
from gnc_models.progress import counted
from study.design.where import ConditionRefused, check_column

DEFAULT_MEASURES = ("margin_min_lower", "gnc1_rank", "gnc3_uncentred", "test_accuracy")
# Minimum margins on the scale of unit rows: what random rows, optima and best codes are lines for.
MINIMUM_MARGINS = frozenset(
    {"margin_min_lower", "margin_min_upper", "mean_margin_min_lower", "mean_margin_min_upper",
     "mean_direction_margin_min", "sample_margin_min"}
)  # fmt: skip
REFERENCE_LINES = ("random_margin", "ufm_margin_low", "ufm_margin_high", "reference_margin_lower")
LINEAR_UNITS = frozenset({"distance", "share", "cosine"})  # measures in these units are never compared as ratios
WIDE = 10.0  # positive values are compared as ratios where the largest is more than this many times the smallest


@dataclass(frozen=True)
class Difference:
    """Paired difference from the base value over shared seeds; of logarithms where the contrast is_log.
    low, high: ends of the LEVEL interval, None under two seeds. p, adjusted: of the paired t test and after Holm's
    correction over the family it was computed in; NaN under MIN_SEEDS seeds, where nothing is tested. within,
    detectable: see `equivalence_bound` and `detectable_gap`, neither of them adjusted; NaN as p."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    cells: int
    p: float
    within: float
    detectable: float
    adjusted: float


@dataclass(frozen=True)
class Level:
    """One value of the setting.
    by_seed, by_cell: mean of the measure (of its logarithm where is_log) of each seed over the cells shared with the
    base, and of each such cell over its seeds. mean, low, high: over seeds. trials, terminal: how many trials, and how
    many of them reached 99 % training accuracy. difference: from the base; None for the base itself.
    references: mean of each of REFERENCE_LINES over the same rows, NaN where not tabulated."""

    value: Any
    by_seed: dict[Any, float]
    by_cell: dict[tuple[Any, ...], float]
    mean: float
    low: float | None
    high: float | None
    trials: int
    terminal: int
    difference: Difference | None
    references: dict[str, float]


@dataclass(frozen=True)
class Contrast:
    """One measure over the values of one setting, all against `base`.
    held: settings that a cell holds fixed, in the order of by_cell's keys. pooled: settings that have no effect at some
    of the values and several values at others; their trials are averaged over what those others share. moving: settings
    that change together with the setting, so that the two effects cannot be separated. apart: values that share no seed
    and cell with the base. keys: of the trials that were compared."""

    setting: str
    measure: str
    base: Any
    is_log: bool
    levels: tuple[Level, ...]
    held: tuple[str, ...]
    pooled: tuple[str, ...]
    moving: tuple[str, ...]
    apart: tuple[Any, ...]
    keys: tuple[str, ...]
    where: str = ""


def numbers_contrast(
    final: pa.Table, setting: str, measure: str, *, against: Any = None, where: str = "", tuned: Sequence[str] = ()
) -> Contrast | None:
    """Contrast the values of a setting; None where no two of them share a seed and everything else.
    Args:
        final: one row per complete trial. setting: a settings column; null, the setting without effect, is a value.
        measure: see `measure_values`. against: the value compared with; None: the first that shares the most units.
        where: of the rows in words, carried along for captions. tuned: settings chosen for each value by itself, such
            as a learning rate; values are paired though they differ in these.
    Raises:
        ConditionRefused: an unknown setting, measure or base value."""
    check_column(final.select([n for n in frames.SETTING_NAMES if n in final.column_names]), setting)
    measured, whole = measure_values(final, measure), final
    needed = [setting, *varied_settings(final), "seed", "trial", "terminal", *REFERENCE_LINES]
    final = final.select(list(dict.fromkeys(needed)))
    kept = np.flatnonzero(np.isfinite(measured))
    if not len(kept):  # such as test accuracy of free features: no value of `against` is wrong because of it
        return None
    held, pooled, moving = held_settings(final.take(kept), setting, tuned)
    kept = kept[_supported(*(settings_of_rows(final.take(kept), names) for names in (held, [setting], pooled)))]
    rows, measured = final.take(kept), measured[kept]
    column, keys = frames.COLUMNS.get(measure.partition("[")[0]), settings_of_rows(rows, held)
    may_be_log = column is None or column.unit not in LINEAR_UNITS
    is_log = may_be_log and bool(len(measured) and measured.min() > 0 and measured.max() > WIDE * measured.min())
    numbers = zip(rows[setting].to_pylist(), (np.log(measured) if is_log else measured).tolist(), strict=True)
    of_unit = gathered(zip(keys, numbers, strict=True))
    units = {key: {value: fmean(x) for value, x in gathered(pairs).items()} for key, pairs in of_unit.items()}
    values_shared = {value for unit in units.values() for value in unit}
    base = _base(units, [v for v in distinct(rows, setting) if v in values_shared], against, setting)
    shared = {key: unit for key, unit in units.items() if base in unit and len(unit) > 1}
    together = [value for value in distinct(rows, setting) if any(value in unit for unit in shared.values())]
    apart = tuple(value for value in distinct(rows, setting) if value not in together)
    if apart and shared:  # what is held and pooled depends on the values that are compared
        among = whole.take(np.flatnonzero([value not in apart for value in whole[setting].to_pylist()]))
        found = numbers_contrast(among, setting, measure, against=shown_value(base), where=where, tuned=tuned)
        return found and replace(found, apart=(*apart, *found.apart))
    if not shared:
        return None
    mine = rows.take(np.flatnonzero([key in shared for key in keys]))
    levels = tuple(_adjusted([_level(mine, setting, value, base, shared, measure) for value in together]))
    pooled = tuple(name for name in pooled if len(mine[name].drop_null().unique()) > 1)
    told = (levels, tuple(held[:-1]), pooled, moving, apart, tuple(mine["trial"].to_pylist()), where)
    return Contrast(setting, measure, base, is_log, *told)


def _supported(keys: list[tuple], taken: list[tuple], beside: list[tuple]) -> np.ndarray:
    """Which rows enter, by the values of the pooled settings beside them.
    Where several values of the setting have pooled settings, only what all of these share enters: two normalizations
    are compared at the temperatures of both."""
    if not beside or not beside[0]:  # nothing is pooled
        return np.ones(len(keys), dtype=bool)
    triples = zip(keys, zip(taken, beside, strict=True), strict=True)
    units = gathered((key, pair) for key, pair in triples if any(x is not None for x in pair[1]))
    members = {key: {value: set(others) for value, others in gathered(pairs).items()} for key, pairs in units.items()}
    common = {key: set.intersection(*unit.values()) for key, unit in members.items()}
    return np.array([
        not common.get(key) or value not in members[key] or pooled in common[key]
        for key, value, pooled in zip(keys, taken, beside, strict=True)
    ], dtype=bool)  # fmt: skip


def contrasts(final: pa.Table, setting: str, measures: Sequence[str], **options: Any) -> list[Contrast]:
    """`numbers_contrast` of each measure, p values adjusted over all together; those without shared units are left out."""
    each = counted(measures, "measures", len(measures))
    found = (numbers_contrast(final, setting, measure, **options) for measure in each)
    return adjust_together([contrast for contrast in found if contrast is not None])


def adjust_together(found: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts with Holm's correction over every difference of all of them."""
    adjusted = iter(_adjusted([level for contrast in found for level in contrast.levels]))
    return [replace(c, levels=tuple(next(adjusted) for _ in c.levels)) for c in found]


def held_settings(
    rows: pa.Table, setting: str, tuned: Sequence[str] = ()
) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Settings that must agree within a unit (seed last), those pooled, and those that move with the setting.
    A setting that is null at one value of `setting` and not at another cannot be held fixed: it is pooled. A setting
    that takes no value at two values of `setting` moves with it, and so does one that was tuned. Sizes are always held."""
    held, pooled, moving = [], [], []
    for name in varied_settings(rows):
        if name in (setting, "seed"):
            continue
        if name in tuned:
            moving.append(name)
            continue
        both = rows.select([setting, name])
        pairs: list[tuple[Any, ...]] = settings_of_rows(both.take(codes(both, both.column_names)[1]), both.column_names)
        at = {value: set(others) for value, others in gathered((row[0], row[1]) for row in pairs).items()}
        only_null = [value for value, others in at.items() if others == {None}]
        if name not in SIZES and 0 < len(only_null) < len(at):
            if any(len(others) > 1 for others in at.values()):
                pooled.append(name)
        elif name not in SIZES and len(at) > 1 and not any(a & b for a, b in combinations(at.values(), 2)):
            moving.append(name)
        else:
            held.append(name)
    return [*held, "seed"], tuple(pooled), tuple(moving)


def _base(units: dict[tuple, dict[Any, float]], found: list[Any], against: Any, setting: str) -> Any:
    if against is not None:
        matching = [value for value in found if str(against) in (str(value), shown_value(value))]
        if not matching:
            there = ", ".join(map(shown_value, found[:5])) or "none"
            rule = f"--against must be a value of {setting} in these rows, got {against!r}"
            raise ConditionRefused(f"{rule}. There are {there}.")
        return matching[0]
    shares = {value: sum(len(unit) > 1 for unit in units.values() if value in unit) for value in found}
    return max(found, key=lambda value: shares[value], default=None)  # the first of the best: `found` is sorted


def _level(
    rows: pa.Table, setting: str, value: Any, base: Any, shared: dict[tuple, dict[Any, float]], measure: str
) -> Level:
    mine = {key: unit for key, unit in shared.items() if value in unit}
    by_seed = _means((key[-1], unit[value]) for key, unit in mine.items())
    by_cell = _means((key[:-1], unit[value]) for key, unit in mine.items())
    here = rows.take(np.flatnonzero([v == value for v in rows[setting].to_pylist()]))
    has_lines = measure in MINIMUM_MARGINS and here.num_rows > 0
    references = {name: float(np.mean(values(here, name))) if has_lines else float("nan") for name in REFERENCE_LINES}
    difference = None
    if value != base:
        gaps = np.array(list(_means((key[-1], unit[value] - unit[base]) for key, unit in mine.items()).values()))
        tests = (inference.paired_p(gaps), inference.equivalence_bound(gaps), inference.detectable_gap(gaps))
        difference = Difference(*mean_interval(gaps), len(gaps), len(by_cell), *tests, adjusted=float("nan"))
    interval = mean_interval(np.array(list(by_seed.values())))
    terminal = int(values(here, "terminal").sum())
    return Level(value, by_seed, by_cell, *interval, here.num_rows, terminal, difference, references)


def _means(numbers: Iterable[tuple[Any, float]]) -> dict[Any, float]:
    """Mean of the numbers of each key: a seed, or what a cell holds."""
    return {key: fmean(some) for key, some in sorted(gathered(numbers).items(), key=lambda one: str(one[0]))}


def _adjusted(levels: Sequence[Level]) -> list[Level]:
    adjusted = inference.holm([np.nan if level.difference is None else level.difference.p for level in levels])
    return [
        level if level.difference is None else replace(level, difference=replace(level.difference, adjusted=float(p)))
        for level, p in zip(levels, adjusted, strict=True)
    ]


def verdict(difference: Difference, bound: float | None = None) -> str:
    """What may be said of a difference: higher, lower, none shown, or nothing for too few seeds.
    bound: differences below it do not matter, in the unit of the difference (a logarithm where the contrast is_log);
    where the difference is shown to stay below it, that is said too."""
    if np.isnan(difference.adjusted):
        return f"no verdict: {difference.seeds} of {MIN_SEEDS} seeds"
    sign = "higher" if difference.mean > 0 else "lower"
    found = "no difference shown" if difference.adjusted >= 1 - LEVEL else sign
    return found if bound is None else f"{found}, {'inside' if difference.within < bound else 'not inside'} the bound"
