"""Where the rows come from: versions, machines, data, and warnings when a folder mixes them.

Knows the trials table; does not know HTML.
"""

import json
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from study.design.config import settings_with

MACHINE = ("cpu_model", "gpu_model", "host")


@dataclass(frozen=True)
class Origin:
    """One fact about some of the trials: `torch` is `2.15.0` in 29 of them."""

    name: str
    value: str
    trials: int


@dataclass(frozen=True)
class DataOrigin:
    """A digest of data tensors, the settings they were made from, and the trials that saw them."""

    settings: str
    digest: str
    trials: int


def origins(trials: pa.Table) -> list[Origin]:
    """Package versions and machines, each value with its number of trials; trials that recorded none are left out."""
    counted: Counter[tuple[str, str]] = Counter()
    for text in trials["versions"].to_pylist():
        for name, value in parse_versions(text).items():
            counted[name, value] += 1
    for name in MACHINE:
        counted.update((name, value) for value in trials[name].to_pylist() if value)
    return [Origin(name, value, n) for (name, value), n in sorted(counted.items())]


def parse_versions(text: str | None) -> dict[str, str]:
    """The versions column's JSON; an unreadable one is named as such, never dropped silently."""
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except ValueError:
        return {"versions": f"unreadable: {text[:60]}"}
    return {str(k): str(v) for k, v in parsed.items()} if isinstance(parsed, dict) else {"versions": str(parsed)[:60]}


def data_origins(trials: pa.Table) -> list[DataOrigin]:
    """The data sets behind the trials, one entry for each digest and its settings."""
    names = [name for name in settings_with("data", "size") if name in trials.column_names]
    counted: Counter[tuple[str, str]] = Counter()
    for row in trials.select([*names, "dataset_digest"]).to_pylist():
        if digest := row.pop("dataset_digest"):
            counted[", ".join(f"{k} {v}" for k, v in row.items() if v is not None), digest] += 1
    return [DataOrigin(settings, digest, n) for (settings, digest), n in sorted(counted.items())]


def warnings(trials: pa.Table) -> list[str]:
    """What makes rows of this study not comparable bit for bit."""
    found = []
    values: dict[str, set[str]] = {}
    for origin in origins(trials):
        values.setdefault(origin.name, set()).add(origin.value)
    for name, seen in values.items():
        if len(seen) > 1 and name != "host":
            found.append(
                f"Trials were run under {len(seen)} values of {name}: {', '.join(sorted(seen)[:5])}. Equal settings "
                "may give other numbers."
            )
    digests: dict[str, set[str]] = {}
    for data in data_origins(trials):
        digests.setdefault(data.settings, set()).add(data.digest)
    for settings, seen in digests.items():
        if len(seen) > 1:
            found.append(
                f"The same data settings gave {len(seen)} different data sets ({settings}): "
                "do not compare those trials."
            )
    return found
