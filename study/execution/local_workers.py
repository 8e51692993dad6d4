"""One trial on this machine without Ray: its workers as processes that are started, watched and ended together.
Knows study.execution.attempt; does not know how a worker trains. A failure is stored under the trial's attempt."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, cast

import torch
from torch import distributed

from gnc_models.processes import ASKS, end_with_parent, kept_from_children
from study.design.config import TrialConfig
from study.execution.attempt import Ask, Execution, Tell
from study.execution.trial_log import describe_machine, failure_record
from study.store.store import Store, open_store
from study.training.trial import Progress
from study.training.worker_group import PATIENCE, join

End = tuple[str, str | None]  # state and reason, as Execution gives them
POLL_SECONDS = 0.2  # between looks at whether to stop
GRACE_SECONDS = 60.0  # for workers to leave once the trial has ended
LOOPBACK = "lo"  # Linux's name of it; gloo would otherwise look for the address of the host's name


def run_here(
    config: TrialConfig, store: Store, *, keep: str = "head", checkpoint_seconds: float = 30.0, device: str | None = None,
    should_stop: Ask = lambda: False, on_progress: Tell = lambda _: None,
) -> End:  # fmt: skip
    """Run a trial to its end on this machine: in this process, or of several workers each in one of its own.
    device: "cpu", or None: a GPU for each worker where there are as many, else CPUs. should_stop: asked a few times a
    second; then the trial keeps a checkpoint and ends. Gives state and reason as Execution does; if a worker raised or
    died, the others are ended: state "failed"."""
    attempt = store.next_attempt(config.key)
    options: dict[str, Any] = {"attempt": attempt, "keep": keep, "checkpoint_seconds": checkpoint_seconds}
    if config.workers == 1:
        alone = Execution(config, store, device=device, **options)
        return alone.run(should_stop=should_stop, on_progress=on_progress), alone.reason
    with tempfile.TemporaryDirectory(prefix="gnc-workers-") as folder:
        order = {"settings": config.settings(), "results": store.uri, "options": options, "device": device}
        order["rendezvous"] = f"file://{folder}/rendezvous"  # in which the workers find each other
        with _started(order, config.workers) as (workers, reports, stopping):
            end = _watch(workers, reports, stopping, should_stop, on_progress)
            for worker in workers if end else ():
                worker.join(GRACE_SECONDS)
            exits = [worker.exitcode for worker in workers]
    return end or ("failed", _reason(store, config, attempt, exits))


@contextmanager
def _started(order: dict[str, Any], size: int) -> Iterator[tuple[list[BaseProcess], Connection, Event]]:
    """The running workers. Those that still run at the end are killed."""
    context = multiprocessing.get_context("spawn")  # a fork would take torch's threads' locks along
    reports, sender = context.Pipe(duplex=False)
    stopping = context.Event()
    workers = [
        # no daemons: these may not start the processes that read streamed data
        context.Process(target=_work, args=(order, rank, size, stopping, sender if rank == 0 else None), daemon=False)
        for rank in range(size)
    ]
    try:
        with kept_from_children(*ASKS):
            for worker in workers:
                worker.start()
        sender.close()
        yield workers, reports, stopping  # type: ignore[misc]
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()
        reports.close()


def _watch(
    workers: list[BaseProcess], reports: Connection, stopping: Event, should_stop: Ask, on_progress: Tell
) -> End | None:
    """State and reason that worker 0 ends with; None if a worker was lost before."""
    while not any(worker.exitcode for worker in workers):
        wait([reports, *(worker.sentinel for worker in workers if worker.is_alive())], timeout=POLL_SECONDS)
        if should_stop():
            stopping.set()
        while reports.poll():
            try:
                report = reports.recv()
            except EOFError:  # worker 0 died
                workers[0].join()
                return None
            if not isinstance(report, Progress):
                return cast(End, report)
            on_progress(report)
    return None


def _reason(store: Store, config: TrialConfig, attempt: int, exits: list[int | None]) -> str:
    failure = store.failure_of(config.key, attempt)
    if failure is None:
        # A signal's number is negative; workers that only noticed the loss end with 1.
        code, lost = min((code, rank) for rank, code in enumerate(exits) if code)
        reason = f"worker {lost} of {config.workers} died with exit code {code} (killed, or out of memory)."
        failure = failure_record(config, attempt, reason, reason, **describe_machine(torch.device("cpu")))
        store.write_failure(config.key, attempt, failure)
    store.remove_live(config.key)
    return str(failure["reason"])


def _work(order: dict[str, Any], rank: int, size: int, stopping: Event, reports: Connection | None) -> None:
    """One worker's process. It ends with its parent, which decides when to stop."""
    end_with_parent()
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    where: dict[str, Any] = {"init_method": order["rendezvous"], "rank": rank, "world_size": size}
    distributed.init_process_group("gloo", **where, timeout=PATIENCE)
    gpus = torch.cuda.device_count() if order["device"] is None else 0
    device = torch.device("cuda", rank) if gpus >= size else torch.device("cpu")
    config, group = TrialConfig(**order["settings"]), join(rank, size, device)
    execution = Execution(config, open_store(order["results"]), device=str(device), group=group, **order["options"])
    tell: Callable[[Any], None] = reports.send if reports else lambda _: None
    try:
        state = execution.run(should_stop=stopping.is_set, on_progress=tell)
    except Exception:  # noqa: BLE001 - the store has its traceback, if it is this worker's own
        os._exit(1)  # at once: closed connections are how the others notice
    tell((state, execution.reason))
    distributed.destroy_process_group()
