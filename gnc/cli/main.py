"""The command `gnc`: parse, call, print. Data on stdout, progress and refusals on stderr; exit 0, 1 or 2.

Composes the groups of commands, each of which owns its parsers. None of them imports torch or ray on top: `gnc check`,
`gnc status`, `gnc report` and `gnc --help` start without them.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import version

from gnc.cli import doctor_commands, folder_commands, geometry_commands, measure_command, run_commands
from gnc.cli.parser import CommandParser, Commands
from study.design.errors import StudyError
from study.store.schemas import UnknownSchema

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

# In the order of `gnc --help`: what adds a command's parser, and what runs it.
COMMANDS: dict[str, tuple[Callable[[Commands], None], Callable[[argparse.Namespace], int]]] = {
    "check": (run_commands.add_check_parser, run_commands.command_check),
    "run": (run_commands.add_run_parser, run_commands.command_run),
    "trial": (run_commands.add_trial_parser, run_commands.command_trial),
    "status": (folder_commands.add_status_parser, folder_commands.command_status),
    "report": (folder_commands.add_report_parser, folder_commands.command_report),
    "best": (folder_commands.add_best_parser, folder_commands.command_best),
    "compare": (folder_commands.add_compare_parser, folder_commands.command_compare),
    "merge": (folder_commands.add_merge_parser, folder_commands.command_merge),
    "seal": (folder_commands.add_seal_parser, folder_commands.command_seal),
    "prune": (folder_commands.add_prune_parser, folder_commands.command_prune),
    "margins": (geometry_commands.add_margins_parser, geometry_commands.command_margins),
    "code": (geometry_commands.add_code_parser, geometry_commands.command_code),
    "measure": (measure_command.add_measure_parser, measure_command.command_measure),
    "doctor": (doctor_commands.add_doctor_parser, doctor_commands.command_doctor),
    "prepare": (doctor_commands.add_prepare_parser, doctor_commands.command_prepare),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one gnc command; 0 done, 1 trials failed or were left, 2 the user's input is wrong."""
    options = make_parser().parse_args(arguments)
    try:
        outcome = COMMANDS[options.command][1](options)
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()
        return outcome
    except BrokenPipeError:  # the reader of our output left; what was asked for was done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit finds no broken pipe
        return EXIT_DONE
    except (StudyError, UnknownSchema, OSError) as error:
        if options.debug:
            raise
        for line in (str(error), *getattr(error, "__notes__", ())):
            print(line, file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_FAILED


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = CommandParser(prog="gnc", description="Scaling studies of Generalized Neural Collapse.")
    parser.add_argument("--version", action="version", version=f"gnc-study {version('gnc-study')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_parser, _ in COMMANDS.values():
        add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
