"""The command `gnc`: parse, call, print. Data on stdout, progress and refusals on stderr; exit 0, 1 or 2. Only the module of
the command that is asked for is imported, and none imports torch or Ray at the top."""

import argparse
import contextlib
import importlib
import os
import sys
from importlib.metadata import version
from importlib.resources import files

from gnc.cli.output import Watch
from gnc.cli.parser import COMMANDS, CommandParser, add_command
from study.design.errors import StudyError

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

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


if __name__ == "__main__":
    sys.exit(main())
