"""Stopping poor trials early: Ray Tune's rules, one instance for each group of trials that compete.
A rule's decision is written to the store. The trial looks there after each measurement, writes its rows and checkpoint
and ends. If Ray ended it, its last rows would be lost. Knows Ray and the store."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from study.design.config import TrialConfig, short_digest
from study.design.search import Scheduler, Search, columns_read, measured
from study.store.store import Store

FOREVER = 1_000_000  # epochs: no trial is stopped for having run long


@dataclass(eq=False)
class _Replayed:
    """What a rule needs to know of a trial."""

    trial_id: str
    last_epoch: int = -1


class CompetingTrials:
    """Decides after each measurement, by the epoch and one measured column, whether a trial goes on."""

    def __init__(self, search: Search, store: Store) -> None:
        self._search, self._store = search, store
        self._rule_of_group: dict[str, TrialScheduler] = {}
        self._known: dict[str, tuple[TrialScheduler, _Replayed]] = {}  # of each trial, by its key

    def replay(self, configs: Iterable[TrialConfig]) -> None:
        """Tell the rules what stored trials measured, in order of epochs, so that a continued study decides as before.
        A stop that was decided before is requested again. A request that another rule made is withdrawn."""
        wanted = {config.key: config for config in configs}
        columns = ["trial", "epoch", *columns_read([self._search.scheduler.metric])]
        tables = (self._store.read(columns), *(live.rows.select(columns) for live in self._store.read_live()))
        rows = sorted((r for t in tables for r in t.to_pylist()), key=lambda row: (row["epoch"], row["trial"]))
        known = [(wanted[row["trial"]], row) for row in rows if row["trial"] in wanted]
        stops = {config.key for config, row in known if self._note(config, row, past=True) == TrialScheduler.STOP}
        for key in stops:
            self._store.request_stop(key)
        for key in self._store.stop_requests() & set(wanted) - stops:
            self._store.withdraw_stop(key)

    def on_measurement(self, config: TrialConfig, row: dict[str, Any]) -> None:
        """Note a row of a running trial, and ask the trial to stop if its rule says so."""
        if self._note(config, row) == TrialScheduler.STOP:
            self._store.request_stop(config.key)

    def _note(self, config: TrialConfig, row: dict[str, Any], *, past: bool = False) -> str:
        epoch, value = row["epoch"], measured(row, self._search.scheduler.metric)
        if config.key not in self._known:
            rule = self._rule_of_group.setdefault(group_of(config, self._search), make_rule(self._search.scheduler))
            self._known[config.key] = rule, _Replayed(config.key)
            rule.on_trial_add(self, self._known[config.key][1])
        rule, trial = self._known[config.key]
        if value is None or epoch <= trial.last_epoch:  # a restarted trial measures some epochs again
            return TrialScheduler.CONTINUE
        trial.last_epoch = epoch
        if epoch < self._search.scheduler.grace_epochs:
            return TrialScheduler.CONTINUE
        result = {"epoch": epoch, "metric": value}
        # Given as a running trial's row, a past one could stop the trial again.
        if past and isinstance(rule, MedianStoppingRule):
            rule.on_trial_complete(self, trial, result)
            return TrialScheduler.CONTINUE
        return rule.on_trial_result(self, trial, result)

    def get_live_trials(self) -> list:
        """No trial waits for another: the rules ask this to pause one, which is never done here."""
        return []


def make_rule(scheduler: Scheduler) -> TrialScheduler:
    """Ray's scheduler for one group of trials; its results have the keys epoch and metric."""
    common: dict[str, Any] = {"time_attr": "epoch", "metric": "metric", "mode": scheduler.mode}
    common["grace_period"] = scheduler.grace_epochs
    if scheduler.name == "median":
        return MedianStoppingRule(min_samples_required=scheduler.min_trials, **common)
    asha = {"reduction_factor": scheduler.reduction_factor, "max_t": FOREVER, "stop_last_trials": False}
    return AsyncHyperBandScheduler(**asha, **common)


def group_of(config: TrialConfig, search: Search) -> str:
    """Names the trials that this one competes with: those that differ in what is searched or in the seed alone."""
    competing = {*search.names, *search.scheduler.over, "seed"}
    shared = {name: value for name, value in config.settings().items() if name not in competing}
    return short_digest(json.dumps(shared, sort_keys=True))
