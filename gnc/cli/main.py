"""The command `gnc`: parse, call, print. Data on stdout, progress and refusals on stderr; exit 0, 1 or 2.

Composes the groups of commands, each of which owns its parsers. None of them imports torch or ray on top: `gnc check`,
`gnc status`, `gnc report` and `gnc --help` start without them.
"""

import argparse
import os
import sys
from importlib.metadata import version

from gnc.cli import doctor_commands, folder_commands, geometry_commands, measure_command, run_commands
from gnc.cli.parser import CommandParser
from study.design.errors import StudyError
from study.store.schemas import UnknownSchema

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

ADD_PARSERS = (  # in the order of gnc --help
    *(run_commands.add_check_parser, run_commands.add_run_parser, run_commands.add_trial_parser),
    *(folder_commands.add_status_parser, folder_commands.add_report_parser, folder_commands.add_best_parser),
    *(folder_commands.add_compare_parser, folder_commands.add_merge_parser),
    *(folder_commands.add_seal_parser, folder_commands.add_prune_parser),
    *(geometry_commands.add_margins_parser, geometry_commands.add_code_parser, measure_command.add_measure_parser),
    *(doctor_commands.add_doctor_parser, doctor_commands.add_prepare_parser),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one gnc command; 0 done, 1 trials failed or were left, 2 the user's input is wrong."""
    options = make_parser().parse_args(arguments)
    try:
        outcome = int(options.command(options))
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_parser in ADD_PARSERS:
        add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
