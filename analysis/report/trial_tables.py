"""The tables of the report: trials, failures, effects and fits. Numbers come in, escaped HTML goes out."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects.contrast import Contrast, contrast_interval, sentences, shown_value, verdict
from analysis.effects.effects import PairedDifference, paired_differences, shared_cells
from analysis.effects.margin_ladder import GAPS, ladder_gaps
from analysis.effects.variance_shares import explain
from analysis.figures.effects import MEASURES as EFFECT_MEASURES
from analysis.report import html as page
from analysis.report.html import ABSENT, Cell, Long, Number
from analysis.rows.frames import COLUMNS, SHOWN_SETTINGS, StudyFrame, independent_settings, varied_settings
from analysis.rows.wording import number
from analysis.statistics.inference import holm

TIMES = "\N{MULTIPLICATION SIGN}"
MOST_TRIALS = 200
MOST_FAILED = 500
MOST_LEVELS = 12  # of a setting in the table of gaps
MEASURED = (
    "epoch",
    "train_accuracy",
    "test_accuracy",
    "gnc1_rank",
    "margin_min_lower",
    "margin_ratio_upper",
    "gnc3_uncentred",
)
# Settings that another shown setting decides, or that name nothing a reader compares.
QUIET = frozenset({"decay_normalised", "seed"})


def trials_table(frame: StudyFrame) -> tuple[str, frozenset[str]]:
    """The complete trials, at most MOST_TRIALS of them, and the keys of those shown."""
    final = frame.final.sort_by([(name, "ascending") for name in ("feature_dim", "num_classes", "temperature", "seed")])
    if final.num_rows == 0:
        return page.note("No trial is complete, so there are no final rows to show."), frozenset()
    varied = [n for n in varied_settings(final) if n not in SHOWN_SETTINGS and n not in QUIET]
    settings = ["feature_dim", "num_classes", "temperature", "normalization", *varied, "seed"]
    rows = final.slice(0, MOST_TRIALS).to_pylist()
    headers = ["trial", *settings, *MEASURED, "terminal"]
    body = [
        [_key(row["trial"]), *(_value(n, row[n]) for n in (*settings, *MEASURED)), "yes" if row["terminal"] else "no"]
        for row in rows
    ]
    text = f"Final rows of the complete trials ({final.num_rows})."
    if final.num_rows > MOST_TRIALS:
        text = (
            f"Final rows of {MOST_TRIALS} of the {final.num_rows} complete trials; the others are in results.parquet."
        )
    anchors = [f"trial-{row['trial']}" for row in rows]
    return page.paragraph(text) + page.table("Final rows", headers, body, anchors), frozenset(
        row["trial"] for row in rows
    )


def failed_table(frame: StudyFrame) -> str:
    """Every trial that is not complete, with its reason."""
    trials = frame.trials
    broken = trials.filter(pc.not_equal(trials["state"], "complete"))
    if broken.num_rows == 0:
        return page.paragraph("No trial failed, diverged or was stopped.") if trials.num_rows else ""
    rows = broken.sort_by([("state", "ascending"), ("trial", "ascending")]).slice(0, MOST_FAILED).to_pylist()
    headers = [
        "trial",
        "state",
        "reason",
        "feature_dim",
        "num_classes",
        "temperature",
        "normalization",
        "seed",
        "attempts",
    ]
    body = [
        [_key(r["trial"]), r["state"], Long(_reason(r["reason"])), *(_value(n, r[n]) for n in headers[3:])]
        for r in rows
    ]
    more = f" The first {MOST_FAILED} are shown." if broken.num_rows > MOST_FAILED else ""
    text = page.paragraph(f"{broken.num_rows} of {trials.num_rows} trials are not complete.{more}")
    anchors = [f"trial-{row['trial']}" for row in rows]
    return text + page.table("Trials that are not complete", headers, body, anchors)


def effects_table(final: pa.Table, setting: str) -> str:
    """Paired differences of each measure against one level; empty where no cells are shared."""
    found: list[PairedDifference] = []
    for measure in EFFECT_MEASURES:
        cells = shared_cells(final, setting, measure)
        levels = [level for cell in cells for level in cell.levels]
        if levels:
            base = max(sorted(set(levels), key=str), key=levels.count)
            found += paired_differences(cells, measure, base)
    if not found:
        return ""
    rows = [_effect_row(d, setting, float(p)) for d, p in zip(found, holm([d.p for d in found]), strict=True)]
    headers = ("measure", "change", "mean effect", "95 % interval", "Holm p", "cells")
    text = (
        "Paired over cells that share everything else; an interval needs five. Intervals are of one difference each; "
        "Holm's p is corrected for all differences of this table."
    )
    return page.details(
        "The differences in numbers",
        page.paragraph(text) + page.table(f"Effect of {setting}", headers, rows),
        wide=True,
    )


def contrast_table(found: Sequence[Contrast]) -> str:
    """The values of a setting beside each other, over seeds; empty without any."""
    rows: list[list[Cell]] = []
    for contrast in found:
        for level in contrast.levels:
            gap = level.difference
            ends = (level.mean, level.low, level.high)
            told = ["", ABSENT, "compared with" if level.value == contrast.base else "shares no unit"]
            if gap is not None:
                p = ABSENT if math.isnan(gap.adjusted) else number(gap.adjusted)
                told = [contrast_interval(contrast, (gap.mean, gap.low, gap.high)), p, verdict(gap)]
            counts = [Number(str(len(level.by_seed))), Number(str(level.cells))]
            rows.append([contrast.measure, shown_value(level.value), *counts, contrast_interval(contrast, ends), *told])
    if not rows:
        return ""
    setting = found[0].setting
    headers = ("measure", setting, "seeds", "cells", "mean [95 %]", "difference or ratio [95 %]", "Holm p", "verdict")
    said = dict.fromkeys(sentence for contrast in found for sentence in sentences(contrast))
    body = page.paragraph(" ".join(said)) + page.table(f"Values of {setting}", headers, rows)
    return page.details("The differences in numbers", body, wide=True)


def ladder_table(final: pa.Table) -> str:
    """The ladder's gaps at each value of every setting that varies by itself, as shares of the best known margin."""
    names = ["feature_dim", "num_classes", *independent_settings(final)] if final.num_rows else []
    rows: list[list[Cell]] = []
    for name in names:
        found = ladder_gaps(final, name)
        if 1 < len(found) <= MOST_LEVELS:
            for gaps in found:
                shown = [Number(_gap(gaps.gaps[gap])) for gap in GAPS]
                rows.append(
                    [name, shown_value(gaps.value), *shown, Number(_share_of(gaps.kept)), Number(str(gaps.cells))]
                )
    if not rows:
        return ""
    headers = ("setting", "value", *(f"lost to {gap}" for gap in GAPS), "kept by the worst sample", "cells")
    body = page.paragraph(LADDER_TEXT) + page.table("Gaps of the margin ladder", headers, rows)
    return page.details("The gaps, setting by setting", body, wide=True)


LADDER_TEXT = (
    "Shares of the best known margin: lost from the best code to the classifier rows (geometry), from there to the "
    "class means (duality), from there to the worst training sample (variability). Means with 95 % intervals over cells "
    "that have every value of the setting (over all its cells where none has); intervals need five cells."
)


def _gap(found: tuple[float, float | None, float | None]) -> str:
    mean, low, high = found
    return (
        _share_of(mean) if low is None or high is None else f"{_share_of(mean)} [{_share_of(low)}, {_share_of(high)}]"
    )


def _share_of(share: float) -> str:
    return f"{number(100 * share)} %"


def explained_table(final: pa.Table) -> str:
    """What explains the margin relative to the best known, the variability and the duality gap."""
    measures = (("margin_min_lower", "reference_margin_lower"), ("gnc1_rank", None), ("gnc3_uncentred", None))
    found = [(m, r, explain(final, m, relative_to=r)) for m, r in measures] if final.num_rows else []
    rows: list[list[Cell]] = []
    for measure, relative_to, explained in found:
        if explained is not None:
            parts = ", ".join(f"{s.setting} {_share(s.share)}" for s in explained.shares)
            name = f"log {measure}" + (f" / {relative_to}" if relative_to else "")
            apart = [ABSENT] * 3
            if (spread := explained.spread) is not None:
                apart = [number(spread.settings), number(spread.seeds), _share(spread.seed_share)]
            counts = [Number(text) for text in (_share(explained.together), *apart, str(explained.trials))]
            rows.append([name, Long(parts), *counts])
    if not rows:
        return page.note("Too few trials to say what explains the margin: the settings vary as much as the trials.")
    headers = (
        "measure",
        "lost when the setting is left out",
        "all settings",
        "s.d. of settings",
        "s.d. of seeds",
        "seeds",
        "trials",
    )
    return page.paragraph(EXPLAINED) + page.table("What explains the measures", headers, rows)


EXPLAINED = (
    "Shares of the variance over all complete trials, in an additive model with every setting as a category: what is "
    "lost when one setting is left out, and what all of them explain. Settings overlap and interact, so the shares need "
    "not add up. Beside them the standard deviations (of logarithms, so nearly relative) between cells and between the "
    "seeds of one cell, the seeds' chance taken out of the cells', and the seeds' share of both variances."
)


def _share(share: float) -> str:
    return f"{number(100 * share)} %" if share >= 5e-4 else "0 %"


def _effect_row(found: PairedDifference, setting: str, adjusted: float) -> list[Cell]:
    def shown(value: float) -> str:
        return f"{TIMES} {number(math.exp(value))}" if found.is_log else f"{'+' if value > 0 else ''}{number(value)}"

    ends = (
        f"{shown(found.low)} to {shown(found.high)}"
        if found.low is not None and found.high is not None
        else f"{found.cells} cells are too few"
    )
    return [
        found.measure,
        f"{setting} {_text(found.base)} to {_text(found.level)}",
        Number(shown(found.mean)),
        ends,
        Number(ABSENT if math.isnan(adjusted) else number(adjusted)),
        Number(str(found.cells)),
    ]


def _key(trial: str) -> Cell:
    return page.Link(trial, f"trial-{trial}")


def _value(name: str, value: Any) -> Cell:
    kind = COLUMNS[name].type
    return Number(_text(value)) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    return number(value) if isinstance(value, float) else str(value)


def _reason(reason: str | None) -> str:
    if not reason:
        return "no reason was recorded"
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason was recorded"
    return first if len(first) <= 300 else first[:300] + " …"
