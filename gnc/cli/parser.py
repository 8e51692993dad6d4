"""Parses and explains every gnc command: a refusal is one line, and each help page has an example."""

import argparse
import difflib
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NoReturn

from study.design.errors import StudyError

COMMANDS: dict[str, dict[str, Any]] = tomllib.loads((files("gnc.cli") / "options.toml").read_text(encoding="utf-8"))
SHARED, TYPES = COMMANDS.pop("shared"), {"int": int, "float": float}


def require(holds: bool, rule: str) -> None:
    """StudyError with the rule, the value and the cure, unless the rule holds."""
    if not holds:
        raise StudyError(rule)


class CommandParser(argparse.ArgumentParser):
    """A parser that refuses in one line and names the nearest option for a misspelt one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but optional places may be filled after options, and what is unknown is refused with the nearest."""
        for argument in sys.argv[1:] if args is None else args:
            if any("\ud800" <= character <= "\udfff" for character in argument):  # bytes that are no text
                self.error(f"arguments must be UTF-8, got {argument!r}")
        options, unknown = super().parse_known_args(args, namespace)
        places = [action.dest for action in self._actions if not action.option_strings and action.nargs == "?"]
        for place in places:  # argparse gives up on them where an option comes first
            if unknown and not unknown[0].startswith("-") and getattr(options, place) is None:
                setattr(options, place, unknown.pop(0))
        if unknown:
            known = re.findall(r"--[a-z-]+", self.format_usage())
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            self.error(f"{unknown[0]!r} is not expected{f'; the nearest option is {near[0]}' if near else ''}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Exit 2 with one line."""
        self.exit(2, f"{self.prog}: {message}. {self.prog} --help explains the command.\n")


Commands = argparse._SubParsersAction  # what `add_subparsers` returns; argparse has no public name for it


def add_command(commands: Commands, name: str, command: Callable[[argparse.Namespace], int]) -> None:
    """Add a command with its options, its docstring as help, and an example to paste."""
    purpose = (command.__doc__ or "").split("\n")[0]
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose[0].lower() + purpose[1:].rstrip("."),
        description=purpose,
        epilog=f"example:\n  {COMMANDS[name]['example']}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command, **({"has_view": False} | COMMANDS[name].get("defaults", {})))
    exclusive: dict[str, Any] = defaultdict(parser.add_mutually_exclusive_group)
    for argument, facts in COMMANDS[name]["options"].items():
        facts = dict(SHARED[facts] if isinstance(facts, str) else facts)
        place = exclusive[facts.pop("one_of")] if "one_of" in facts else parser
        place.add_argument(argument, **facts | ({"type": TYPES[facts["type"]]} if "type" in facts else {}))
