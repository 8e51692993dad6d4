"""Where the rows come from: versions, machines and data, with warnings where a folder mixes them."""

import json
from collections import Counter

import pyarrow as pa

from analysis.rows.frames import gathered
from study.design.config import settings_with

MACHINE = ("cpu_model", "gpu_model", "host")
Counted = Counter[tuple[str, str]]  # trials by name and value


def origins(trials: pa.Table) -> Counted:
    """Package versions and machines, each (name, value) with its number of trials; a trial may have recorded none."""
    counted: Counted = Counter()
    for text in trials["versions"].to_pylist():
        counted.update(parse_versions(text).items())
    for name in MACHINE:
        counted.update((name, value) for value in trials[name].to_pylist() if value)
    return counted


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
    for row in trials.select([*names, "dataset_digest"]).to_pylist():
        if digest := row.pop("dataset_digest"):
            counted[", ".join(f"{k} {v}" for k, v in row.items() if v is not None), digest] += 1
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
