"""Which trials of a study are selected, which are done, and which are still to run.
Knows the study and its store; does not know how trials are run."""

import itertools
from dataclasses import replace

from gnc_models.progress import amount
from study.design.config import TrialConfig
from study.design.errors import StudyError, make_config
from study.design.study_file import Study
from study.design.where import Selection
from study.store.schemas import FINAL
from study.store.store import Store


def select(study: Study, selection: Selection | None) -> Study:
    """The study with the selected trials, or with the selected cells of an adaptive search; StudyError if there are none."""
    if selection is None:
        return study
    chosen = {"seed", *study.search.names} & selection.names
    if study.is_adaptive and chosen:
        cure = f"Leave {', '.join(sorted(chosen))} out: the search chooses by the mean over all seeds."
        raise StudyError(f"--where must select whole cells of an adaptive search, got {selection.text!r}. {cure}")
    extremes = tuple(config for config in study.extremes if selection(config.settings()))
    cells = {config.cell for config in extremes}
    corner = next(study.search.corners()) if study.is_adaptive else {}
    configs = tuple(config for config in study.configs if selection(config.settings()))
    kept = tuple(cell for cell in study.cells if make_config(next(cell.trials(corner))).cell in cells)
    selected = replace(study, configs=configs, cells=kept, extremes=extremes)
    if not selected.num_planned:
        rule = f"--where must select at least one of the {amount(study.num_planned, 'trial')} of {study.name}"
        raise StudyError(f"{rule}, got {selection.text!r}. See what varies with gnc check --trials.")
    return replace(selected, left_out=study.left_out + study.num_planned - selected.num_planned)


def done_keys(study: Study, store: Store, states: dict[str, str]) -> set[str]:
    """Trials that are done for this study: complete, diverged, or stopped by the very rule that it would apply."""
    keys = [config.key for config in study.configs]  # a key is a hash, computed once for each of thousands of trials
    done = {key for key in keys if states.get(key) in FINAL}
    if any(states.get(key) == "stopped" for key in keys):
        rule, stopped = study.search.scheduler, store.stopped_by()
        done |= {key for key in keys if rule.stopped(stopped.get(key))}
    return done


def spent_keys(study: Study, store: Store) -> set[str]:
    """The trials that have failed as often as the study allows."""
    return {key for key, count in store.failed_starts().items() if count >= study.resources.attempts}


def trials_left(study: Study, done: set[str]) -> list[TrialConfig]:
    """The trials still to run. The extremes of a search's space stand for trials that it has yet to suggest."""
    left = [config for config in study.configs if config.key not in done]
    unsuggested = study.num_planned - len(study.configs)
    return left + list(itertools.islice(itertools.cycle(study.extremes), unsuggested))
