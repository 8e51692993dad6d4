"""Where the rows come from: versions, machines and data, with warnings where a folder mixes them.

Knows the trials table; does not know pages.
"""

import json
from collections import Counter

import pyarrow as pa

from study.design.config import settings_with

MACHINE = ("cpu_model", "gpu_model", "host")


def origins(trials: pa.Table) -> Counter[tuple[str, str]]:
    """Package versions and machines, each (name, value) with its number of trials; a trial may have recorded none."""
    counted: Counter[tuple[str, str]] = Counter()
    for text in trials["versions"].to_pylist():
        counted.update(parse_versions(text).items())
    for name in MACHINE:
        counted.update((name, value) for value in trials[name].to_pylist() if value)
    return counted


def parse_versions(text: str | None) -> dict[str, str]:
    """The versions column's JSON; an unreadable one is named as such, never dropped silently."""
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except ValueError:
        return {"versions": f"unreadable: {text[:60]}"}
    return {str(k): str(v) for k, v in parsed.items()} if isinstance(parsed, dict) else {"versions": str(parsed)[:60]}


def data_origins(trials: pa.Table) -> Counter[tuple[str, str]]:
    """The data sets behind the trials: each (data settings, digest of the tensors) with its number of trials."""
    names = [name for name in settings_with("data", "size") if name in trials.column_names]
    counted: Counter[tuple[str, str]] = Counter()
    for row in trials.select([*names, "dataset_digest"]).to_pylist():
        if digest := row.pop("dataset_digest"):
            counted[", ".join(f"{k} {v}" for k, v in row.items() if v is not None), digest] += 1
    return counted


def warnings(trials: pa.Table) -> list[str]:
    """What makes rows of this study not comparable bit for bit."""
    found = [
        f"Trials were run under {len(seen)} values of {name}: {', '.join(seen[:5])}. Equal settings may give other "
        "numbers."
        for name, seen in _several(origins(trials)).items()
        if name != "host"
    ]
    return found + [
        f"The same data settings gave {len(seen)} different data sets ({settings}): do not compare those trials."
        for settings, seen in _several(data_origins(trials)).items()
    ]


def _several(counted: Counter[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that have more than one value, with their values."""
    values: dict[str, list[str]] = {}
    for name, value in sorted(counted):
        values.setdefault(name, []).append(value)
    return {name: seen for name, seen in values.items() if len(seen) > 1}
