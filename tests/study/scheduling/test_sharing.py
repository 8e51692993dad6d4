"""Several runs on one folder: each trial is trained by the run that claimed it, and none is left lying.

Orders of steps are tried out in memory with the code that runs use; real processes then share a folder on the disk.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from study.design.config import TrialConfig
from study.design.search import Scheduler
from study.scheduling.sharing import ELSEWHERE, TAKEN, ListedTrials, SharedTrials, Sharing
from study.scheduling.suggestions import Suggestions
from study.store.claims import SILENT_SECONDS, Run
from study.store.store import Store, open_store
from tests.study.conftest import finish, made_up_config
from tests.study.scheduling.test_suggestions import OPTUNA, RATE, search_study
from tests.study.scheduling.test_suggestions import finish as finish_with_loss
from tests.study.store.interleaving import Act, Exploration, Folder, InMemory

A, B = made_up_config(seed=0), made_up_config(seed=1)
NO_RULE = Scheduler()


class Clock:
    """Time that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def sharing(store: Store, run: str, clock: Clock, **more: Any) -> Sharing:
    return Sharing(store, run, NO_RULE, clock=clock, **more)


def mark_elsewhere(store: Store, run: str, beat: int = 0, *, clock: float = 0.0) -> None:
    """The mark of a run on another machine, whose clock may differ."""
    mark = {"host": "far", "process": 1, "boot": "another", "born": "1", "beat": beat, "time": clock}
    store.storage.write(f"live/{run}.run", json.dumps(mark).encode())


# --- all orders of steps ------------------------------------------------------------------------------------------


def running(run: str, config: TrialConfig, *, silent_seconds: float) -> Act:
    """A run that takes one trial, if it can, and trains it to its end."""

    def act(store: Store) -> None:
        mine = sharing(store, run, Clock(), silent_seconds=silent_seconds)
        if mine.take(config.key) == TAKEN:
            store.storage.write(f"trained/{config.key}.{run}", b"")
            finish(store, config)
            mine.leave(config.key, is_done=True)

    return act


def interrupted(run: str, config: TrialConfig) -> Act:
    """A run that takes a trial and lets it go before its end."""

    def act(store: Store) -> None:
        mine = sharing(store, run, Clock())
        if mine.take(config.key) == TAKEN:
            mine.leave(config.key, is_done=False)

    return act


def begin(*runs: str) -> Act:
    def act(store: Store) -> None:
        for run in runs:
            mark_elsewhere(store, run)

    return act


def trained(folder: Folder) -> list[str]:
    return [name for name, _ in folder if name.startswith("trained/")]


def is_finished(folder: Folder) -> bool:
    return Store(InMemory(folder)).read_fragment(A.key) is not None


def test_in_every_order_a_trial_is_trained_by_one_of_two_live_runs():
    def check(folder: Folder, done: tuple[bool, ...]) -> None:
        assert len(trained(folder)) <= 1
        if all(done):
            assert is_finished(folder)
            assert Store(InMemory(folder)).claims() == {}

    acts = [running(run, A, silent_seconds=1.0) for run in ("run-a", "run-b")]
    assert Exploration(acts, begin("run-a", "run-b")).run(check) > 100


def test_in_every_order_one_of_two_runs_takes_over_what_a_silent_run_had():
    def begin_silent(store: Store) -> None:
        begin("run-a", "run-b", "run-dead")(store)
        assert store.take(A.key, "run-dead", after=0)

    def check(folder: Folder, done: tuple[bool, ...]) -> None:
        if all(done):
            assert is_finished(folder)
            assert Store(InMemory(folder)).claims() == {}

    # to both of them every other run is silent, so they may take from each other too: a repeat, and no row is lost
    acts = [running(run, A, silent_seconds=0.0) for run in ("run-a", "run-b")]
    Exploration(acts, begin_silent).run(check)


def test_in_every_order_a_trial_let_go_is_free_for_one_run_only():
    def check(folder: Folder, done: tuple[bool, ...]) -> None:
        assert len(trained(folder)) <= 1
        if all(done) and not is_finished(folder):
            # whoever came while the first one had it found it elsewhere; it is free now
            assert Store(InMemory(folder)).claims()[A.key].run == ""

    acts = [interrupted("run-a", A), running("run-b", A, silent_seconds=1.0), running("run-c", A, silent_seconds=1.0)]
    Exploration(acts, begin("run-a", "run-b", "run-c")).run(check)


def test_a_run_killed_anywhere_leaves_a_trial_that_another_can_take():
    """Every folder on the way is one that a kill may leave behind."""

    def check(folder: Folder, done: tuple[bool, ...]) -> None:
        store = Store(InMemory(folder))
        later = sharing(store, "run-later", Clock(), silent_seconds=0.0)
        assert later.take(A.key) == ("complete" if is_finished(folder) else TAKEN)

    acts = [running(run, A, silent_seconds=1.0) for run in ("run-a", "run-b")]
    Exploration(acts, begin("run-a", "run-b", "run-later")).run(check)


def sharing_with_a_paused_run(run: str) -> Act:
    """A run that watches, by a clock of its own, a paused run of this machine which has the trial."""

    def act(store: Store) -> None:
        clock = Clock()
        mine = sharing(store, run, clock)
        trials = SharedTrials(ListedTrials([A]), mine)
        while (config := trials.next()) is None and trials.waits:
            clock.now += SILENT_SECONDS / 2
        if config is not None:
            finish(store, config)
            trials.ended(config.key, "complete")

    return act


def test_in_every_order_no_run_ends_while_a_trial_is_with_a_paused_run(store):
    """The mark names a process of this machine that is there and stopped; a run beside may be killed at any step."""
    with holder(store) as other:
        pause(other)
        mark = store.storage.read("live/run-other.run")

        def begin_paused(folder: Store) -> None:
            folder.storage.write("live/run-other.run", mark)
            assert folder.take(A.key, "run-other", after=0)

        def check(folder: Folder, done: tuple[bool, ...]) -> None:
            assert is_finished(folder) or not any(done)

        acts = [sharing_with_a_paused_run(run) for run in ("run-a", "run-b")]
        Exploration(acts, begin_paused).run(check)


# --- who is silent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("their_clock", [0.0, 10**10])
def test_a_run_is_silent_once_its_mark_has_stayed_the_same_whatever_its_clock_says(store, their_clock):
    clock = Clock()
    mine = sharing(store, "run-mine", clock)
    mark_elsewhere(store, "run-other", clock=their_clock)
    assert store.take(A.key, "run-other", after=0)
    assert mine.take(A.key) == ELSEWHERE
    for beat in range(1, 4):
        clock.now += SILENT_SECONDS - 1
        mark_elsewhere(store, "run-other", beat, clock=their_clock)
        assert mine.take(A.key) == ELSEWHERE
        assert mine.left_to(A.key) == "run-other"
    clock.now += SILENT_SECONDS + 1
    assert mine.take(A.key) == TAKEN
    assert store.has_lost(A.key, "run-other")
    assert not store.has_lost(A.key, "run-mine")


def test_a_run_just_met_is_not_silent_yet_and_not_known_to_be_alive(store):
    clock = Clock()
    mine = sharing(store, "run-mine", clock)
    mark_elsewhere(store, "run-other", 7)
    assert store.take(A.key, "run-other", after=0)
    assert mine.take(A.key) == ELSEWHERE
    assert not mine.left_to(A.key)


def test_a_run_without_a_mark_is_silent_after_the_same_time(store):
    clock = Clock()
    mine = sharing(store, "run-mine", clock)
    assert store.take(A.key, "run-other", after=0)
    assert mine.take(A.key) == ELSEWHERE
    clock.now += SILENT_SECONDS + 1
    assert mine.take(A.key) == TAKEN


def test_a_killed_process_of_this_machine_is_silent_at_once_and_a_live_one_is_known_to_be_alive(store):
    with holder(store) as other:
        mine = sharing(store, "run-mine", Clock())
        assert mine.take(A.key) == ELSEWHERE
        assert mine.left_to(A.key) == "run-other"
        other.kill()
        other.wait()
    assert sharing(store, "run-mine", Clock()).take(A.key) == TAKEN


HOLDER = """
from study.store.store import open_store
store = open_store({uri!r})
store.begin_run("run-other")
store.take({key!r}, "run-other", after=0)
print("began", flush=True)
input()
"""


@contextlib.contextmanager
def holder(store: Store, key: str = A.key) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this machine whose run has the trial."""
    code = HOLDER.format(uri=store.uri, key=key)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"began\n"
            yield process
        finally:
            process.kill()


def pause(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # the kernel has done it


def test_a_paused_process_of_this_machine_is_watched_and_its_trial_taken_over(store):
    clock = Clock()
    trials = SharedTrials(ListedTrials([A]), sharing(store, "run-mine", clock))
    with holder(store) as other:
        assert trials.next() is None
        assert not trials.waits  # it runs
        pause(other)
        assert trials.waits
        clock.now += SILENT_SECONDS - 1
        assert trials.next() is None
        assert trials.waits
        clock.now += 2
        assert trials.next() == A


def test_a_process_of_this_machine_whose_mark_grows_old_is_watched_as_in_a_copy_of_its_folder(store, tmp_path):
    with holder(store):
        copy, clock = open_store(shutil.copytree(store.uri, tmp_path / "copy")), Clock()
        mark = copy.runs()["run-other"]
        old = dataclasses.asdict(mark) | {"time": mark.time - SILENT_SECONDS - 1}
        copy.storage.write("live/run-other.run", json.dumps(old).encode())
        trials = SharedTrials(ListedTrials([A]), sharing(copy, "run-mine", clock))
        assert trials.next() is None
        assert trials.waits
        clock.now += SILENT_SECONDS + 1
        assert trials.next() == A


def test_a_killed_process_that_nobody_has_waited_for_is_gone(store):
    with holder(store) as other:
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert store.runs()["run-other"].is_gone


def test_the_mark_of_a_killed_run_is_swept_once_no_claim_needs_it(store):
    with holder(store) as other:
        store.sweep_claims({})
        assert store.runs().keys() == {"run-other"}
        other.kill()
        other.wait()
    store.sweep_claims({})
    assert store.runs().keys() == {"run-other"}  # by it others know that A is free
    store.sweep_claims({A.key: "complete"})
    assert (store.runs(), store.claims()) == ({}, {})


def test_a_mark_that_cannot_be_read_names_its_run(store):
    store.storage.write("live/run-torn.run", b"{")
    store.storage.write("live/run-old.run", b"")
    assert store.runs() == {"run-torn": Run("run-torn"), "run-old": Run("run-old")}


# --- the trials of a run ------------------------------------------------------------------------------------------


def test_a_run_gives_its_own_trials_first_then_what_it_takes_over_and_leaves_what_is_alive(store):
    clock, told = Clock(), []
    configs = [made_up_config(seed=seed) for seed in range(4)]
    dead, alive, done, free = (config.key for config in configs)
    for run, key in (("run-dead", dead), ("run-alive", alive)):
        mark_elsewhere(store, run)
        assert store.take(key, run, after=0)
    finish(store, configs[2])
    trials = SharedTrials(ListedTrials(configs), sharing(store, "run-mine", clock), told.append)
    assert trials.next().key == free
    assert trials.next() is None
    assert told == [done]
    assert trials.waits
    clock.now += SILENT_SECONDS / 2
    mark_elsewhere(store, "run-alive", 1)
    assert trials.next() is None
    clock.now += SILENT_SECONDS / 2 + 1
    assert trials.next().key == dead
    assert trials.next() is None
    assert not trials.waits  # what is left is with a run that is alive
    for key in (free, dead):
        finish(store, next(config for config in configs if config.key == key))
        trials.ended(key, "complete")
    assert store.claims().keys() == {alive}


def test_a_trial_taken_over_while_its_run_was_paused_goes_back_and_is_not_run_again(store):
    clock = Clock()
    mine = SharedTrials(ListedTrials([A]), sharing(store, "run-mine", clock))
    assert mine.next() == A
    mark_elsewhere(store, "run-other", 1)
    assert store.take(A.key, "run-other", after=1)
    mine.ended(A.key, "interrupted")
    assert store.claim_of(A.key).run == "run-other"
    clock.now += 2
    assert mine.next() is None
    mark_elsewhere(store, "run-other", 2)
    clock.now += 2
    assert not mine.waits


def test_trials_that_failed_as_often_as_they_may_in_another_run_are_done(store):
    told = []
    for attempt in (1, 2):
        store.write_failure(A.key, attempt, {"attempt": attempt, "reason": "no"})
    mine = SharedTrials(ListedTrials([A, B]), sharing(store, "run-mine", Clock(), attempts=2), told.append)
    assert mine.next() == B
    assert told == [A.key]
    again = sharing(store, "run-again", Clock(), attempts=None)
    assert again.take(A.key) == TAKEN


def test_what_a_run_does_not_run_is_free_once_it_is_closed(store):
    mine = SharedTrials(ListedTrials([A, B]), sharing(store, "run-mine", Clock()))
    assert [mine.next(), mine.next()] == [A, B]
    mine.close()
    assert sharing(store, "run-other", Clock()).take(B.key) == TAKEN


def test_two_runs_share_a_search_and_make_each_suggestion_once(store):
    study = search_study(RATE, OPTUNA)
    clock = Clock()
    searches = []
    for run in ("run-a", "run-b", "run-c"):
        mark_elsewhere(store, run)
        searches.append(SharedTrials(Suggestions(study, store, spent=set()), sharing(store, run, clock)))
    ran, idle = Counter(), 0
    while idle < 2:
        idle += 1
        for beat, (search, run) in enumerate(zip(searches, ("run-a", "run-b", "run-c"), strict=True)):
            clock.now += 2
            mark_elsewhere(store, run, beat + idle * 10 + sum(ran.values()) * 100)
            if (config := search.next()) is not None:
                finish_with_loss(store, config, config.learning_rate)
                search.ended(config.key, "complete")
                ran[config.key] += 1
                idle = 0
    assert set(ran.values()) == {1}
    assert len(ran) == study.num_planned
    assert len(store.suggestion_names()) == study.search.num_samples * len(study.cells)
    assert store.claims() == {}


# --- real processes -----------------------------------------------------------------------------------------------

PROCESS = """
import sys
from study.design.search import Scheduler
from study.execution.run_mark import new_run, under_way
from study.scheduling.sharing import ListedTrials, SharedTrials, Sharing
from study.store.store import open_store
from tests.study.conftest import finish, made_up_config
store, run = open_store(sys.argv[1]), new_run()
with under_way(store, run):
    trials = SharedTrials(ListedTrials([made_up_config(seed=seed) for seed in range(int(sys.argv[2]))]), Sharing(store, run, Scheduler()))
    while (config := trials.next()) is not None:
        print(config.key, flush=True)
        finish(store, config)
        trials.ended(config.key, "complete")
"""


def test_processes_that_share_a_folder_run_each_trial_once(store):
    count = 60
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, store.uri, str(count)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "."},
        )
        for _ in range(3)
    ]
    ran = [process.communicate()[0].decode().split() for process in started]
    assert all(process.returncode == 0 for process in started)
    assert Counter(key for keys in ran for key in keys) == Counter(made_up_config(seed=s).key for s in range(count))
    assert len(open_store(store.uri).states()) == count
    assert store.claims() == {}
    assert store.runs() == {}


def test_a_disk_that_is_full_takes_no_claim_and_stops_no_run(tmp_path, monkeypatch):
    store = open_store(tmp_path)

    def full(*_: Any, **__: Any) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.storage, "write_once", full)
    mine = sharing(store, "run-a", Clock())
    assert mine.take(A.key) == TAKEN
    mine.leave(A.key, is_done=False)
    assert store.claims() == {}
