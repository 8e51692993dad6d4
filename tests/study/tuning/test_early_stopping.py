"""Early stopping: Ray's own decisions within each group of competing trials, the same after a replay from the store."""

import random

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from study.design.config import TrialConfig
from study.design.search import Scheduler, Search
from study.store.store import Store
from study.tuning.early_stopping import CompetingTrials, group_of
from tests.study.conftest import made_up_config, made_up_measurement, made_up_record

EPOCHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # as measured by default
ASHA = Search("random", scheduler=Scheduler("asha", "train_loss", "min", grace_epochs=2, over=("learning_rate",)))
MEDIAN = Search("random", scheduler=Scheduler("median", "train_loss", "min", grace_epochs=2, over=("learning_rate",)))


def trials(count: int, num_classes: int = 24) -> list[TrialConfig]:
    return [made_up_config(num_classes=num_classes, learning_rate=0.01 * (i + 1)) for i in range(count)]


def loss(config: TrialConfig, epoch: int) -> float:
    return random.Random(f"{config.key}").random() + 3 / epoch


def follow(competition: CompetingTrials, store: Store, order: list[tuple[TrialConfig, int]]) -> dict[str, int]:
    """Report measurements in this order as far as trials go on; the epoch at which each was stopped."""
    stopped: dict[str, int] = {}
    for config, epoch in order:
        if config.key not in stopped:
            competition.on_measurement(config, {"epoch": epoch, "train_loss": loss(config, epoch)})
            if store.is_stop_requested(config.key):
                stopped[config.key] = epoch
    return stopped


def one_after_another(configs: list[TrialConfig]) -> list[tuple[TrialConfig, int]]:
    return [(config, epoch) for config in configs for epoch in EPOCHS]


def test_decisions_are_those_of_rays_own_scheduler(store):
    configs = trials(20)
    ours = follow(CompetingTrials(ASHA, store), store, one_after_another(configs))
    rays, theirs = {}, AsyncHyperBandScheduler("epoch", "loss", "min", 10**6, 2, 4.0, stop_last_trials=False)

    class Stand:
        def __init__(self, trial_id):
            self.trial_id = trial_id

    stands = {config.key: Stand(config.key) for config in configs}
    for stand in stands.values():
        theirs.on_trial_add(None, stand)
    for config, epoch in one_after_another(configs):
        if config.key not in rays:
            result = {"epoch": epoch, "loss": loss(config, epoch)}
            if theirs.on_trial_result(None, stands[config.key], result) == TrialScheduler.STOP:
                rays[config.key] = epoch
    assert ours == rays
    assert 5 < len(ours) < 20


@pytest.mark.parametrize("search", [ASHA, MEDIAN])
def test_good_trials_go_on_and_most_poor_ones_are_stopped(store, search):
    configs = trials(24)
    stopped = follow(CompetingTrials(search, store), store, one_after_another(configs))
    best = min(configs, key=lambda config: loss(config, 32))
    worst = sorted(configs, key=lambda config: loss(config, 32))[-6:]
    assert best.key not in stopped
    assert sum(config.key in stopped for config in worst) >= 4
    assert min(stopped.values()) >= 2  # the grace


def test_trials_compete_only_with_those_that_differ_in_what_is_searched_or_the_seed():
    one = made_up_config(learning_rate=0.1)
    assert group_of(one, ASHA) == group_of(made_up_config(learning_rate=0.2, seed=3), ASHA)
    assert group_of(one, ASHA) != group_of(made_up_config(learning_rate=0.1, num_classes=30), ASHA)
    assert group_of(one, ASHA) != group_of(made_up_config(learning_rate=0.1, weight_decay=0.1), ASHA)


def test_groups_do_not_stop_each_other(store):
    """Losses of one group are all above those of the other, and it is stopped no more for that."""
    low, high = trials(12), trials(12, num_classes=30)
    competition = CompetingTrials(ASHA, store)
    alone = follow(CompetingTrials(ASHA, store), store, one_after_another(high))
    for key in alone:
        store.withdraw_stop(key)
    follow(competition, store, one_after_another(low))
    assert follow(competition, store, one_after_another(high)) == alone


@pytest.mark.parametrize("search", [ASHA, MEDIAN])
def test_after_a_replay_from_the_store_decisions_go_on_as_if_never_broken_off(store, search):
    configs = trials(20)
    whole = follow(CompetingTrials(search, store), store, one_after_another(configs))
    for key in whole:
        store.withdraw_stop(key)

    first, second = configs[:12], configs[12:]
    for config in first:  # what the first run left behind
        end = whole.get(config.key, EPOCHS[-1])
        rows = [made_up_measurement(e, train_loss=loss(config, e)) for e in EPOCHS if e <= end]
        state = "stopped" if config.key in whole else "complete"
        store.write_fragment(config, rows, made_up_record(state=state))
    continued = CompetingTrials(search, store)
    continued.replay(configs)
    found = follow(continued, store, one_after_another(second))
    assert found == {key: epoch for key, epoch in whole.items() if key in {c.key for c in second}}


def test_a_decision_that_was_never_carried_out_is_made_again_and_one_of_another_rule_withdrawn(store):
    configs = trials(8)
    for config in configs[:7]:
        store.write_fragment(config, [made_up_measurement(2, train_loss=0.1)], made_up_record())
    from study.store.schemas import fragment_table

    store.write_live(configs[7].key, 1, fragment_table(configs[7], [made_up_measurement(2, train_loss=5.0)]))
    store.request_stop(configs[0].key)
    CompetingTrials(ASHA, store).replay(configs)
    assert store.is_stop_requested(configs[7].key)
    assert not store.is_stop_requested(configs[0].key)


def test_epochs_measured_again_and_null_metrics_change_nothing(store):
    configs = trials(10)
    plain = follow(CompetingTrials(MEDIAN, store), store, one_after_another(configs))
    for key in plain:
        store.withdraw_stop(key)
    competition = CompetingTrials(MEDIAN, store)
    found: dict[str, int] = {}
    for config, epoch in one_after_another(configs):
        if config.key in found:
            continue
        for again in (1, epoch, epoch):
            competition.on_measurement(config, {"epoch": again, "train_loss": loss(config, again)})
        competition.on_measurement(config, {"epoch": epoch + 0.5, "train_loss": None})
        if store.is_stop_requested(config.key):
            found[config.key] = epoch
    assert found == plain
