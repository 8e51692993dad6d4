"""Stored trials as studies of Optuna: a file that optuna-dashboard opens, and how much each setting mattered.
Knows Optuna and the store; suggests nothing (study.scheduling.optuna_sampler does)."""

import datetime
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.design.config import TrialConfig
from study.design.errors import StudyError
from study.design.search import Search
from study.design.setting import with_flat_options
from study.scheduling.optuna_sampler import DIRECTIONS, distribution
from study.store.storage import Tell, ignore
from study.store.store import Store

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # any other end is a failure to Optuna
SIZES = ("num_classes", "feature_dim")  # trials of other sizes solve other problems


def measure_importances(
    search: Search, tried: Sequence[dict[str, Any]], goals: Sequence[float]
) -> dict[str, dict[str, float]]:
    """By evaluator and searched setting, its share of the variation of one goal; the shares of an evaluator sum to 1.
    search: its first mode says whether large or small goals are good. tried: values by setting.
    Source: Optuna's fANOVA (Hutter et al., 2014) and PED-ANOVA (Watanabe et al., arXiv 2304.10255, the best tenth)."""
    space = {name: distribution(given) for name, given in search.space}
    study = optuna.create_study(direction=DIRECTIONS[search.modes[0]])
    inside = [(v, goal) for v, goal in zip(tried, goals, strict=True) if search.holds(v)]
    study.add_trials([create_trial(params=v, distributions=space, value=goal) for v, goal in inside])
    evaluators: dict[str, BaseImportanceEvaluator] = {
        "fANOVA": FanovaImportanceEvaluator(seed=0),
        "PED-ANOVA": PedAnovaImportanceEvaluator(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an evaluator tells of trials that it leaves out
        return {n: optuna.importance.get_param_importances(study, evaluator=by) for n, by in evaluators.items()}


def export_trials(
    path: Path, store: Store, search: Search, *, name: str, metrics: Sequence[str], modes: Sequence[str],
    keys: set[str] | None = None, on_unreadable: Tell = ignore,
) -> dict[str, int]:  # fmt: skip
    """Write stored trials into a new journal file of Optuna, a study for each group of trials that can be compared.
    A group shares every setting but the seed and the searched ones; without a search, the sizes. Parameters are the
    searched settings (without a search, all that vary in the group). Trials outside the searched space are left out;
    key, cell, seed and reason are user attributes. Stopped trials are pruned, with their course where there is one
    metric. A diverged or failed trial has failed, and so has one whose metric was not measured.
    path: a file that does not exist. name: of the study. keys: only these trials; None for all. Gives the number of
    trials by the name of each of Optuna's studies; StudyError if no trial can be exported."""
    trials = [row for row in store.read_trials(on_unreadable).to_pylist() if keys is None or row["trial"] in keys]
    for row in trials:
        row |= with_flat_options({setting: row[setting] for setting in TrialConfig.model_fields})
    if not trials:
        raise StudyError(f"--optuna must have a trial that ended, got none in {store.uri}. Run trials first.")
    courses: dict[str, list[dict[str, Any]]] = {}
    for row in store.read(["trial", "epoch", *metrics], on_unreadable=on_unreadable).to_pylist():
        courses.setdefault(row["trial"], []).append(row)
    varied = _varied(trials)
    held = [setting for setting in varied if setting not in search.names] if search.names else list(SIZES)
    storage = JournalStorage(JournalFileBackend(str(path)))
    written = {}
    for where, members in _groups(trials, held):
        shown = ", ".join(f"{setting}={value}" for setting, value in where.items() if setting in varied)
        label = f"{name}: {shown}" if shown else name
        study = optuna.create_study(storage=storage, study_name=label, directions=[DIRECTIONS[mode] for mode in modes])
        study.set_metric_names(list(metrics))
        space = {setting: distribution(given) for setting, given in search.space} or _lists(members)
        inside = [row for row in members if search.holds({setting: row.get(setting) for setting in search.names})]
        study.add_trials([_frozen(row, courses.get(row["trial"], []), space, metrics) for row in inside])
        written[label] = len(inside)
    return written


def _varied(trials: Sequence[dict[str, Any]]) -> list[str]:
    names = [name for name in trials[0] if name in TrialConfig.model_fields or "." in name]
    kept = [name for name in names if name != "seed" and not name.endswith(("_source", "_options"))]
    return [name for name in kept if len({row.get(name) for row in trials}) > 1]


def _lists(members: Sequence[dict[str, Any]]) -> dict[str, BaseDistribution]:
    varied = {name: dict.fromkeys(row.get(name) for row in members) for name in _varied(members)}
    return {name: CategoricalDistribution(tuple(values)) for name, values in varied.items()}


def _groups(
    trials: Sequence[dict[str, Any]], held: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in sorted(trials, key=lambda row: (row["finished_at"] or "", row["trial"])):
        found.setdefault(tuple(row.get(name) for name in held), []).append(row)
    for values, members in sorted(found.items(), key=lambda item: str(item[0])):
        yield dict(zip(held, values, strict=True)), members


def _frozen(
    row: dict[str, Any], course: Sequence[dict[str, Any]], space: dict[str, BaseDistribution], metrics: Sequence[str]
) -> FrozenTrial:
    goals: list[Any] = [course[-1][metric] if course else None for metric in metrics]
    state = STATES.get(row["state"], TrialState.FAIL)
    reason = row["reason"]
    if state == TrialState.COMPLETE and None in goals:
        state, reason = TrialState.FAIL, f"{metrics[goals.index(None)]} was not measured"
    curve = {epoch["epoch"]: epoch[metrics[0]] for epoch in course if epoch[metrics[0]] is not None}
    about = {"trial": row["trial"], "cell": row["cell"], "seed": row["seed"], "reason": reason}
    trial = create_trial(
        state=state, params={name: row.get(name) for name in space}, distributions=space,
        values=goals if state == TrialState.COMPLETE else None,
        intermediate_values=curve if len(metrics) == 1 else None,
        user_attrs={name: value for name, value in about.items() if value is not None},
    )  # fmt: skip
    if row["finished_at"]:
        trial.datetime_complete = datetime.datetime.fromisoformat(row["finished_at"]).astimezone().replace(tzinfo=None)
        trial.datetime_start = trial.datetime_complete - datetime.timedelta(seconds=row["seconds"] or 0)
    return trial
