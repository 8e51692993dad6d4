"""The trials of an adaptive search: which the store holds, how each suggestion did, and which trial comes next.
Everything is read from the store, so that a process that continues a search knows all earlier trials. New values come
from study.scheduling.optuna_sampler. Does not know Ray."""

import dataclasses
import json
import math
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from study.design.config import TrialConfig, short_digest
from study.design.errors import StudyError, make_config
from study.design.search import Cell, Search, columns_read, measured
from study.design.setting import canonical, with_flat_options
from study.design.study_file import Study
from study.execution.same_data import with_stored_spellings
from study.scheduling.remaining import done_keys
from study.scheduling.sharing import LOOK_SECONDS, TAKEN, Sharing
from study.store.schemas import stored_config
from study.store.sealing.table_rows import only
from study.store.storage import Tell, ignore
from study.store.store import Store

if TYPE_CHECKING:
    from study.scheduling.optuna_sampler import Known

TRIES = 50  # suggestions that are refused or known already before a cell counts as used up


@dataclass
class Suggestion:
    """Values to try in a cell of the grid, once per seed."""

    values: dict[str, Any]
    trials: dict[str, TrialConfig]  # by key
    states: dict[str, str] = field(default_factory=dict)  # of the trials that ended

    @property
    def is_done(self) -> bool:
        """Whether no more of its trials will run in this run."""
        return set(self.states) == set(self.trials)


def make_suggestion(cell: Cell, values: dict[str, Any]) -> Suggestion:
    """The trials that try these values; StudyError where the settings do not go together."""
    configs = [make_config(settings) for settings in cell.trials(values)]
    return Suggestion(values, {config.key: config for config in configs})


def complete_study(study: Study, store: Store, on_unreadable: Tell = ignore) -> Study:
    """The study with the trials that its search suggested so far, and finished ones under their stored keys."""
    found = stored_suggestions(study, store, on_unreadable) if study.is_adaptive else {}
    suggested = (c for suggestions in found.values() for s in suggestions.values() for c in s.trials.values())
    configs = tuple(suggested) if study.is_adaptive else study.configs
    return dataclasses.replace(study, configs=with_stored_spellings(configs, store))


def stored_suggestions(study: Study, store: Store, on_unreadable: Tell = ignore) -> dict[Cell, dict[str, Suggestion]]:
    """The suggestions of each cell of the grid, by `TrialConfig.cell`, with stored trials that could be suggestions.
    Trials of other studies count too, wherever their settings lie in this search's space."""
    candidates = list(store.suggestions(on_unreadable).values())
    rows = store.read_trials().select(["trial", *TrialConfig.model_fields]).to_pylist()
    stored = [stored_config(row).settings() for row in sorted(rows, key=lambda row: str(row["trial"]))]
    candidates += [{name: canonical(name, value) for name, value in settings.items()} for settings in stored]
    return {cell: dict(_matching(study.search, cell, candidates)) for cell in study.cells}


def _matching(search: Search, cell: Cell, candidates: list[dict[str, Any]]) -> Iterator[tuple[str, Suggestion]]:
    """Candidates that differ from the cell at most in the searched settings and the seed."""
    fixed = [(name, value) for name, value in cell.settings if value is not None]
    for candidate in candidates:
        flat = with_flat_options(candidate)
        values = {name: flat.get(name) for name in search.names}
        if not search.holds(values) or any(flat.get(name) != value for name, value in fixed):
            continue
        try:
            suggestion = make_suggestion(cell, values)
        except StudyError:
            continue
        named = next(iter(suggestion.trials.values()))
        # The cell may leave a setting at its default while the candidate has another value.
        if named.cell == stored_config(dict.fromkeys(TrialConfig.model_fields) | candidate).cell:
            yield named.cell, suggestion


class Suggestions:
    """The trials still to run of an adaptive search, one after another.
    Runs that share a search each ask for the next suggestion of a cell only while they hold its place, and after they
    have read what the others suggested and how it ended."""

    def __init__(self, study: Study, store: Store, *, spent: set[str]) -> None:
        """spent: trials that failed as often as they may; they count as failed."""
        self._study, self._store, self._spent = study, store, spent
        self.sharing: Sharing | None = None  # ask for a suggestion only while no other run does
        self.waits = False  # for a place that another run holds
        self._turn_at = -math.inf  # when to ask for a place again
        self._known: dict[Cell, dict[str, Suggestion]] = {}
        self._queue: deque[TrialConfig] = deque()
        self._used_up: set[Cell] = set()
        self._read: dict[str, list[dict[str, Any]]] = {}  # rows of finished trials
        self._unmeasured: set[str] = set()
        self._read_suggestions()

    def _read_suggestions(self) -> None:
        """Take in what the store holds; trials that are not known yet and still to run come into the queue."""
        known = {key for suggestion in self._all() for key in suggestion.trials}
        for cell, found in stored_suggestions(self._study, self._store).items():
            mine = self._known.setdefault(cell, {})
            mine |= {name: suggestion for name, suggestion in found.items() if name not in mine}
        self._note_states()
        for suggestion in self._all():
            new = (c for key, c in suggestion.trials.items() if key not in known)
            self._queue.extend(c for c in new if c.key not in suggestion.states)

    def _all(self) -> Iterator[Suggestion]:
        return (suggestion for found in self._known.values() for suggestion in found.values())

    def _note_states(self) -> None:
        states, spent = self._store.states(), self._spent
        configs = tuple(config for suggestion in self._all() for config in suggestion.trials.values())
        done = done_keys(dataclasses.replace(self._study, configs=configs), self._store, states)
        for suggestion in self._all():
            ended = dict.fromkeys(suggestion.trials.keys() & spent, "failed")
            suggestion.states |= ended | {key: states[key] for key in suggestion.trials.keys() & done}

    def next(self) -> TrialConfig | None:
        """The next trial to run; None once every cell has its number of suggestions, or while another run suggests."""
        self.waits = False
        while not self._queue:
            most = self._study.search.num_samples
            open_cells = [c for c in self._study.cells if c not in self._used_up and len(self._known[c]) < most]
            if not open_cells:
                return None
            cell = min(open_cells, key=lambda cell: len(self._known[cell]))
            if self.sharing is None:
                self._suggest(cell)
            elif not self._suggest_in_turn(cell, self.sharing):
                self.waits = not self._queue
                break
        return self._queue.popleft() if self._queue else None

    def _suggest_in_turn(self, cell: Cell, sharing: Sharing) -> bool:
        """Suggest with what all runs know by now, unless another run is about to; False if one is."""
        if sharing.clock() < self._turn_at:
            return False
        place = f"{_name(cell)}-{len(self._known[cell])}"
        if sharing.take(place) != TAKEN:
            self._turn_at = sharing.clock() + LOOK_SECONDS
            self._read_suggestions()
            return False
        try:
            before = len(self._known[cell])
            if sharing.has_company or self._store.suggestion_names() - set().union(*self._known.values()):
                self._read_suggestions()
            if len(self._known[cell]) == before and not self._queue:
                self._suggest(cell)
        finally:
            self._store.remove_claims(place)
        return True

    def ended(self, key: str, state: str) -> None:
        """Note how a trial ended; interrupted ones are left to the next run."""
        for suggestion in self._all():
            if key in suggestion.trials and state != "interrupted":
                suggestion.states[key] = state

    def _suggest(self, cell: Cell) -> None:
        from study.scheduling.optuna_sampler import next_values

        known = self._known[cell]
        past = [self._past(s) for s in known.values()]
        for attempt in range(TRIES):
            values = next_values(self._study.search, _name(cell), len(known) + attempt, past)
            try:
                suggestion = make_suggestion(cell, values)
            except StudyError:
                continue
            first = next(iter(suggestion.trials.values()))
            if first.cell not in known:
                self._store.write_suggestion(first.cell, {n: v for n, v in first.settings().items() if n != "seed"})
                known[first.cell] = suggestion
                self._queue.extend(suggestion.trials.values())
                return
        self._used_up.add(cell)
        where = ", ".join(f"{name}={value}" for name, value in cell.settings[-4:])
        print(f"No untried values left for {where} after {len(known)} suggestions", file=sys.stderr)

    def _past(self, suggestion: Suggestion) -> "Known":
        from study.scheduling.optuna_sampler import BAD, COMPLETE, RUNNING, STOPPED, Known

        if not suggestion.is_done:
            return Known(suggestion.values, RUNNING)
        states = set(suggestion.states.values())
        if states - {"complete", "stopped"}:
            return Known(suggestion.values, BAD)
        rows = [self._rows(key) for key in suggestion.trials]
        ends = [trial[-1] for trial in rows if trial]
        for metric in self._study.search.metrics:
            if len(ends) < len(rows) or any(end[metric] is None for end in ends):
                if metric not in self._unmeasured:
                    self._unmeasured.add(metric)
                    told = f"{metric} is null in trial {next(iter(suggestion.trials))}"
                    print(f"warning: {told}; the search avoids settings like these", file=sys.stderr)
                return Known(suggestion.values, BAD)
        goals = tuple(sum(end[m] for end in ends) / len(ends) for m in self._study.search.metrics)
        state = STOPPED if "stopped" in states else COMPLETE
        return Known(suggestion.values, state, goals, _mean_curve(rows, self._study.search.metrics[0]))

    def _rows(self, key: str) -> list[dict[str, Any]]:
        if key not in self._read:
            metrics = self._study.search.metrics
            names = ["epoch", *columns_read(metrics)]
            fragment = self._store.read_fragment(key)
            rows = fragment.rows if fragment else only(self._store.read(["trial", *names]), [key])
            stored = rows.select(names).sort_by("epoch").to_pylist()
            self._read[key] = [{"epoch": row["epoch"], **{m: measured(row, m) for m in metrics}} for row in stored]
        return self._read[key]


def _mean_curve(rows: list[list[dict[str, Any]]], metric: str) -> dict[int, float]:
    by_trial = [{row["epoch"]: row[metric] for row in trial if row[metric] is not None} for trial in rows]
    shared = set(by_trial[0]).intersection(*by_trial[1:])
    return {epoch: sum(trial[epoch] for trial in by_trial) / len(by_trial) for epoch in sorted(shared)}


def _name(cell: Cell) -> str:
    return short_digest(json.dumps(cell.settings, sort_keys=True))
