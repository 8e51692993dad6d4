"""The report's tables of trials: those that are complete, those that ended otherwise, where a search stopped them, and where
their rows come from, with warnings where a folder mixes versions, machines or data."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects.search import Distinction, Rung
from analysis.report.page import TEXTS, Cell, Heading, Link, Long, Number, Paragraph, Part, Table, note, table
from analysis.rows.frames import COLUMNS, SHOWN_SETTINGS, StudyFrame, codes, gathered, settings_of_rows, varied_settings
from analysis.rows.wording import LETTERS, axis_label, number, shown, words
from gnc_models.progress import amount
from study.design.config import settings_with
from study.design.search import Scheduler

MOST_TRIALS, MOST_FAILED = 200, 500
MACHINE = ("cpu_model", "gpu_model", "host")
Counted = Counter[tuple[str, str]]  # trials by name and value
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
    sizes = ("feature_dim", "num_classes", "temperature")
    names = ["trial", *sizes, *MEASURED, "terminal", "normalization", *varied, "seed"]
    rows = final.slice(0, MOST_TRIALS).to_pylist()
    headers = [LETTERS.get(n, axis_label(n)) for n in names]
    text = f"Final rows of the complete trials ({final.num_rows})."
    if (count := final.num_rows) > MOST_TRIALS:
        text = f"Final rows of {MOST_TRIALS} of the {count} complete trials; the others are in results.parquet."
    anchors = [f"trial-{row['trial']}" for row in rows]
    body = [[_value(n, row[n]) for n in names] for row in rows]
    return [Paragraph(text), Table("Final rows", headers, body, anchors)], frozenset(row["trial"] for row in rows)


def failed_table(frame: StudyFrame) -> list[Part]:
    """Every trial that is not complete, with its reason."""
    trials = frame.trials
    broken = trials.filter(pc.not_equal(trials["state"], "complete"))
    if broken.num_rows == 0:
        return [Paragraph("No trial failed, diverged or was stopped.")] if trials.num_rows else []
    rows = broken.sort_by([("state", "ascending"), ("trial", "ascending")]).slice(0, MOST_FAILED).to_pylist()
    settings = ("feature_dim", "num_classes", "temperature", "normalization", "seed", "attempts")
    names = ("trial", "state", "reason", *settings)
    body = [[_value(n, row[n]) for n in names] for row in rows]
    more = f" The first {MOST_FAILED} are shown." if broken.num_rows > MOST_FAILED else ""
    headers = (*names[:3], *(LETTERS.get(name, words(name)) for name in settings))
    told = Paragraph(f"{broken.num_rows} of {amount(trials.num_rows, 'trial')} not complete.{more}")
    return [told, Table("Trials that are not complete", headers, body, [f"trial-{row['trial']}" for row in rows])]


def _value(name: str, value: Any) -> Cell:
    if name == "trial":
        return Link(value, f"trial-{value}")
    if name == "reason":
        first = ((value or "").strip().splitlines() or ["no reason was recorded"])[0]
        return Long(first if len(first) <= 300 else first[:300] + " …")
    if isinstance(value, bool):
        return "yes" if value else "no"
    kind = COLUMNS[name].type
    return Number(shown(value)) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else shown(value)


def distinction_parts(found: Sequence[Distinction]) -> list[Part]:
    """What distinguishes the trials that were stopped early, setting by setting."""
    numbers = [map(Number, (shown(d.stopped), shown(d.complete), number(d.above), number(d.p))) for d in found]
    rows: list[list[Cell]] = [[axis_label(one.setting), *cells] for one, cells in zip(found, numbers, strict=True)]
    return [Paragraph(TEXTS["stopped"]), table("stopped", rows)]


def rung_parts(found: Sequence[Rung], rule: Scheduler) -> list[Part]:
    """The rungs of asha, with how many trials each has stopped and what its metric was there."""
    cells = [(r.epoch, r.reached, r.stopped, number(r.stopped_at), number(r.went_on_at)) for r in found]
    rows = [list(map(Number, row)) for row in cells]
    text = f"At each rung one in {rule.reduction_factor:g} trials goes on, by {words(rule.metric)} ({rule.metric}), {rule.mode}."
    return [Heading("The rungs of the scheduler"), Paragraph(text), table("rungs", rows)]


def origins(trials: pa.Table) -> Counted:
    """Package versions and machines, each (name, value) with its number of trials; a trial may have recorded none."""
    counted: Counted = Counter()
    for text, count in _counts(trials, ["versions"]):
        counted.update(dict.fromkeys(parse_versions(text).items(), count))
    for name in MACHINE:
        counted.update({(name, value): count for value, count in _counts(trials, [name]) if value})
    return counted


def _counts(trials: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows that these columns take, each with its number of trials behind the values."""
    code, first = codes(trials, names)
    rows = settings_of_rows(trials.take(first), names)
    return [(*row, count) for row, count in zip(rows, np.bincount(code).tolist(), strict=True)]


def parse_versions(text: str | None) -> dict[str, str]:
    """The versions column's JSON; an unreadable one is named as such, never dropped silently."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return {"versions": f"unreadable: {str(text)[:60]}"}
    return {str(k): str(v) for k, v in parsed.items()} if isinstance(parsed, dict) else {"versions": str(parsed)[:60]}


def data_origins(trials: pa.Table) -> Counted:
    """The data sets behind the trials: each (data settings, digest of the tensors) with its number of trials."""
    names = [name for name in settings_with("data", "size") if name in trials.column_names]
    counted: Counted = Counter()
    for *row, digest, count in _counts(trials, [*names, "dataset_digest"]):
        if digest:
            told = (f"{k} {v}" for k, v in zip(names, row, strict=True) if v is not None)
            counted[", ".join(told), digest] += count
    return counted


def warnings(trials: pa.Table) -> list[str]:
    """What makes rows of this study not comparable bit for bit."""
    by_name, by_data = (gathered(sorted(found(trials))) for found in (origins, data_origins))
    several = {name: seen for name, seen in by_name.items() if len(seen) > 1 and name != "host"}
    mixed = [TEXTS["mixed"].format(len(seen), name, ", ".join(seen[:5])) for name, seen in several.items()]
    return mixed + [TEXTS["mixed_data"].format(len(seen), data) for data, seen in by_data.items() if len(seen) > 1]
