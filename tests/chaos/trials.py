"""Runs what a study lacks without Ray, trial after trial in one process: python -m tests.chaos.trials STUDY RESULTS

A process to be killed, stopped, or to find its disk full, several times faster to start than `gnc run`.
"""

import sys

from gnc.cli.main import main
from study.design.study_file import read_study
from study.execution.signals import REQUESTS


def run(study: str, results: str) -> int:
    """0 once every trial is complete, as `gnc trial` tells."""
    worst = 0
    for config in read_study(study).configs:
        worst = max(worst, main(["trial", study, config.key, "--results", results]))
        if REQUESTS.reason:
            return 1
    return worst


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
