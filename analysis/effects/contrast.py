"""The values of one setting beside each other, paired over seeds and everything else that is shared.

    python -m analysis.effects.contrast RESULTS --setting loss --measure margin_min_lower --measure test_accuracy \\
        --where "num_classes == 100" --figure docs/findings/losses.svg

Final rows of complete trials. A unit is a seed in a cell that differs in the setting alone; a seed's number is the mean
over its cells, and every interval and test is over seeds. Works on any column of the tables by name. Knows frames.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows.frames import COLUMNS, SETTING_NAMES, distinct, final_rows, values
from analysis.rows.wording import number
from analysis.statistics.inference import LEVEL, MIN_SEEDS, holm, mean_interval, paired_p
from study.design.conditions import ConditionRefused, check_column, rows_where

DEFAULT_MEASURES = ("margin_min_lower", "gnc1_rank", "gnc3_uncentred", "test_accuracy")
# Minimum margins on the scale of unit rows: what random rows, optima and best codes are lines for.
MINIMUM_MARGINS = frozenset(
    {"margin_min_lower", "margin_min_upper", "mean_margin_min_lower", "mean_margin_min_upper",
     "mean_direction_margin_min", "sample_margin_min"}
)  # fmt: skip
REFERENCE_LINES = ("random_margin", "ufm_margin", "reference_margin_lower")
SIZES = ("num_classes", "feature_dim")
LINEAR_UNITS = frozenset({"distance", "share", "cosine"})  # never compared as ratios
WIDE = 10.0  # times the smallest: positive values that spread further are compared as ratios


@dataclass(frozen=True)
class Difference:
    """Paired difference from the base value over shared seeds; of logarithms where the contrast is_log.

    low, high: ends of the LEVEL interval, None under two seeds. p, adjusted: of the paired t test and after Holm's
    correction over the family it was computed in; NaN under MIN_SEEDS seeds, where nothing is tested.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int
    cells: int
    p: float
    adjusted: float


@dataclass(frozen=True)
class Level:
    """One value of the setting.

    by_seed: seed to the mean of the measure over its shared cells (of its logarithm where is_log). mean, low, high:
    over seeds. cells: how many are shared with the base. trials, terminal: how many of them, and how many reached 99 %
    training accuracy. difference: from the base; None for the base itself and where nothing is shared.
    references: mean of each of REFERENCE_LINES over the same rows, NaN where not tabulated.
    """

    value: Any
    by_seed: dict[Any, float]
    mean: float
    low: float | None
    high: float | None
    cells: int
    trials: int
    terminal: int
    difference: Difference | None
    references: dict[str, float]


@dataclass(frozen=True)
class Contrast:
    """One measure over the values of one setting, all against `base`.

    pooled: settings that belong to one value alone and take several there: their trials are averaged. moving: settings
    that change together with the setting, so that their effects cannot be told apart.
    """

    setting: str
    measure: str
    base: Any
    is_log: bool
    levels: tuple[Level, ...]
    pooled: tuple[str, ...]
    moving: tuple[str, ...]
    where: str = ""


def measure_values(table: pa.Table, measure: str) -> np.ndarray:
    """A measurement as floats; `name[i]` reads the i-th entry of a list column, -1 the last; NaN where absent.

    Raises:
        ConditionRefused: an unknown column, text, or a list without an entry.
    """
    found = re.fullmatch(r"(\w+)(?:\[(-?\d+)\])?", measure)
    if found is None:
        raise ConditionRefused(f"measure must be a column, or COLUMN[INDEX] of a list, got {measure!r}.")
    name, index = check_column(table, found[1]), found[2]
    kind = table[name].type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list != (index is not None):
        cure = f"Write {name}[-1] for its last entry." if is_list else "It is no list: leave the index out."
        raise ConditionRefused(f"measure must name one number a row, got {measure!r}. {cure}")
    if is_list:
        return np.array([_entry(row, int(index)) for row in table[name].to_pylist()])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ConditionRefused(f"measure must be a number, got {measure!r}, which holds {kind}.")
    return values(table, name).astype(float)


def _entry(row: list[float | None] | None, index: int) -> float:
    try:
        value = None if row is None else row[index]
    except IndexError:
        value = None
    return float("nan") if value is None else float(value)


def numbers_contrast(
    final: pa.Table, setting: str, measure: str, *, against: Any = None, where: str = ""
) -> Contrast | None:
    """Contrast the values of a setting; None where no two of them share a seed and everything else.

    Args:
        final: one row a complete trial. setting: a settings column; null, the setting without effect, is a value.
        measure: see `measure_values`. against: the value compared with; None: the first that shares the most units.
        where: of the rows in words, carried along for captions.
    Raises:
        ConditionRefused: an unknown setting, measure or base value.
    """
    if setting not in SETTING_NAMES:
        check_column(final.select([n for n in SETTING_NAMES if n in final.column_names]), setting)
    measured = measure_values(final, measure)
    kept = np.flatnonzero(np.isfinite(measured))
    rows, measured = final.take(kept), measured[kept]
    held, pooled, moving = held_settings(rows, setting)
    is_log = _is_log(measure, measured)
    numbers = np.log(measured) if is_log else measured
    keys = list(zip(*(rows[name].to_pylist() for name in held), strict=True))
    units = _units(keys, rows[setting].to_pylist(), numbers)
    found = [v for v in distinct(rows, setting) if v in {value for unit in units.values() for value in unit}]
    base = _base(units, found, against, setting)
    shared = {key: unit for key, unit in units.items() if base in unit and len(unit) > 1}
    if not shared:
        return None
    kept_rows = rows.take(np.flatnonzero([key in shared for key in keys]))
    levels = [_level(kept_rows, setting, value, base, shared, measure) for value in found]
    return Contrast(setting, measure, base, is_log, tuple(_adjusted(levels)), pooled, moving, where)


def contrasts(
    final: pa.Table, setting: str, measures: Sequence[str], *, against: Any = None, where: str = ""
) -> list[Contrast]:
    """One contrast a measure, p values adjusted over all of them together; measures without shared units are left out.

    Args and raises: as `numbers_contrast`.
    """
    found = [numbers_contrast(final, setting, measure, against=against, where=where) for measure in measures]
    return adjust_together([contrast for contrast in found if contrast is not None])


def adjust_together(found: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts with Holm's correction over every difference of all of them."""
    levels = [level for contrast in found for level in contrast.levels]
    adjusted = iter(_adjusted(levels))
    return [
        Contrast(c.setting, c.measure, c.base, c.is_log, tuple(next(adjusted) for _ in c.levels), c.pooled, c.moving,
                 c.where)
        for c in found
    ]  # fmt: skip


def held_settings(rows: pa.Table, setting: str) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Settings that must agree within a unit (seed last), those pooled, and those that move with the setting.

    A setting that is null at some value of `setting` and not at another exists for some of them only and cannot be
    held. One that shares no value between any two values of `setting` moves with it; sizes are always held.
    """
    held, pooled, moving = [], [], []
    for name in SETTING_NAMES:
        if name in (setting, "seed") or len(rows[name].unique()) < 2:
            continue
        at: dict[Any, set[Any]] = {}
        for value, other in zip(rows[setting].to_pylist(), rows[name].to_pylist(), strict=True):
            at.setdefault(value, set()).add(other)
        only_null = [value for value, others in at.items() if others == {None}]
        if name not in SIZES and 0 < len(only_null) < len(at):
            if any(len(others) > 1 for others in at.values()):
                pooled.append(name)
        elif name not in SIZES and len(at) > 1 and not _share_any(list(at.values())):
            moving.append(name)
        else:
            held.append(name)
    return [*held, "seed"], tuple(pooled), tuple(moving)


def _share_any(groups: list[set[Any]]) -> bool:
    return any(groups[i] & groups[j] for i in range(len(groups)) for j in range(i))


def _is_log(measure: str, measured: np.ndarray) -> bool:
    column = COLUMNS.get(measure.partition("[")[0])
    if column is not None and column.unit in LINEAR_UNITS:
        return False
    return bool(len(measured) and measured.min() > 0 and measured.max() > WIDE * measured.min())


def _units(keys: list[tuple], taken: list[Any], numbers: np.ndarray) -> dict[tuple, dict[Any, float]]:
    """Held settings and seed to value of the setting to the mean number of the trials there."""
    members: dict[tuple, dict[Any, list[float]]] = {}
    for key, value, measured in zip(keys, taken, numbers, strict=True):
        members.setdefault(key, {}).setdefault(value, []).append(float(measured))
    return {key: {v: float(np.mean(found)) for v, found in unit.items()} for key, unit in members.items()}


def _base(units: dict[tuple, dict[Any, float]], found: list[Any], against: Any, setting: str) -> Any:
    if against is not None:
        matching = [value for value in found if str(value) == str(against) or _null_named(value, against)]
        if not matching:
            raise ConditionRefused(
                f"--against must be a value of {setting} in these rows, got {against!r}. "
                f"There are {', '.join(map(shown_value, found[:5])) or 'none'}."
            )
        return matching[0]
    shares = {value: sum(len(unit) > 1 for unit in units.values() if value in unit) for value in found}
    return max(found, key=lambda value: shares[value], default=None)  # the first of the best: `found` is sorted


def _null_named(value: Any, against: Any) -> bool:
    return value is None and str(against) == "null"


def _level(
    rows: pa.Table, setting: str, value: Any, base: Any, shared: dict[tuple, dict[Any, float]], measure: str
) -> Level:
    mine = {key: unit for key, unit in shared.items() if value in unit}
    by_seed = _seed_means({key: unit[value] for key, unit in mine.items()})
    here = rows.take(np.flatnonzero([v == value for v in rows[setting].to_pylist()]))
    references = {name: float("nan") for name in REFERENCE_LINES}
    if measure in MINIMUM_MARGINS:
        references = {
            name: float(np.mean(values(here, name))) if here.num_rows else float("nan") for name in REFERENCE_LINES
        }
    difference = None
    if value != base and mine:
        gaps = _seed_means({key: unit[value] - unit[base] for key, unit in mine.items()})
        difference = _difference(np.array(list(gaps.values())), len({key[:-1] for key in mine}))
    mean, low, high = mean_interval(np.array(list(by_seed.values())))
    return Level(value, by_seed, mean, low, high, len({key[:-1] for key in mine}), here.num_rows,
                 int(values(here, "terminal").sum()), difference, references)  # fmt: skip


def _seed_means(numbers: dict[tuple, float]) -> dict[Any, float]:
    """Mean over cells of each seed, the last entry of the key."""
    seeds: dict[Any, list[float]] = {}
    for key, value in numbers.items():
        seeds.setdefault(key[-1], []).append(value)
    return {seed: float(np.mean(found)) for seed, found in sorted(seeds.items(), key=lambda item: str(item[0]))}


def _difference(gaps: np.ndarray, cells: int) -> Difference:
    mean, low, high = mean_interval(gaps)
    return Difference(mean, low, high, len(gaps), cells, paired_p(gaps), float("nan"))


def _adjusted(levels: Sequence[Level]) -> list[Level]:
    adjusted = holm([np.nan if level.difference is None else level.difference.p for level in levels])
    done = []
    for level, p in zip(levels, adjusted, strict=True):
        gap = level.difference
        if gap is not None:
            gap = Difference(gap.mean, gap.low, gap.high, gap.seeds, gap.cells, gap.p, float(p))
        done.append(Level(level.value, level.by_seed, level.mean, level.low, level.high, level.cells, level.trials,
                          level.terminal, gap, level.references))  # fmt: skip
    return done


def shown_value(value: Any) -> str:
    """A setting's value for people; null is named."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def verdict(difference: Difference) -> str:
    """What may be said of a difference: higher, lower, none shown, or nothing for too few seeds."""
    if np.isnan(difference.adjusted):
        return f"no verdict: {difference.seeds} seeds, {MIN_SEEDS} are needed"
    if difference.adjusted >= 1 - LEVEL:
        return "no difference shown"
    return "higher" if difference.mean > 0 else "lower"


def contrast_interval(contrast: Contrast, ends: tuple[float, float | None, float | None]) -> str:
    """`mean [low, high]` of a level or difference; out of logarithms where the contrast is_log."""
    texts = [number(float(np.exp(x)) if contrast.is_log else x) for x in ends if x is not None]
    return texts[0] if len(texts) < 3 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def markdown_table(contrast: Contrast) -> str:
    """One contrast as a markdown table with what must be said beside it."""
    name = f"{contrast.measure}{' (geometric mean)' if contrast.is_log else ''}"
    against = f"{'ratio to' if contrast.is_log else 'minus'} {shown_value(contrast.base)}"
    lines = [
        f"| {contrast.setting} | seeds | cells | reached 99 % | {name} [95 %] | {against} [95 %] | Holm p | verdict |",
        "|---" * 8 + "|",
    ]
    for level in contrast.levels:
        gap, last = level.difference, ["", "", "compared with" if level.value == contrast.base else "shares no unit"]
        if gap is not None:
            last = [
                contrast_interval(contrast, (gap.mean, gap.low, gap.high)),
                "" if np.isnan(gap.adjusted) else f"{gap.adjusted:.2g}",
                verdict(gap),
            ]
        interval = contrast_interval(contrast, (level.mean, level.low, level.high))
        counts = f"{len(level.by_seed)} | {level.cells} | {level.terminal} of {level.trials}"
        lines.append(f"| {shown_value(level.value)} | {counts} | {interval} | {' | '.join(last)} |")
    return "\n".join([*lines, "", *sentences(contrast)])


def sentences(contrast: Contrast) -> list[str]:
    """What the numbers stand on and what weakens them."""
    said = ["Means, intervals and paired t tests are over seeds, each the mean over the cells that both values share."]
    few = sorted({level.difference.seeds for level in contrast.levels if level.difference
                  and level.difference.seeds < MIN_SEEDS})  # fmt: skip
    if few:
        said.append(f"With {' or '.join(map(str, few))} seeds no verdict is given: at least {MIN_SEEDS} are needed.")
    if contrast.moving:
        said.append(f"Confounded: {', '.join(contrast.moving)} changes together with {contrast.setting}.")
    if contrast.pooled:
        said.append(f"Averaged over {', '.join(contrast.pooled)}, which exists for some values only.")
    return said


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, draw the figure; 0 done, 2 for a wrong request or rows that share nothing."""
    options = _parser().parse_args(arguments)
    measures = options.measure or list(DEFAULT_MEASURES)
    try:
        final = final_rows(options.results)
        for condition in options.where:
            final = rows_where(final, condition)
        parts = _parts(final, options.by, " and ".join(options.where))
        found = adjust_together(
            [
                contrast
                for rows, where in parts
                for contrast in contrasts(rows, options.setting, measures, against=options.against, where=where)
            ]
        )
    except (ConditionRefused, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if not found:
        print(
            f"{options.setting} must vary between complete trials that share a seed and every other setting, got "
            f"{final.num_rows} rows where it does not. Widen --where, or run more of the grid.", file=sys.stderr
        )  # fmt: skip
        return 2
    for contrast in found:
        print(f"### {contrast.measure}{f' where {contrast.where}' if contrast.where else ''}\n")
        print(markdown_table(contrast), end="\n\n")
    print(f"Holm's correction is over all differences above. From {options.results}.")
    if options.figure:
        from analysis.figures.contrast import contrast_file

        path = Path(options.figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contrast_file(found, path.suffix))
        print(f"figure: {path}", file=sys.stderr)
    return 0


def _parts(final: pa.Table, by: str | None, where: str) -> list[tuple[pa.Table, str]]:
    if by is None:
        return [(final, where)]
    taken = final[check_column(final, by)].to_pylist()
    parts = []
    for value in distinct(final, by):
        rows = final.take(np.flatnonzero([v == value for v in taken]))
        parts.append((rows, " and ".join(filter(None, [where, f"{by} = {shown_value(value)}"]))))
    return parts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.effects.contrast",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="results folder or URI")
    parser.add_argument("--setting", required=True, help="the setting whose values are compared")
    parser.add_argument("--measure", action="append", metavar="COLUMN", help="repeatable; COLUMN[INDEX] of a list")
    parser.add_argument("--where", action="append", default=[], metavar="CONDITION", help='"num_classes == 100"')
    parser.add_argument("--by", metavar="COLUMN", help="a table and panel for each value of this column")
    parser.add_argument("--against", metavar="VALUE", help="the value to compare with; null for no effect")
    parser.add_argument("--figure", metavar="FILE", help="draw into this .svg, .pdf or .png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
