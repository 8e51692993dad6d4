"""Writers of a trial's measurements for TensorBoard, MLflow and Weights & Biases, named in a study's [log] table.
A log is a copy of the rows for a person to look at, in callbacks/NAME/KEY unless the tool's own environment variables
name another place. Each tool is imported only when a study names it. Does not know Ray."""

import importlib.util
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from study.design.config import TrialConfig, short_digest
from study.design.errors import StudyError
from study.design.study_file import Study
from study.store.schemas import MEASUREMENTS
from study.store.store import Store

MOST_CHARACTERS = 128  # of a name in W&B
UNITS = {column.name: column.unit for column in MEASUREMENTS if column.unit}
Row = Mapping[str, float]  # measured columns with a number, `epoch` and `step` among them


@dataclass(frozen=True)
class LoggedTrial:
    """A trial as a log names it. name: what tells it from the study's others; group: the same of its cell, and the cell."""

    key: str
    cell: str
    name: str
    group: str
    settings: Mapping[str, Any]  # those that have an effect


def logged_trial(config: TrialConfig, study: Study) -> LoggedTrial:
    name = study.name_of(config)[:MOST_CHARACTERS] or config.key
    words = study.name_of(config, without="seed")[: MOST_CHARACTERS - 9]
    settings = config.model_dump(exclude_none=True)
    return LoggedTrial(config.key, config.cell, name, f"{words} {config.cell[:8]}".strip(), settings)


class Logger(Protocol):
    """Receives each trial's start, rows and end, in this order; several trials can be in progress."""

    def start(self, trial: LoggedTrial) -> None:
        """A trial begins. What an earlier attempt logged of it is removed."""

    def log(self, key: str, rows: Sequence[Row]) -> None:
        """Rows of a trial that has begun."""

    def end(self, key: str, state: str) -> None:
        """The trial has ended in this state, or was interrupted."""

    def close(self) -> None:
        """The run has ended."""


class LogFolder:
    """Where one tool's files of each trial lie: in the results folder, or in a temporary one until they are sent."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        local = store.storage.local_path(f"callbacks/{name}")
        self._temporary = None if local else tempfile.TemporaryDirectory(prefix=f"gnc-{name}-")
        self.path = local or Path(self._temporary.name if self._temporary else "")

    def fresh(self, key: str) -> Path:
        shutil.rmtree(self.path / key, ignore_errors=True)
        (self.path / key).mkdir(parents=True)
        return self.path / key

    def send(self, key: str) -> None:
        """Copy the trial's files into an object store; elsewhere they are in place."""
        if self._temporary is None:
            return
        for file in sorted(path for path in (self.path / key).rglob("*") if path.is_file()):
            name = f"callbacks/{self._name}/{file.relative_to(self.path).as_posix()}"
            self._store.storage.write(name, file.read_bytes())

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


def folder_id(store: Store) -> str:
    """Tells this results folder from every other one that logs to the same server; it is the same in every run.
    Its own random name, as two machines' folders can have one path, hashed with the path, as copies have its name."""
    local = store.storage.local_path("")
    return short_digest(f"{store.folder_id()} {local.resolve() if local else store.uri}")


class TensorBoard:
    """One event file per trial; `tensorboard --logdir RESULTS/callbacks/tensorboard`."""

    def __init__(self, study: Study, store: Store) -> None:
        self._folder = LogFolder(store, "tensorboard")
        self._open: dict[str, tuple[Any, Mapping[str, Any], dict[str, float]]] = {}  # writer, settings, last row

    def start(self, trial: LoggedTrial) -> None:
        from tensorboardX import SummaryWriter

        self._open[trial.key] = SummaryWriter(str(self._folder.fresh(trial.key)), flush_secs=10), trial.settings, {}

    def log(self, key: str, rows: Sequence[Row]) -> None:
        writer, _, last = self._open[key]
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    writer.add_scalar(name, value, int(row["step"]))
            last.clear()
            last.update(row)

    def end(self, key: str, state: str) -> None:
        from tensorboardX.summary import hparams

        writer, settings, last = self._open.pop(key)
        writer.add_text("state", state)
        plain = {n: v if isinstance(v, bool | int | float) else str(v) for n, v in settings.items()}
        for summary in hparams(plain, last):
            writer.file_writer.add_summary(summary)
        writer.close()
        self._folder.send(key)

    def close(self) -> None:
        for writer, _, _ in self._open.values():
            writer.close()
        self._folder.close()


class MLflow:
    """One run per trial, named by what varies, in the experiment of [log] project or of the study's name.
    MLFLOW_TRACKING_URI says where, MLFLOW_EXPERIMENT_NAME in which one. The tag `cell` groups seeds, `units` has units.
    A trial that is logged again replaces its run. On a server, runs that another results folder logged stay, and so do
    those from before runs had the tag `results_folder`."""

    def __init__(self, study: Study, store: Store) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        local = store.storage.local_path("callbacks/mlflow")
        if local is not None:
            local.mkdir(parents=True, exist_ok=True)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(server or f"sqlite:///{local}/mlflow.db")
        self._folder = folder_id(store)
        self._made_here = f" and tags.results_folder = '{self._folder}'" if server else ""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or study.log.project or study.name
        found = self._client.get_experiment_by_name(name)
        artifacts = None if server or local is None else (local / "artifacts").as_uri()
        self._experiment = found.experiment_id if found else self._client.create_experiment(name, artifacts)
        self._runs: dict[str, str] = {}
        self._tags = {"study": study.name, "results_folder": self._folder, "units": json.dumps(UNITS)}
        self._tags |= {f"tag.{tag}": "true" for tag in study.log.tags}

    def start(self, trial: LoggedTrial) -> None:
        from mlflow.entities import Param

        for earlier in self._client.search_runs([self._experiment], f"tags.trial = '{trial.key}'{self._made_here}"):
            self._client.delete_run(earlier.info.run_id)
        tags = self._tags | {"trial": trial.key, "cell": trial.group}
        run = self._client.create_run(self._experiment, run_name=trial.name, tags=tags)
        self._runs[trial.key] = run.info.run_id
        params = [Param(name, str(value)) for name, value in trial.settings.items()]
        self._client.log_batch(run.info.run_id, params=params)

    def log(self, key: str, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for row in rows:
            metrics = [Metric(name, value, now, int(row["step"])) for name, value in row.items() if name != "step"]
            self._client.log_batch(self._runs[key], metrics=metrics)

    def end(self, key: str, state: str) -> None:
        run = self._runs.pop(key)
        self._client.set_tag(run, "state", state)
        statuses = {"complete": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}
        self._client.set_terminated(run, statuses.get(state, "FAILED"))

    def close(self) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")


class WeightsAndBiases:
    """One run per trial, named by what varies, seeds grouped; offline where no key for the service is known.
    The project is WANDB_PROJECT, else [log] project, else the study's name. `units` in a run's config has units. A
    run's id is the trial's key and the results folder's id, so that two people's runs of one trial stay two. Older runs
    have the key alone as their id; a trial that is logged again gets a new run beside such a one. `wandb sync
    RESULTS/callbacks/wandb/KEY/wandb/offline-run-*` sends an offline run later."""

    def __init__(self, study: Study, store: Store) -> None:
        import wandb

        self._project = os.environ.get("WANDB_PROJECT") or study.log.project or study.name
        self._study, self._folder = study, LogFolder(store, "wandb")
        self._folder_id = folder_id(store)
        # Without a key init would ask for one, in the middle of a sweep.
        is_known = not os.environ.get("WANDB_MODE") and wandb.login(prompt=False, verify=False)
        self._mode: Any = os.environ.get("WANDB_MODE") or ("online" if is_known else "offline")
        self._runs: dict[str, Any] = {}

    def start(self, trial: LoggedTrial) -> None:
        import wandb

        quiet = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, save_code=False)
        about = {"trial": trial.key, "cell": trial.cell, "study": self._study.name, "units": UNITS}
        run = wandb.init(
            project=self._project, id=f"{trial.key}-{self._folder_id}", name=trial.name, group=trial.group,
            tags=self._study.log.tags, config={**trial.settings, **about},
            dir=str(self._folder.fresh(trial.key)), mode=self._mode, reinit="create_new", settings=quiet,
            resume="allow" if self._mode == "online" else None,
        )  # fmt: skip
        run.define_metric("*", step_metric="step")
        self._runs[trial.key] = run

    def log(self, key: str, rows: Sequence[Row]) -> None:
        for row in rows:
            self._runs[key].log(dict(row))

    def end(self, key: str, state: str) -> None:
        run = self._runs.pop(key)
        run.summary["state"] = state
        run.finish(exit_code=0 if state in ("complete", "stopped") else 1)
        self._folder.send(key)

    def close(self) -> None:
        import wandb

        for run in self._runs.values():
            run.finish(exit_code=1)
        wandb.teardown()  # ends the process that wandb started beside this one
        self._folder.close()


@dataclass(frozen=True)
class Tool:
    """A tool that a study may name: the module it needs, how to get it, its logger of a study and a store."""

    module: str
    install: str
    make: Callable[[Study, Store], Logger]


TOOLS: dict[str, Tool] = {
    "tensorboard": Tool("tensorboardX", "pip install tensorboardX", TensorBoard),
    "mlflow": Tool("mlflow", "pip install 'gnc-study[mlflow]'", MLflow),
    "wandb": Tool("wandb", "pip install 'gnc-study[wandb]'", WeightsAndBiases),
}


def check_callbacks(names: Iterable[str], store: Store) -> None:
    """StudyError for a tool that is not installed, or that has no place to write to."""
    for name in names:
        tool = TOOLS[name]
        if importlib.util.find_spec(tool.module) is None:
            got = f"got {name!r} without its package {tool.module}"
            raise StudyError(f"[log] callbacks must name installed tools, {got}. {tool.install}")
        if name == "mlflow" and not store.storage.is_local and not os.environ.get("MLFLOW_TRACKING_URI"):
            cure = "Name a tracking server, or leave mlflow out of [log] callbacks."
            rule = "MLFLOW_TRACKING_URI must be set where the results are no local folder"
            raise StudyError(f"{rule}, got {store.uri!r}. {cure}")


def numbers_of(columns: Mapping[str, Any], names: Iterable[str]) -> Row:
    found = ((name, columns.get(name)) for name in names)
    return {n: float(v) for n, v in found if isinstance(v, int | float) and math.isfinite(v)}
