"""The gnc commands for whoever begins: init writes a study file, settings looks one up, completion helps the shell."""

import argparse
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from gnc.cli.output import put, say, show
from gnc_models.catalog.members import FAMILIES
from study.design.columns import COLUMN_ALIASES, column_facts
from study.design.config import ALIASES, TrialConfig
from study.design.errors import StudyError, nearest
from study.design.lookup import TABLES, Facts, member_lines, setting_facts, table_facts
from study.design.study_file import check_name


def write_new(path: Path, text: str, named_by: str) -> None:
    """Write a file that is not there yet; StudyError where it is."""
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise StudyError(f"{named_by} must name a new file, got {str(path)!r}, which exists. Name another.") from None


def command_init(options: argparse.Namespace) -> int:
    """Write a study file with a comment on every line, to begin with."""
    check_name(options.name)
    study, network = (files("gnc.cli") / "questions" / f"{options.question}.{end}" for end in ("toml", "py.txt"))
    path = Path(f"{options.name}.toml")
    write_new(path, study.read_text(encoding="utf-8").replace("NAME", options.name), "NAME")
    if network.is_file():
        beside = Path(f"{options.name}_network.py")
        write_new(beside, network.read_text(encoding="utf-8"), "NAME")
        say(f"Wrote {beside}, the network.")
    say(f"Wrote {path}. What it would run: gnc check {path} --trials. To run it: gnc run {path}")
    return 0


def command_settings(options: argparse.Namespace) -> int:
    """Look up what a study file can set: type, unit, allowed values, defaults, and who reads it."""
    name = ALIASES.get((options.name or "").lower(), options.name)
    if name in TABLES:
        found = table_facts(name)
    elif name is None or name in TrialConfig.model_fields:
        found = [setting_facts(one) for one in TrialConfig.model_fields if name in (None, one)]
    else:
        return _tell_of_column(options, COLUMN_ALIASES.get(name.lower(), name))
    members = member_lines(name) if name in FAMILIES else []
    lines = _brief_lines(found) if name is None else _full_lines(found, members)
    show(options, {"settings": found, "members": dict(members)}, lines)
    return 0


def _tell_of_column(options: argparse.Namespace, name: str) -> int:
    """Tell of a measured column, which is no setting; StudyError where it is none either."""
    facts = column_facts(name)
    if not facts:
        known = [*TrialConfig.model_fields, *TABLES]
        raise StudyError(f"NAME must be a setting, a family or a table, got {name!r}. {nearest(name, known)}")
    told = f"{name} is no setting: it is a column of results that trials measure. All of them: docs/rows.md; formulas: "
    lines = [f"{told}docs/metrics.md.", *_full_lines([facts], [])]
    show(options, {"settings": [], "members": {}, "column": facts}, lines)
    return 0


def _brief_lines(found: list[Facts]) -> Iterator[str]:
    for one in found:
        default = one["default"] if len(one["default"]) < 20 else "several"
        yield f"{one['name']:<24}  {default:<20}  {one['meaning']}"
    yield f"\ngnc settings NAME tells all of one. Tables of a study file: {', '.join(TABLES)}."


def _full_lines(found: list[Facts], members: list[tuple[str, str]]) -> Iterator[str]:
    for one in found:
        yield f"{one['name']}\n  {one['meaning']}"
        yield from (f"  {label:<12}  {text}" for label, text in list(one.items())[2:] if text)
    if members:
        yield "  what each reads, with its defaults:"
        yield from (f"    {name:<22}  {settings or '-'}" for name, settings in members)


def command_completion(options: argparse.Namespace) -> int:
    """Print a script that lets the shell complete commands, options and file names."""
    import shtab

    from gnc.cli.main import make_parser

    parser = make_parser()
    for command in parser._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        for action in command._actions:
            is_file = not action.option_strings or re.search(r"FILE|\.toml", str(action.metavar))
            if is_file and action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE
    put(shtab.complete(parser, shell=options.shell))
    return 0
