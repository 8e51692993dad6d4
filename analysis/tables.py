"""The tables of the report: trials, failures, effects and fits. Numbers come in, escaped HTML goes out."""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis import page
from analysis.effects import PairedDifference, paired_differences, shared_cells
from analysis.explain import explain
from analysis.figures.effects import MEASURES as EFFECT_MEASURES
from analysis.figures.look import number
from analysis.frames import SHOWN_SETTINGS, StudyFrame, column_named, varied_settings
from analysis.page import ABSENT, Cell, Long, Number

TIMES = "\N{MULTIPLICATION SIGN}"
MOST_TRIALS = 200
MOST_FAILED = 500
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
    rows: list[list[Cell]] = []
    for measure in EFFECT_MEASURES:
        cells = shared_cells(final, setting, measure)
        levels = [level for cell in cells for level in cell.levels]
        if levels:
            base = max(sorted(set(levels), key=str), key=levels.count)
            rows += [_effect_row(d, setting) for d in paired_differences(cells, measure, base)]
    if not rows:
        return ""
    headers = ("measure", "change", "mean effect", "95 % interval", "cells")
    text = (
        "Paired over cells that share everything else; an interval needs five, and none is corrected for their number."
    )
    return page.details(
        "The differences in numbers",
        page.paragraph(text) + page.table(f"Effect of {setting}", headers, rows),
        wide=True,
    )


def explained_table(final: pa.Table) -> str:
    """What explains the margin relative to the best known, the variability and the duality gap."""
    measures = (("margin_min_lower", "reference_margin_lower"), ("gnc1_rank", None), ("gnc3_uncentred", None))
    found = [(m, r, explain(final, m, relative_to=r)) for m, r in measures] if final.num_rows else []
    rows: list[list[Cell]] = []
    for measure, relative_to, explained in found:
        if explained is not None:
            parts = ", ".join(f"{s.setting} {_share(s.share)}" for s in explained.shares)
            name = f"log {measure}" + (f" / {relative_to}" if relative_to else "")
            seeds = ABSENT if explained.seeds is None else _share(explained.seeds)
            counts = [Number(_share(explained.together)), Number(seeds), Number(str(explained.trials))]
            rows.append([name, Long(parts), *counts])
    if not rows:
        return page.note("Too few trials to say what explains the margin: the settings vary as much as the trials.")
    headers = ("measure", "lost when the setting is left out", "all settings", "between seeds", "trials")
    return page.paragraph(EXPLAINED) + page.table("What explains the measures", headers, rows)


EXPLAINED = (
    "Shares of the variance over all complete trials, in an additive model with every setting as a category: what is "
    "lost when one setting is left out, what all of them explain, and what the seeds of one cell differ by. Settings "
    "overlap and interact, so the shares need not add up."
)


def _share(share: float) -> str:
    return f"{number(100 * share)} %" if share >= 5e-4 else "0 %"


def _effect_row(found: PairedDifference, setting: str) -> list[Cell]:
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
        Number(str(found.cells)),
    ]


def _key(trial: str) -> Cell:
    return page.Link(trial, f"trial-{trial}")


def _value(name: str, value: Any) -> Cell:
    kind = column_named(name).type
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
