"""A trial of several workers on Ray: a Tune trial that drives a Ray Train worker group, which takes some 15 s to start.
The driver asks for no CPU, so that no number of drivers keeps workers from their machines. Knows Ray and
study.execution.attempt; does not know which trials there are."""

import json
import logging
import os
import tempfile
from typing import Any

import torch
from ray import train, tune
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from study.design.config import TrialConfig
from study.execution.attempt import INTERRUPTED, Execution, await_run, final_figures
from study.execution.signals import Preempted
from study.store.store import open_store
from study.training.worker_group import PATIENCE, join
from study.tuning.failure_causes import draining
from study.tuning.one_worker import Reporter
from study.tuning.resources import Allotment

# How often Ray Train looks for reports and for the end; a report waits until the one before it was taken.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
REPORT_SECONDS = 2.0  # between live figures; every row is sent


def drive_on_ray(
    config: dict[str, Any], *, results: str, run: str, options: dict[str, Any], allotment: Allotment
) -> None:
    """One trial of several workers, seen from Tune; options: of each worker's Execution. Ray pickles it by reference.
    Raises TrainingFailedError where a worker died before it could write why, Preempted where the trial left off with a
    checkpoint because one of its machines is being taken away."""
    trial, store = TrialConfig(**json.loads(config["settings"])), open_store(results)
    if (end := final_figures(store, trial.key)) is not None:
        tune.report(end)
        return
    attempt = store.next_attempt(trial.key)
    name, each = f"{trial.key}-{attempt}", {"CPU": allotment.cpus, "GPU": allotment.gpus}
    scale = train.ScalingConfig(num_workers=trial.workers, use_gpu=allotment.gpus > 0, resources_per_worker=each)
    order = {"settings": trial.settings(), "results": results, "run": run, "options": {**options, "attempt": attempt}}
    with tempfile.TemporaryDirectory(prefix="gnc-train-") as scratch:
        trainer = TorchTrainer(
            _work, train_loop_config=order, scaling_config=scale,
            # Over gloo the workers meet and decide; on GPUs tensors get a group over NCCL beside it.
            torch_config=TorchConfig(backend="gloo", timeout_s=int(PATIENCE.total_seconds())),
            run_config=train.RunConfig(name=name, storage_path=scratch, callbacks=[TuneReportCallback()]),
        )  # fmt: skip
        try:
            end = trainer.fit().return_value
        except train.TrainingFailedError:
            failure = store.failure_of(trial.key, attempt)
            if failure is None:
                raise
            store.remove_live(trial.key)
            end = {"state": "failed", "reason": failure["reason"]}
    if end.pop("is_preempted", False):
        raise Preempted(end["reason"])
    tune.report(end)


def _work(order: dict[str, Any]) -> dict[str, Any]:
    """One worker, in the process group that Ray Train made; the end of the trial, with worker 0's last figures."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it logs every report, and so fills the trial's log
    context = train.get_context()
    options = order["options"]
    # Ray's logical GPUs can be there without a real one.
    device = get_device() if options["device"] is None and torch.cuda.is_available() else torch.device("cpu")
    group = join(context.get_world_rank(), context.get_world_size(), device)
    store = open_store(order["results"])
    drained, trial = draining(), TrialConfig(**order["settings"])
    asked = await_run(store, order["run"], trial.key)
    reporter = Reporter(train.report, REPORT_SECONDS, group)  # Ray Train waits until every worker reports
    execution = Execution(trial, store, group=group, **{**options, "device": str(device)})
    # A report is on its way to the driver when the store is asked: a scheduler's request is met one measurement later.
    state = execution.run(should_stop=lambda: drained() or (group.leads and asked()), on_progress=reporter)
    is_preempted = state == INTERRUPTED and not asked()
    return {**reporter.figures, "state": state, "reason": execution.reason, "is_preempted": is_preempted}
