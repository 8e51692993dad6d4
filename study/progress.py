"""Which trials of a study are done, and which are still to run.

Knows the study and its store; does not know how trials are run.
"""

import itertools

from study.config import TrialConfig
from study.sealing import FINAL
from study.spec import Study
from study.store import Store


def done_keys(study: Study, store: Store, states: dict[str, str]) -> set[str]:
    """Trials that are done for this study: complete, diverged, or stopped by the very rule that it would apply."""
    done = {config.key for config in study.configs if states.get(config.key) in FINAL}
    if any(states.get(config.key) == "stopped" for config in study.configs):
        rule, stopped = study.search.scheduler, store.stopped_by()
        done |= {c.key for c in study.configs if rule.name != "none" and stopped.get(c.key) == rule.digest}
    return done


def spent_keys(study: Study, store: Store) -> set[str]:
    """Trials that failed as often as the study lets them."""
    return {key for key, count in store.failed_starts().items() if count >= study.resources.attempts}


def trials_left(study: Study, done: set[str]) -> list[TrialConfig]:
    """Trials still to run; those that a search will suggest are stood for by the extremes of its space."""
    left = [config for config in study.configs if config.key not in done]
    unsuggested = study.num_planned - len(study.configs)
    return left + list(itertools.islice(itertools.cycle(study.extremes), unsuggested))
