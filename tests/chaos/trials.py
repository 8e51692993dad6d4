"""Runs what a study lacks without Ray, trial after trial in one process: python -m tests.chaos.trials STUDY RESULTS

A process to be killed, stopped, or to find its disk full, several times faster to start than `gnc run`. It shares the
trials with others of its kind, as `gnc trial --next` does.
"""

import argparse
import functools
import sys
import time

from gnc.cli.main import main
from study.execution.signals import REQUESTS
from study.scheduling.sharing import Sharing
from study.store.schemas import FINAL
from study.store.store import open_store

FAILURES = 6  # calls without a finished trial, after which the folder or the study is taken to be broken


def run(study: str, results: str) -> int:
    """0 once no trial is left that another process does not have, as `gnc trial --next` tells."""
    failures = 0
    while failures < FAILURES:
        before = _finished(results)
        code = main(["trial", study, "--next", "--results", results])
        if REQUESTS.reason:
            return 1
        if _finished(results) > before:
            failures = 0
        elif code == 0:
            return 0
        else:
            failures += 1
    return code


def _finished(results: str) -> int:
    """Trials whose rows can be read: one whose file was torn is finished only once it has run again."""
    return sum(state in FINAL for state in open_store(results).states().values())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("results")
    parser.add_argument("--silent-seconds", type=float, help="after which another process counts as silent")
    parser.add_argument("--clock-seconds", type=float, default=0.0, help="by which this process's clock is wrong")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    if options.silent_seconds is not None:
        Sharing.__init__ = functools.partialmethod(Sharing.__init__, silent_seconds=options.silent_seconds)
    if options.clock_seconds:
        right = time.time
        time.time = lambda: right() + options.clock_seconds
    sys.exit(run(options.study, options.results))
