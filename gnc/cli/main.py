"""The command `gnc`: parse, call, print. Data on stdout, progress and refusals on stderr; exit 0, 1 or 2. A refusal is one line,
and each help page has an example. Only the module of the command that is asked for is imported, none of which imports torch
or Ray at the top."""

import argparse
import contextlib
import difflib
import importlib
import os
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NoReturn

from gnc.cli.output import Watch
from study.design.errors import StudyError

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

COMMANDS: dict[str, dict[str, Any]] = tomllib.loads((files("gnc.cli") / "options.toml").read_text(encoding="utf-8"))
SHARED, TYPES = COMMANDS.pop("shared"), {"int": int, "float": float}
WELCOME = (files("gnc.cli") / "welcome.txt").read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run one gnc command; returns 0 if it is done, 1 if trials failed or are left, 2 if the user's input is wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in words if not word.startswith("-")), None)
    if not words:
        print(WELCOME)
        return EXIT_DONE
    options = make_parser(asked if asked in COMMANDS else None).parse_args(words)
    try:
        with contextlib.nullcontext() if options.has_view else Watch(f"gnc {asked}"):
            outcome = int(options.command(options))
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()
        return outcome
    except BrokenPipeError:  # the program that reads our output has ended; the command itself is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit finds no broken pipe
        return EXIT_DONE
    except (StudyError, OSError) as error:
        if options.debug:
            raise
        for line in (str(error), *getattr(error, "__notes__", ())):
            print(line, file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_FAILED


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of every command, or of one alone."""
    parser = CommandParser(prog="gnc", description="Scaling studies of Generalized Neural Collapse.")
    parser.add_argument("--version", action="version", version=f"gnc-study {version('gnc-study')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS if only is None else (only,):
        module = importlib.import_module(f"gnc.cli.{COMMANDS[name]['module']}")
        add_command(commands, name, getattr(module, f"command_{name}"))
    return parser


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


def add_command(commands: argparse._SubParsersAction, name: str, command: Callable[[argparse.Namespace], int]) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
