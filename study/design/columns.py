"""Every measured or recorded column, as columns.csv beside this file gives it: type, unit, meaning, what little or much of it is.
Dataclasses alone; the schemas of the tables are made from them in study.store.schemas. Formulas are in docs/metrics.md."""

import csv
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

# In columns.csv a question mark behind a type says that a value can be missing; settings have their types in TrialConfig.
# A role says what a column is for elsewhere, and nothing else does:
#   rows: about classifier rows.  run: different between two correct runs of a trial.  machine: of it and its software.
#   data: what the samples of a data set are.  size: how many of them; data sets are nested in these.
#   speed: the time of a trial per sample depends on it.  axis: the report has figures of its own for it.
#   listed: a search never draws it, [grid] lists it.  by:SETTING: measured only where this setting asks for it.
_TYPES = {"": Any, "int": int, "float": float, "bool": bool, "str": str,
          "ints": list[int], "floats": list[float], "strs": list[str], "floats by name": dict[str, float]}  # fmt: skip
_ROWS = tuple(csv.DictReader(Path(__file__).with_name("columns.csv").read_text(encoding="utf-8").splitlines()))


def fields_of(record: str) -> list[tuple[str, Any, Any]]:
    """Name, type and dataclass field of each column of a record, with all that is known of it as the field's metadata."""
    rows = [(row, _TYPES[row["type"].removesuffix("?")]) for row in _ROWS if row["record"] == record]
    return [(row["name"], kind | None if row["type"].endswith("?") else kind, dataclasses.field(metadata=row))
            for row, kind in rows]  # fmt: skip


def _record(name: str) -> Any:
    return dataclasses.make_dataclass(name, fields_of(name), frozen=True, kw_only=True)


_Measurement: Any = _record("Measurement")
_TrialRecord: Any = _record("TrialRecord")


class Measurement(_Measurement):
    """One measured epoch of one trial. None means that the quantity does not exist here, never zero."""


class TrialRecord(_TrialRecord):
    """How one trial went: a row of trials.parquet beside its settings, kept in the fragment's footer."""


@cache
def columns_with(*roles: str) -> tuple[str, ...]:
    """The columns that have one of the roles, in their order."""
    return tuple(row["name"] for row in _ROWS if not set(roles).isdisjoint(row["role"].split()))


def column_facts(name: str) -> dict[str, str]:
    """What is known of a measured column: meaning, type, unit, better, and the setting that it is measured with, if not always;
    empty if it is none."""
    row = next((row for row in _ROWS if (row["record"], row["name"]) == ("Measurement", name)), None)
    if row is None:
        return {}
    with_setting = row["role"].removeprefix("by:") if row["role"].startswith("by:") else ""
    facts = {label: row[label] for label in ("name", "meaning", "type", "unit", "better")}
    return facts | {"type": row["type"].removesuffix("?"), "only with": with_setting}


def column_sentence(name: str) -> str:
    """That a name is a measured column, of what, and with which setting; empty if it is none."""
    if not (facts := column_facts(name)):
        return ""
    is_list = facts["type"] == "floats"
    entries = f" It is a list: gnc contrast compares entries, such as --measure '{name}[-1]'." * is_list
    asked = f" It is measured only with {facts['only with']}." if facts["only with"] else ""
    return f"{name} is a measured column: {facts['meaning']}{asked}{entries}"


# What others call a column, in small letters; refusals name the column.
COLUMN_ALIASES = {
    other: row["name"] for row in _ROWS if row["record"] == "Measurement" for other in row["others say"].split()
}
