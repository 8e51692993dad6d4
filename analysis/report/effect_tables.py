"""The report's tables of the effects of settings: contrasts, gaps of the margin ladder, and shares of the variance."""

import math
from collections.abc import Mapping, Sequence

from analysis.effects.contrast import Contrast, Level, verdict
from analysis.effects.shares import GAPS, Explained, LadderGaps
from analysis.report.page import TEXTS, Cell, Details, Heading, Long, Number, Paragraph, Part, Table, note, table
from analysis.rows.wording import ABSENT, bracketed, number, percent, shown_value
from analysis.statistics.inference import MIN_SEEDS

TIMES = "\N{MULTIPLICATION SIGN}"


def contrast_sections(found: Sequence[Contrast]) -> list[Part]:
    """What weakens the comparison of a setting's values, and the numbers behind its figure."""
    warned = dict.fromkeys(sentence for contrast in found for sentence in caveats(contrast))
    parts = (Paragraph(TEXTS["contrast"]), contrast_table(found))
    return [*([note(" ".join(warned))] if warned else ()), Details("The differences in numbers", parts, wide=True)]


def contrast_parts(found: Sequence[Contrast], bounds: Mapping[str, float] | None = None) -> list[Part]:
    """The contrasts of one setting as `gnc contrast` prints them: a heading and table for each selection of rows.

    bounds: by measure, the difference below which the reader wants to call values alike; a factor for ratios.
    Raises:
        ValueError: a bound that no difference of its measure could stay below."""
    parts: list[Part] = []
    for where in dict.fromkeys(contrast.where for contrast in found):
        mine = [contrast for contrast in found if contrast.where == where]
        title = f"The effect of {mine[0].setting}" + (f" where {where}" if where else "")
        warned = dict.fromkeys(sentence for contrast in mine for sentence in caveats(contrast))
        parts += [Heading(title), contrast_table(mine, bounds), *map(Paragraph, warned)]
    return [*parts, Paragraph(TEXTS["contrast"])]


def contrast_table(found: Sequence[Contrast], bounds: Mapping[str, float] | None = None) -> Table:
    """The values of a setting beside each other, a row for each value and measure."""
    given = {c.measure: _bound(c, bounds[c.measure]) for c in found if bounds and c.measure in bounds}
    rows = [_contrast_row(one, level, given.get(one.measure)) for one in found for level in one.levels]
    return table("contrast", rows, setting=found[0].setting)


def _bound(contrast: Contrast, bound: float) -> float:
    """The bound in the unit of the difference."""
    least, kind = (1.0, "a factor: these values are compared as ratios") if contrast.is_log else (0.0, "a difference")
    if not least < bound < math.inf:
        raise ValueError(f"bound of {contrast.measure} must be above {least:g}, got {bound!r}. It is {kind}.")
    return math.log(bound) if contrast.is_log else bound


def _contrast_row(contrast: Contrast, level: Level, bound: float | None) -> list[Cell]:
    def show(x: float) -> str:
        return number(math.exp(x) if contrast.is_log else x)

    gap = level.difference
    compared = [ABSENT, ABSENT, ABSENT, ABSENT, "compared with"]
    if gap is not None:
        times = f"{TIMES} " * contrast.is_log
        sizes = [ABSENT if math.isnan(size) else times + show(size) for size in (gap.within, gap.detectable)]
        mean = times + bracketed(gap.mean, gap.low, gap.high, show)
        compared = [mean, number(gap.adjusted), *sizes, verdict(gap, bound)]
    counts = [Number(len(level.by_seed)), Number(len(level.by_cell))]
    own = bracketed(level.mean, level.low, level.high, show)
    reached = f"{level.terminal} of {level.trials}"
    return [contrast.measure, shown_value(level.value), *counts, reached, own, *compared]


def caveats(contrast: Contrast) -> list[str]:
    """What weakens a contrast."""
    found, setting = [], contrast.setting
    gaps = [level.difference for level in contrast.levels if level.difference]
    if few := sorted({gap.seeds for gap in gaps if gap.seeds < MIN_SEEDS}):
        seeds = " or ".join(map(str, few)) + (" seed" if few == [1] else " seeds")
        found.append(f"With {seeds} no verdict is given: at least {MIN_SEEDS} are needed.")
    if contrast.moving:
        changes = "changes" if len(contrast.moving) == 1 else "change"
        found.append(f"Confounded: {', '.join(contrast.moving)} {changes} together with {setting}.")
    if contrast.pooled:
        found.append(f"Averaged over {', '.join(contrast.pooled)}, which only some values of {setting} have.")
    if contrast.apart:
        apart, base = ", ".join(map(shown_value, contrast.apart[:5])), shown_value(contrast.base)
        found.append(f"These values share no seed and cell with {base} and are not compared: {apart}.")
    return found


def ladder_table(ladder: Sequence[LadderGaps]) -> list[Part]:
    """The ladder's gaps at each value of every setting that varies by itself, as shares of the best known margin."""
    if not ladder:
        return []
    rows: list[list[Cell]] = []
    for found in ladder:
        shown = [Number(bracketed(*found.gaps[gap], percent)) for gap in GAPS]
        rows.append([found.setting, shown_value(found.value), *shown, Number(percent(found.kept)), Number(found.cells)])
    headers = ("setting", "value", *(f"lost to {gap}" for gap in GAPS), "kept by the worst sample", "cells")
    parts = (Paragraph(TEXTS["ladder"]), Table("Gaps of the margin ladder", headers, rows))
    return [Details("The gaps, setting by setting", parts, wide=True)]


def explained_table(explained: Sequence[Explained]) -> list[Part]:
    """What explains the margin relative to the best known, the variability and the duality gap."""
    if not explained:
        return [note("Too few trials to say what explains the margin: the settings vary as much as the trials.")]
    return [Paragraph(TEXTS["explained"]), table("explained", [_explained_row(found) for found in explained])]


def _explained_row(found: Explained) -> list[Cell]:
    parts = ", ".join(f"{s.setting} {_share(s.share)}" for s in found.shares)
    name = f"log {found.measure}" + (f" / {found.relative_to}" if found.relative_to else "")
    apart = [ABSENT] * 3
    if (spread := found.spread) is not None:
        apart = [number(spread.settings), number(spread.seeds), _share(spread.seed_share)]
    return [name, Long(parts), *map(Number, (_share(found.together), *apart, found.trials))]


def _share(share: float) -> str:
    return percent(share) if share >= 5e-4 else "0 %"
