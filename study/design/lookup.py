"""What can be said of each setting and of each table of a study file, for `gnc settings` and docs/settings.md.
Everything is derived from the fields and the catalog; nothing is said here that is not said there."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gnc_models.catalog.members import FAMILIES, OWN_FAMILIES, REQUIRED
from study.design.config import ALIASES, KNOWN, LATER_SETTINGS, MEMBERS, TrialConfig
from study.design.search import Tune
from study.design.setting import schema_of
from study.design.study_file import Log, Report, Resources

TABLES: Mapping[str, type[BaseModel]] = {"tune": Tune, "resources": Resources, "log": Log, "report": Report}
TYPES = {
    "integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list",
    "object": "table",
}  # fmt: skip
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
Facts = dict[str, str]  # what is known of a setting by its label; empty where there is nothing to say


def setting_facts(name: str) -> Facts:
    """What is known of one setting of a trial."""
    field = TrialConfig.model_fields[name]
    known = [(family, member, info.settings[name]) for family, member, info in MEMBERS if name in info.settings]
    family = next((f for f in OWN_FAMILIES if name in (f"{f}_source", f"{f}_options")), "")
    readers = _gathered((family, member) for family, member, _ in known).items()
    facts = _facts(name, field) | {
        "unit": KNOWN[name]["unit"],
        "read by": "; ".join(map(": ".join, readers)) or (f"{family} of your own" if family else "every trial"),
        "since": "its members" if known or family else "the start",
        "also called": ", ".join(alias for alias, meant in ALIASES.items() if meant == name),
    }
    if name in OWN_FAMILIES:
        facts["allowed"] += " or your own, file.py:name"
    if known:  # one default where all members share it, else each with the members that have it
        of = _gathered((_shown(default), member) for _, member, default in known)
        several = "; ".join(f"{default} ({members})" for default, members in of.items())
        facts["default"] = next(iter(of)) if len(of) == 1 else several
    if name in LATER_SETTINGS:
        facts["since"] = f"later: trials from before count as {_shown(LATER_SETTINGS[name])}"
    return facts


def table_facts(table: str) -> list[Facts]:
    """What is known of each entry of one of the tables that change no number."""
    return [_facts(name, field) for name, field in TABLES[table].model_fields.items()]


def member_lines(family: str) -> list[tuple[str, str]]:
    """Each member of a family with the settings that it reads and their defaults."""
    told = ((name, member.settings.items()) for name, member in FAMILIES[family].items())
    return [(name, ", ".join(f"{n} = {_shown(default)}" for n, default in settings)) for name, settings in told]


def _facts(name: str, field: FieldInfo) -> Facts:
    schema = schema_of(field)
    inner = schema.get("items", schema)
    bounds = [f"{words} {inner[bound]:g}" for bound, words in BOUNDS.items() if bound in inner]
    default = "-" if field.default in (None, [], "") else _shown(field.default)
    return {
        "name": name, "meaning": field.description or "", "type": TYPES[schema["type"]], "unit": "",
        "allowed": ", ".join(map(str, inner.get("enum", ()))) or " and ".join(bounds),
        "default": "must be given" if field.is_required() else default,
    }  # fmt: skip


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The second of each pair by the first, separated by commas."""
    found: dict[str, str] = {}
    for key, value in pairs:
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "must be given" if value is REQUIRED else str(value)
