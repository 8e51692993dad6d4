"""Whether new trials can be compared with the stored ones: same data, same versions, same machine.
Knows the store and, to compare data, study.training.data; does not know Ray."""

import json
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from study.design.columns import columns_with
from study.design.config import TrialConfig, one_of_each_cell, settings_with
from study.design.errors import StudyError
from study.design.setting import SPELLINGS, canonical
from study.execution.granted import data_room
from study.store.schemas import FINAL, stored_config
from study.store.sealing.table_rows import first_of_each
from study.store.store import Store
from study.training.data import load_dataset


def check_datasets(store: Store, configs: list[TrialConfig]) -> None:
    """StudyError if the data of a stored trial, made again here, has another digest: its rows could not be compared.
    Data sets of the same settings are nested in their sizes, so the smallest stored one of each is enough."""
    wanted = {config.values_with("data") for config in configs}
    stored = [(stored_config(row), row["dataset_digest"]) for row in _data_sets(store.read_trials())]
    stored.sort(key=lambda one: [size or 0 for size in one[0].values_with("size")])
    smallest = {config.values_with("data"): (config, digest) for config, digest in reversed(stored)}
    for config, digest in (found for pool, found in smallest.items() if pool in wanted):
        here = load_dataset(config, data_room()).digest
        if here != digest:
            got = f"got {here[:12]} where {config.key} has {digest[:12]}"
            why = "files of the set may have changed, or versions of fonts, Pillow, FreeType and gnc-study"
            cure = "Use the files and the versions in trials.parquet, or another results folder."
            rule = f"dataset_digest must be that of the stored trials, {got}. The data would not be the same"
            raise StudyError(f"{rule}: {why}. {cure}")


def _data_sets(trials: pa.Table) -> list[dict[str, Any]]:
    names = [*settings_with("data", "size"), "dataset_digest"]
    return first_of_each(trials.filter(pc.is_valid(trials["dataset_digest"])), names).to_pylist()


def with_stored_spellings(configs: tuple[TrialConfig, ...], store: Store) -> tuple[TrialConfig, ...]:
    """The configs; one whose trial finished under another spelling of the same settings has the stored spelling.
    Settings that can be written in several ways once entered the key as they were written. Such a trial keeps its key
    and its rows, and counts as the trial that a study asks for, however that study writes it."""
    written = [config.settings() for config in one_of_each_cell(configs)]
    names = [name for name in SPELLINGS if any(isinstance(settings[name], str) for settings in written)]
    if not names:
        return configs
    former = {}
    for row in store.read_trials().to_pylist():
        respelled = {name: canonical(name, row[name]) for name in names}
        if row["state"] in FINAL and any(row[name] != value for name, value in respelled.items()):
            former[stored_config(row | respelled).key] = stored_config(row)
    states = store.states() if former else {}
    return tuple(config if config.key in states else former.get(config.key, config) for config in configs)


def mixed_machines(trials: pa.Table) -> list[str]:
    """One sentence for each of cpu_model, gpu_model, versions and data that differs between trials."""
    sentences, digests = [], defaultdict[tuple[object, ...], set[str]](set)
    for trial in _data_sets(trials):
        digests[stored_config(trial).values_with("data", "size")].add(trial["dataset_digest"])
    if any(len(found) > 1 for found in digests.values()):
        sentences.append("trials with the same data settings have different dataset_digest; they cannot be compared")
    complete = trials.filter(pc.equal(trials["state"], "complete"))
    for name in columns_with("machine"):
        values = sorted(map(str, complete[name].unique().to_pylist()))
        if len(values) > 1:
            known = [json.loads(value) for value in values] if name == "versions" else []
            packages = {package for one in known for package in one if len({each.get(package) for each in known}) > 1}
            shown = [", ".join(f"{k} {v}" for k, v in one.items() if k in packages) for one in known] or values
            told = f"trials have {len(values)} values of {name} ({'; '.join(shown[:5])})"
            sentences.append(f"{told}; numbers are the same to the last bit only within one of them")
    return sentences
