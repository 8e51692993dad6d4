"""The report's tables of trials: those that are complete, those that ended otherwise, and where a search stopped them."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects.search import Distinction, Rung
from analysis.report.page import Cell, Heading, Link, Long, Number, Paragraph, Part, Table, columns, note
from analysis.rows.frames import COLUMNS, SHOWN_SETTINGS, StudyFrame, varied_settings
from analysis.rows.wording import ABSENT, LETTERS, axis_label, number, shown, words
from study.design.search import Scheduler

MOST_TRIALS = 200
MOST_FAILED = 500
MEASURED = (
    "epoch", "train_accuracy", "test_accuracy", "gnc1_rank", "margin_min_lower", "margin_ratio_upper", "gnc3_uncentred",
)  # fmt: skip


def trials_table(frame: StudyFrame) -> tuple[list[Part], frozenset[str]]:
    """The complete trials, at most MOST_TRIALS of them, and the keys of those shown."""
    final = frame.final.sort_by([(name, "ascending") for name in ("feature_dim", "num_classes", "temperature", "seed")])
    if final.num_rows == 0:
        return [note("No trial is complete, so there are no final rows to show.")], frozenset()
    # a setting with one value besides null has no effect of its own: another setting decides whether it is null
    apart = [n for n in varied_settings(final) if len(final[n].drop_null().unique()) > 1]
    varied = [n for n in apart if n not in {*SHOWN_SETTINGS, "seed"}]
    settings = ["feature_dim", "num_classes", "temperature", "normalization", *varied, "seed"]
    rows = final.slice(0, MOST_TRIALS).to_pylist()
    names = ["trial", *settings[:3], *MEASURED, "terminal", *settings[3:]]
    body = [[_key(row[n]) if n == "trial" else _value(n, row[n]) for n in names] for row in rows]
    headers = [LETTERS.get(n, axis_label(n)) for n in names]
    text = f"Final rows of the complete trials ({final.num_rows})."
    if (count := final.num_rows) > MOST_TRIALS:
        text = f"Final rows of {MOST_TRIALS} of the {count} complete trials; the others are in results.parquet."
    keys = [row["trial"] for row in rows]
    table = Table("Final rows", headers, body, [f"trial-{key}" for key in keys])
    return [Paragraph(text), table], frozenset(keys)


def failed_table(frame: StudyFrame) -> list[Part]:
    """Every trial that is not complete, with its reason."""
    trials = frame.trials
    broken = trials.filter(pc.not_equal(trials["state"], "complete"))
    if broken.num_rows == 0:
        return [Paragraph("No trial failed, diverged or was stopped.")] if trials.num_rows else []
    rows = broken.sort_by([("state", "ascending"), ("trial", "ascending")]).slice(0, MOST_FAILED).to_pylist()
    settings = ("feature_dim", "num_classes", "temperature", "normalization", "seed", "attempts")
    body = [
        [_key(r["trial"]), r["state"], Long(_reason(r["reason"])), *(_value(n, r[n]) for n in settings)] for r in rows
    ]
    more = f" The first {MOST_FAILED} are shown." if broken.num_rows > MOST_FAILED else ""
    headers = ("trial", "state", "reason", *(LETTERS.get(name, words(name)) for name in settings))
    anchors = [f"trial-{row['trial']}" for row in rows]
    table = Table("Trials that are not complete", headers, body, anchors)
    return [Paragraph(f"{broken.num_rows} of {trials.num_rows} trials are not complete.{more}"), table]


def _key(trial: str) -> Cell:
    return Link(trial, f"trial-{trial}")


def _value(name: str, value: Any) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    kind = COLUMNS[name].type
    return Number(shown(value)) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else shown(value)


def _reason(reason: str | None) -> str:
    first = ((reason or "").strip().splitlines() or ["no reason was recorded"])[0]
    return first if len(first) <= 300 else first[:300] + " …"


def distinction_parts(found: Sequence[Distinction]) -> list[Part]:
    """What distinguishes the trials that were stopped early, setting by setting."""
    headers = columns("setting | stopped | complete | stopped is larger | p")
    rows: list[list[Cell]] = [
        [
            axis_label(one.setting),
            *(Number(shown(v)) for v in (one.stopped, one.complete)),
            *map(_share, (one.above, one.p)),
        ]
        for one in found
    ]
    return [Paragraph(STOPPED_TEXT), Table("Stopped and complete trials", headers, rows)]


STOPPED_TEXT = (
    "Medians of the searched settings among the trials that were stopped early and among those that ran to their end, each "
    "combination of settings once; of a choice, its most frequent value. How often the stopped trial of a pair has the "
    "larger value: one half where the setting does not distinguish them. p is of the rank test (Mann and Whitney), each "
    "setting by itself; a search looks where it hopes to win, so a small p does not name a cause."
)


def rung_parts(found: Sequence[Rung], rule: Scheduler) -> list[Part]:
    """The rungs of asha, with how many trials each has stopped and what its metric was there."""
    headers = columns(
        "epoch | trials that reached it | stopped before the next | median of the stopped | median of the others"
    )
    rows = [[*map(Number, (r.epoch, r.reached, r.stopped)), *map(_share, (r.stopped_at, r.went_on_at))] for r in found]
    text = f"At each rung one in {rule.reduction_factor:g} trials goes on, by {words(rule.metric)} ({rule.metric}), {rule.mode}."
    return [Heading("The rungs of the scheduler"), Paragraph(text), Table("Rungs of asha", headers, rows)]


def _share(value: float) -> Cell:
    return Number(ABSENT if math.isnan(value) else number(value))
