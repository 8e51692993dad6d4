"""Where the rows come from: versions, machines and data, with warnings where a folder mixes them."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows.frames import codes, gathered, settings_of_rows
from study.design.config import settings_with

MACHINE = ("cpu_model", "gpu_model", "host")
Counted = Counter[tuple[str, str]]  # trials by name and value


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
    several, data = (
        {n: v for n, v in gathered(sorted(found(trials))).items() if len(v) > 1} for found in (origins, data_origins)
    )
    return [
        f"Trials were run under {len(seen)} values of {name}: {', '.join(seen[:5])}. Equal settings may give other numbers."
        for name, seen in several.items()
        if name != "host"
    ] + [
        f"The same data settings gave {len(seen)} different data sets ({settings}): do not compare those trials."
        for settings, seen in data.items()
    ]
