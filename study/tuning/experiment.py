"""Many trials on Ray Tune: experiments that are started, watched and ended cleanly.
Knows Ray and the store; does not know how a trial trains. Ray's own experiment folder is temporary and never read:
the store alone decides what is done."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

# Read by Ray on import: no loggers, tables or signal handlers of its own, no experiment snapshots.
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", TUNE_DISABLE_SIGINT_HANDLER="1", TUNE_GLOBAL_CHECKPOINT_S="1000000000",
    TUNE_MAX_PENDING_TRIALS_PG="1000000",  # the queue alone decides how many trials wait
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # the view shows the reason, the trial's log has the traceback
    RAY_AIR_NEW_OUTPUT="0", RAY_DEDUP_LOGS="0",
)  # fmt: skip

import ray
from ray import tune

from gnc_models.processes import ASKS
from study.design.study_file import Study
from study.execution.run_mark import new_run, under_way
from study.execution.signals import is_ignored
from study.scheduling.retries import Retries
from study.scheduling.sharing import SharedTrials, Sharing, Trials
from study.store.store import Store
from study.tuning.early_stopping import CompetingTrials
from study.tuning.logging_callback import LoggingCallback
from study.tuning.resources import Allotment, absolute, ray_problem
from study.tuning.run_view import View
from study.tuning.tune_adapters import Queue, RunCallback, StopWhenAsked, WaitForOwnProcess

HEAD = "node:__internal_head__"  # Ray gives the head 1 of these

logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it would list trials as failed that are started again


def run_trials(
    study: Study, trials: Mapping[int, Trials], store: Store, allotments: Mapping[int, Allotment], view: View, *,
    concurrent: int | None, forgive: bool = False, held_bytes: Callable[[], int] | None = None,
) -> bool:  # fmt: skip
    """Run the trials on the cluster that was joined; True if they were all run, False if the run was asked to stop.
    Trials with the same number of workers form one experiment of Tune, and the experiments run one after another: on
    a busy cluster, trials that need less would starve the others.
    trials, allotments: where trials come from and what each gets, by their number of workers. concurrent: at most so
    many at once. forgive: failures before this run do not count. held_bytes: in place of study.training.trial's."""
    if problem := ray_problem():
        print(f"warning: {problem}. If trials fail at once, install a tested version.", file=sys.stderr)
    run = new_run()
    stopping = threading.Event()
    competition = CompetingTrials(study.search, store) if study.search.scheduler.name != "none" else None
    if competition is not None:
        competition.replay(study.configs)
    sharing = Sharing(store, run, study.search.scheduler, None if forgive else study.resources.attempts)
    with under_way(store, run, study=study.text), _stop_on_signal(store, run, stopping):
        for workers, source in sorted(trials.items()):
            if stopping.is_set():
                break
            allotment = allotments[workers]
            shared = SharedTrials(source, sharing, view.ended_elsewhere)
            retries = Retries(shared, store, study.resources, forgive=forgive)
            queue = Queue(retries, stopping, min(concurrent or allotment.concurrent, allotment.concurrent))
            callback = RunCallback(view, store, run, retries, competition, study)
            trainable = _trainable(study, store, run, workers, allotment, held_bytes)
            try:
                _run_experiment(study, store, run, trainable, queue, callback)
            finally:
                with suppress(OSError):
                    shared.close()
    return not stopping.is_set()


def _trainable(
    study: Study, store: Store, run: str, workers: int, allotment: Allotment, held_bytes: Callable[[], int] | None
) -> Any:
    rule = study.search.scheduler
    options: dict[str, Any] = {
        "keep": study.keep,
        "checkpoint_seconds": study.resources.checkpoint_seconds,
        # Without a GPU of its own a trial must not see one: Ray hides none from a trial that asks for none.
        "device": None if allotment.gpus else "cpu",
        "stopped_by": rule.digest if rule.name != "none" else None,
    }
    common: dict[str, Any] = {"results": absolute(store), "run": run, "options": options}
    if workers == 1:
        from study.tuning.one_worker import train_on_ray

        trainable = tune.with_parameters(train_on_ray, **common, held_bytes=held_bytes)
        return tune.with_resources(trainable, {"cpu": allotment.cpus, "gpu": allotment.gpus})
    from study.tuning.several_workers import drive_on_ray  # Ray Train takes seconds to import

    trainable = tune.with_parameters(drive_on_ray, **common, allotment=allotment)
    # The driver needs no CPU. It stays on the head, which is not preempted, where this Ray has a name for the head.
    return tune.with_resources(trainable, {"cpu": 0} | dict.fromkeys({HEAD} & set(ray.cluster_resources()), 0.001))


def _run_experiment(study: Study, store: Store, run: str, trainable: Any, queue: Queue, callback: RunCallback) -> None:
    with tempfile.TemporaryDirectory(prefix="gnc-ray-") as scratch:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=queue, scheduler=WaitForOwnProcess(), num_samples=-1, reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['key']}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=run, storage_path=scratch, verbose=0, stop=StopWhenAsked(queue.stopping, callback),
                callbacks=[callback, *(LoggingCallback(name, study, store) for name in study.log.callbacks)],
                failure_config=tune.FailureConfig(max_failures=0),  # study.scheduling.retries starts trials again
            ),
        ).fit()  # fmt: skip


@contextmanager
def _stop_on_signal(store: Store, run: str, stopping: threading.Event) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or the like: ask the trials to checkpoint and end. Ctrl-C after that: stop at once."""

    def ask(number: int, frame: Any) -> None:
        if stopping.is_set():
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # a scheduler may reach this process twice, itself and through the script that started it
        stopping.set()
        print("\nstopping: running trials keep their checkpoints (Ctrl-C to stop at once)", file=sys.stderr)
        try:
            store.request_stop(run)
        except OSError as error:  # a full or lost folder: the trials end by themselves, with what they have
            print(error, file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in ASKS if not is_ignored(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(OSError):
            store.withdraw_stop(run)
