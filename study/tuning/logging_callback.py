"""Passes what Ray Tune reports of trials on to the loggers that a study names, each in a thread of its own: a slow or broken
one neither delays a trial nor ends the run. A log holds every row once: those missed are read from the store at the end."""

import json
import queue
import sys
import threading
from typing import Any

from ray import tune

from study.design.study_file import Study
from study.store.schemas import MEASUREMENTS, stored_config
from study.store.store import Store, open_store
from study.tuning.loggers import TOOLS, Logger, logged_trial, numbers_of
from study.tuning.tune_adapters import DriverOnly

NAMES = tuple(column.name for column in MEASUREMENTS)
CLOSE_SECONDS = 60.0  # that a run waits at its end for a logger to finish writing


class LoggingCallback(DriverOnly, tune.Callback):
    """Passes trials on to one tool's logger, in a thread. If the logger fails, gnc warns once and the run continues."""

    def __init__(self, name: str, study: Study, store: Store) -> None:
        # A store of its own, because it is read in another thread.
        self._name, self._study, self._store = name, study, open_store(store.uri)
        self._queue: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._logger: Logger | None = None
        self._logged: dict[str, set[int]] = {}  # epochs of each trial that is being logged
        self._has_failed = False
        self._thread = threading.Thread(target=self._work, name=f"log-{name}", daemon=True)
        self._thread.start()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._queue.put(("start", trial.config["key"], json.loads(trial.config["settings"])))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if result.get("measured"):
            self._queue.put(("log", trial.config["key"], dict(result)))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._queue.put(("end", trial.config["key"], trial.last_result.get("state", "interrupted")))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._queue.put(("end", trial.config["key"], "failed"))

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        self._queue.put(("close", "", None))
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            print(f"{self._name} did not finish in {CLOSE_SECONDS:.0f} s: its log may lack trials", file=sys.stderr)

    def _work(self) -> None:
        what = ""
        while what != "close":
            what, key, value = self._queue.get()
            try:
                self._do(what, key, value)
            except Exception as error:  # noqa: BLE001 - whatever a tool raises, the run continues
                self._logged.pop(key, None)  # nothing more is logged of this trial
                if not self._has_failed:
                    self._has_failed = True
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    told = f"{self._name} cannot log every trial; the run continues"
                    print(f"warning: {told}: {reason}", file=sys.stderr)

    def _do(self, what: str, key: str, value: Any) -> None:
        if self._logger is None:
            if what == "close":
                return
            self._logger = TOOLS[self._name].make(self._study, self._store)
        if what == "close":
            self._logger.close()
        elif what == "start":
            self._logger.start(logged_trial(stored_config(value), self._study))
            self._logged[key] = set()
        elif key in self._logged:
            fragment = self._store.read_fragment(key) if what == "end" else None
            rows = [value] if what == "log" else fragment.rows.select(NAMES).to_pylist() if fragment else []
            if new := [row for row in rows if row["epoch"] not in self._logged[key]]:
                self._logger.log(key, [numbers_of(row, NAMES) for row in new])
                self._logged[key] |= {row["epoch"] for row in new}
            if what == "end":
                self._logged.pop(key)
                self._logger.end(key, value)
