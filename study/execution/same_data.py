"""Do new trials belong beside the stored ones? Same data, same versions, same machine.

Knows the store and, to compare data, study.training.trial; does not know Ray.
"""

import json
import sys
from typing import Any

from study.design.config import DATASET_SETTINGS, TrialConfig
from study.design.errors import StudyError
from study.store.schemas import stored_config
from study.store.store import Store

# Two trials that agree here draw from the same pool, whatever their numbers of classes and samples.
POOL = ("dataset", "data_seed", *DATASET_SETTINGS)


def check_datasets(store: Store, configs: list[TrialConfig]) -> None:
    """StudyError if a stored trial's data, made anew here, has another digest: its rows could not be compared.

    One trial of each pool is enough, since classes and samples are nested: the smallest is the cheapest.
    """
    wanted = {_pool(config) for config in configs}
    smallest: dict[tuple[object, ...], tuple[TrialConfig, str]] = {}
    for row in store.read_trials().to_pylist():
        if row["dataset_digest"] is None:
            continue
        config = stored_config(row)
        pool = _pool(config)
        if pool in wanted and (pool not in smallest or _sizes(config) < _sizes(smallest[pool][0])):
            smallest[pool] = config, row["dataset_digest"]
    if not smallest:
        return
    from study.training.trial import load_dataset

    for config, digest in smallest.values():
        here = load_dataset(config).digest
        if here != digest:
            raise StudyError(
                f"dataset_digest must be that of the stored trials, got {here[:12]} where {config.key} has {digest[:12]}. "
                "The data would not be the same (other fonts, Pillow or FreeType versions?). "
                "Use the versions in trials.parquet, or another results folder."
            )


def warn_mixed_machines(store: Store) -> None:
    """Say on stderr if the folder's trials come from several CPU models, GPU models or package versions."""
    for sentence in mixed_machines(store.read_trials().to_pylist()):
        print(f"warning: {sentence}", file=sys.stderr)


def mixed_machines(trials: list[dict[str, Any]]) -> list[str]:
    """A sentence for each of cpu_model, gpu_model and versions that differs between trials, and for data that do."""
    sentences = []
    digests: dict[tuple[object, ...], set[str]] = {}
    for trial in trials:
        if trial["dataset_digest"]:
            config = stored_config(trial)
            digests.setdefault((_pool(config), _sizes(config)), set()).add(trial["dataset_digest"])
    if any(len(found) > 1 for found in digests.values()):
        sentences.append("trials with the same data settings have different dataset_digest; they cannot be compared")
    for name in ("cpu_model", "gpu_model", "versions"):
        values = sorted({str(trial[name]) for trial in trials if trial["state"] == "complete"})
        if len(values) > 1:
            shown = [_differences(value, values) if name == "versions" else value for value in values[:5]]
            sentences.append(
                f"trials have {len(values)} values of {name} ({'; '.join(shown)}); bit-identity holds within one only"
            )
    return sentences


def _differences(versions: str, others: list[str]) -> str:
    parsed = [json.loads(other) for other in others]
    mine = json.loads(versions)
    return ", ".join(f"{k} {v}" for k, v in mine.items() if len({p.get(k) for p in parsed}) > 1)


def _pool(config: TrialConfig) -> tuple[object, ...]:
    return tuple(getattr(config, name) for name in POOL)


def _sizes(config: TrialConfig) -> tuple[int, int, int]:
    return config.num_classes, config.samples_per_class, config.test_samples_per_class or 0
