"""`gnc measure`: collapse metrics of features in a file, or the geometry of the heads kept in a results folder.

Knows gnc_models and the store; does not know trials or Ray.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnc.cli.output import print_facts, print_json
from gnc.cli.tensor_files import array_names, check_finite, read_tensors
from gnc_models.geometry.margins import margins_of_directions
from gnc_models.geometry.pairwise import max_cosine, unit
from gnc_models.metrics.collapse import measure_collapse
from study.design.errors import StudyError
from study.store.store import open_store

KNOWN = {"features", "labels", "weights", "test_features", "test_labels"}
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
            torch.uint16, torch.uint32, torch.uint64)  # fmt: skip
LARGEST_FEATURE = 1e100  # squares and their sums over any file stay finite, and those of the inverse


def command_measure(options: argparse.Namespace) -> int:
    """Every collapse metric of features in a file, or the geometry of the heads kept in a results folder."""
    is_file = Path(options.source).suffix == ".npz"
    facts = [_measure_file(options)] if is_file else _measure_heads(options.source)
    if options.json:
        print_json(facts[0] if is_file else facts)
        return 0
    for index, one in enumerate(facts):
        print(end="\n" if index else "")
        print_facts(one)
    return 0


# What cannot be told of features alone: all that speaks of classifier rows.
NEEDS_WEIGHTS = ("margin_", "hull_", "centred_", "weight_", "gnc3", "max_cosine", "mean_direction", "sample_margin",
                 "effective_temperature", "ncc_agreement", "active_classes", "input_correlation")  # fmt: skip


def _measure_file(options: argparse.Namespace) -> dict[str, Any]:
    if not (options.temperature > 0 and math.isfinite(options.temperature)):
        raise StudyError(f"--temperature must be greater than 0 and finite, got {options.temperature!r}.")
    arrays = read_tensors(options.source)
    for name in sorted(KNOWN & (array_names(options.source) - set(arrays))):
        raise StudyError(f"{name} must hold numbers of at most 8 bytes, got an array of another kind.")
    _check_arrays(arrays)
    features, labels = arrays["features"].double(), arrays["labels"].long()
    num_classes = len(arrays["weights"]) if "weights" in arrays else int(labels.max()) + 1
    _check_labels(labels, num_classes)
    means = torch.stack([features[labels == k].mean(0) for k in range(num_classes)])
    weights = arrays.get("weights", means).double()
    temperature = None if options.normalization == "none" else options.temperature
    try:
        collapse = measure_collapse(
            features,
            labels,
            weights,
            normalization=options.normalization,
            temperature=temperature,
            test_features=arrays["test_features"].double() if "test_features" in arrays else None,
            test_labels=arrays["test_labels"].long() if "test_labels" in arrays else None,
        )
    except ValueError as error:
        raise StudyError(str(error)) from None
    values = dict(collapse.values)
    if "weights" not in arrays:
        values |= {name: None for name in values if name.startswith(NEEDS_WEIGHTS)}
    return {"num_classes": num_classes, "feature_dim": features.shape[1], **values}


def _check_arrays(arrays: dict[str, Tensor]) -> None:
    """Names, kinds, shapes and sizes of what the file holds."""
    for name in ("features", "labels"):
        if name not in arrays:
            raise StudyError(f"FILE must hold the array {name!r}, got {sorted(arrays)}.")
    for name in ("labels", "test_labels"):
        if name in arrays and (arrays[name].dtype not in INTEGERS or not len(arrays[name])):
            raise StudyError(f"{name} must be integers of at least one sample, got {arrays[name].dtype} of "
                             f"{len(arrays[name])}.")  # fmt: skip
    if ("test_features" in arrays) != ("test_labels" in arrays):
        raise StudyError("test_features and test_labels must be in the file together or not at all, got one of them.")
    features, labels = arrays["features"], arrays["labels"]
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise StudyError(
            f"features must be [samples, dim] and labels [samples], got {tuple(features.shape)} and {tuple(labels.shape)}."
        )
    for name, rows in (("weights", "classes"), ("test_features", "samples")):
        given = arrays.get(name, features)
        if given.ndim != 2 or given.shape[1] != features.shape[1] or len(given) < 1:
            raise StudyError(
                f"{name} must be [{rows}, {features.shape[1]}] as the features are, got {tuple(given.shape)}."
            )
    if "test_labels" in arrays and arrays["test_labels"].shape != arrays["test_features"].shape[:1]:
        shapes = f"{tuple(arrays['test_labels'].shape)} and {tuple(arrays['test_features'].shape)}"
        raise StudyError(f"test_labels must be one a row of test_features, got {shapes}.")
    for name in sorted({"features", "weights", "test_features"} & set(arrays)):
        _check_size(name, arrays[name])


def _check_size(name: str, values: Tensor) -> None:
    if values.is_complex():
        raise StudyError(f"{name} must be real, got {values.dtype}.")
    check_finite(values, name)
    largest = float(values.double().abs().max())
    if largest and not 1 / LARGEST_FEATURE <= largest <= LARGEST_FEATURE:
        raise StudyError(
            f"the largest of {name} must be between {1 / LARGEST_FEATURE:g} and {LARGEST_FEATURE:g} in size, got "
            f"{largest:g}. Multiply all by one number."
        )


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if bool((labels < 0).any()) or bool((labels >= num_classes).any()):
        raise StudyError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}.")
    if num_classes > len(labels):
        raise StudyError(
            f"every class must have samples, got {num_classes:,} classes and {len(labels):,} samples. Renumber the labels."
        )
    empty = (torch.bincount(labels, minlength=num_classes) == 0).nonzero()
    if len(empty):
        raise StudyError(f"every class must have samples, got none for class {int(empty[0])}. Renumber the labels.")


def _measure_heads(results: str) -> list[dict[str, Any]]:
    store = open_store(results)
    if not store.storage.exists():
        raise StudyError(f"SOURCE must be a .npz file or a results folder, got {results!r}.")
    facts = []
    for key in store.head_keys():
        head = store.read_head(key)
        if head is None:
            continue
        rows, means = torch.from_numpy(head["weights"]).double(), torch.from_numpy(head["class_means"]).double()
        present = means.isfinite().all(1)  # a rare token may have had no context that counted
        lower, upper = margins_of_directions(rows).minimum
        mean_lower, mean_upper = margins_of_directions(means[present]).minimum
        unit_rows = unit(rows)
        facts.append(
            {
                "trial": key,
                "num_classes": rows.shape[0],
                "feature_dim": rows.shape[1],
                "margin_min_lower": lower,
                "margin_min_upper": upper,
                "mean_margin_min_lower": mean_lower,
                "mean_margin_min_upper": mean_upper,
                "max_cosine": max_cosine(unit_rows),
                "gnc3_uncentred": float((1 - (unit_rows[present] * unit(means[present])).sum(1)).mean()),
            }
        )
    if not facts:
        raise StudyError(f'SOURCE must hold kept heads, got {results!r} without any. Run with keep = "head".')
    return facts
