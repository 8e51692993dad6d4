"""Opens the study, the results folder and the trials that a command is asked for, with the options that name them.

Knows study files and the store; does not know what the commands do with them.
"""

import argparse
import functools
from collections.abc import Iterable

from gnc.cli.output import say
from study.design.errors import StudyError
from study.design.study_file import Study, parse_study, read_study
from study.design.where import Selection, parse_selection
from study.scheduling.remaining import select
from study.scheduling.suggestions import complete_study
from study.store.store import Store, open_store


def add_study_and_results(parser: argparse.ArgumentParser) -> None:
    """The arguments of `open_study`."""
    parser.add_argument("study", help="the study file, in TOML")
    parser.add_argument("results", nargs="?", help="the results folder or its URI; default: results/NAME of the study")
    add_where(parser)


def add_results(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that need the results folder alone."""
    parser.add_argument("results", help="the results folder or its URI")


def add_where(parser: argparse.ArgumentParser) -> None:
    """The option of `selection_of`."""
    parser.add_argument(
        "--where",
        metavar="EXPRESSION",
        help="take only the trials for which this holds, such as '10 < num_classes <= 100'; a comparison with a "
        "setting that has no effect is false, and 'temperature is None' asks for that",
    )


def add_all(parser: argparse.ArgumentParser) -> None:
    """The option of commands that otherwise take the trials of the latest study alone."""
    parser.add_argument("--all", action="store_true", help="take every trial in the folder, not only the last study's")


def open_study(options: argparse.Namespace) -> tuple[Study, Store]:
    """The study file and the results folder that a command names, with the trials suggested there so far."""
    study = select(read_study(options.study), selection_of(options))
    store = open_store(options.results or f"results/{study.name}")
    unreadable: list[str] = []
    store.check_checkpoints(unreadable.append)
    study = complete_study(study, store, unreadable.append)
    warn_unreadable(unreadable)
    return study, store


def selection_of(options: argparse.Namespace) -> Selection | None:
    """The trials that --where selects; None for all."""
    return None if options.where is None else parse_selection(options.where)


def existing_store(results: str) -> Store:
    """The store at an existing folder; StudyError where there is none, or another kind of folder."""
    store = open_store(results)
    if not store.storage.exists():
        raise StudyError(f"RESULTS must be a results folder, got {results!r}, which does not exist.")
    store.check_results_folder()
    return store


def latest_study(store: Store, selection: Selection | None = None) -> Study | None:
    """The study run last, its selected trials; None, with a warning, where its file is no longer a valid study."""
    text = store.latest_study()
    study = None if text is None else _parse_stored(text)
    return None if study is None else complete_study(select(study, selection), store)


@functools.lru_cache(maxsize=1)  # gnc status --watch asks again and again, and warns once
def _parse_stored(text: str) -> Study | None:
    try:
        return parse_study(text)
    except StudyError as error:
        say(f"warning: the study file run last is no longer valid, so every trial in the folder is taken: {error}")
        return None


def states_of(store: Store) -> dict[str, str]:
    """The state of each trial in the folder, with a warning for each file that cannot be read."""
    unreadable: list[str] = []
    states = store.states(on_unreadable=unreadable.append)
    warn_unreadable(unreadable)
    return states


def warn_unreadable(names: Iterable[str]) -> None:
    """Warn of each file that could not be read, and say what happens to its trial."""
    for name in dict.fromkeys(names):
        follows = "its trial will be run again" if name.startswith("rows/") else "the other files are used"
        say(f"warning: {name} cannot be read and was skipped; {follows}")
