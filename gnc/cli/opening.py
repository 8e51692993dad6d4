"""Opens the study, the results folder and the trials that a command is asked for, with the options that name them. Knows
study files and the store; does not know what the commands do with them."""

import argparse
import dataclasses
import functools
from collections.abc import Iterable

from gnc.cli.output import say
from gnc_models.catalog.parts import PartError
from study.design.errors import SHOWN, StudyError, require
from study.design.study_file import Study, parse_study, read_study
from study.design.where import Selection, parse_selection
from study.scheduling.remaining import select
from study.scheduling.suggestions import complete_study
from study.store.store import Store, open_store


def check_code(study: Study, store: Store, allowed: bool) -> None:
    """StudyError unless all code that the study would run is the user's own, or the user allows that of the folder."""
    if not study.code_elsewhere:
        return
    rule = f"--allow-code must be given to run code that {store.uri} has or names"
    names = ", ".join(study.code_elsewhere[:SHOWN])
    require(allowed, f"{rule}, got {names}. Look at its studies/ and code/ first.")
    try:
        for config in {str(config.parts()): config for config in study.configs}.values():
            store.hold_code(config)
    except PartError as error:
        raise StudyError(str(error)) from None


def open_study(options: argparse.Namespace) -> tuple[Study, Store]:
    """The study file and the results folder that a command names, with the trials suggested there so far."""
    study = select(read_study(options.study), selection_of(options))
    store = named_store(options.results or f"results/{study.name}")
    unreadable: list[str] = []
    store.check_checkpoints(unreadable.append)
    study = complete_study(study, store, unreadable.append)
    warn_unreadable(unreadable)
    for warning in study.warnings:
        say(f"warning: {warning}")
    return study, store


def named_store(results: str) -> Store:
    """The store where trials are to go, with a warning where other readers would misread its path."""
    store = open_store(results)
    if problem := store.storage.read_as_columns():
        say(f"warning: {problem}. Name the folder without =.")
    return store


def selection_of(options: argparse.Namespace) -> Selection | None:
    """The trials that --where selects; None for all."""
    return None if options.where is None else parse_selection(options.where)


def stored_study(
    options: argparse.Namespace, store: Store, *, selection: Selection | None = None, whatever: bool = False
) -> Study | None:
    """The selected trials of the study that --study names, else of the one run last; None where --all asks for every trial.
    Also None, with a warning, where its file is no longer a valid study. whatever: --all makes no difference."""
    if options.all and not whatever:
        return None
    text = store.latest_study(options.study)
    study = None if text is None else _parse_stored(text)
    if study is None or selection is None or not study.is_adaptive:
        return None if study is None else complete_study(select(study, selection), store)
    whole = complete_study(study, store)  # what was suggested; what may come is not known by its settings
    chosen = tuple(config for config in whole.configs if selection(config.settings()))
    return dataclasses.replace(whole, configs=chosen, cells=(), left_out=whole.num_planned - len(chosen))


@functools.lru_cache(maxsize=1)  # gnc status --watch asks again and again, and warns once
def _parse_stored(text: str) -> Study | None:
    try:
        return parse_study(text)
    except StudyError as error:
        say(f"warning: the study file is no longer valid, so every trial in the folder is taken: {error}")
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
