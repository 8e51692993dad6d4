"""`gnc measure`: collapse metrics of features in a file, or the geometry of the heads kept in a results folder.

PyTorch takes seconds to load, so what needs it is imported inside the functions that compute. Knows gnc_models and the
store; does not know trials or Ray.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnc.cli.opening import existing_store
from gnc.cli.output import fact_lines, show
from gnc.cli.parser import Commands, add_command, add_json, require
from study.design.columns import columns_with
from study.design.errors import StudyError
from study.store.store import open_store

if TYPE_CHECKING:
    from torch import Tensor

KNOWN = {"features", "labels", "weights", "test_features", "test_labels"}
LARGEST_FEATURE = 1e100  # up to here squares and their sums over a file stay finite, and those of the inverse


def add_measure_parser(commands: Commands) -> None:
    parser = add_command(commands, command_measure, "gnc measure features.npz --temperature 0.05", add_json)
    source = "a file with the arrays features, labels and perhaps weights; or a results folder"
    parser.add_argument("source", metavar="FEATURES.npz|RESULTS", help=source)
    scaled = "what the classifier scales to unit length; default: both"
    choices = ("both", "features", "weights", "none")
    parser.add_argument("--normalization", choices=choices, default="both", help=scaled)
    parser.add_argument("--temperature", type=float, default=1.0, help="what the logits are divided by; default: 1")


def command_measure(options: argparse.Namespace) -> int:
    """Measure the collapse of features in a file, or the classifiers kept in a results folder."""
    is_file = Path(options.source).suffix == ".npz"
    facts = [_measure_file(options)] if is_file else _measure_heads(options.source)
    show(options, facts[0] if is_file else facts, ["\n\n".join("\n".join(fact_lines(one)) for one in facts)])
    return 0


def _measure_file(options: argparse.Namespace) -> dict[str, Any]:
    is_possible = 0 < options.temperature < math.inf
    require(is_possible, f"--temperature must be greater than 0 and finite, got {options.temperature!r}.")
    import torch

    from gnc.cli.tensor_files import array_names, read_tensors
    from gnc_models.metrics.collapse import measure_collapse

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
        values |= {name: None for name in columns_with("rows") if name in values}  # features alone do not tell them
    return {"num_classes": num_classes, "feature_dim": features.shape[1], **values}


def _check_arrays(arrays: dict[str, "Tensor"]) -> None:
    """Names, kinds, shapes and sizes of what the file holds."""
    for name in ("features", "labels"):
        require(name in arrays, f"FILE must hold the array {name!r}, got {sorted(arrays)}.")
    for name in sorted({"labels", "test_labels"} & set(arrays)):
        values = arrays[name]
        is_exact = not (values.is_floating_point() or values.is_complex())
        rule = f"{name} must be integers of at least one sample, got {values.dtype} of {values.numel()}."
        require(is_exact and values.numel() > 0, rule)
    together = ("test_features" in arrays) == ("test_labels" in arrays)
    require(together, "test_features and test_labels must be in the file together or not at all, got one of them.")
    features, labels = arrays["features"], arrays["labels"]
    shapes = f"{tuple(features.shape)} and {tuple(labels.shape)}"
    is_matched = features.ndim == 2 and labels.shape == features.shape[:1]
    require(is_matched, f"features must be [samples, dim] and labels [samples], got {shapes}.")
    for name, rows in (("weights", "classes"), ("test_features", "samples")):
        given, dim = arrays.get(name, features), features.shape[1]
        rule = f"{name} must be [{rows}, {dim}] as the features are, got {tuple(given.shape)}."
        require(given.ndim == 2 and given.shape[1] == dim and len(given) > 0, rule)
    if "test_labels" in arrays:
        shape, tested = arrays["test_labels"].shape, arrays["test_features"].shape
        rule = f"test_labels must be one per row of test_features, got {tuple(shape)} and {tuple(tested)}."
        require(shape == tested[:1], rule)
    for name in sorted({"features", "weights", "test_features"} & set(arrays)):
        _check_size(name, arrays[name])


def _check_size(name: str, values: "Tensor") -> None:
    from gnc.cli.tensor_files import check_finite

    require(not values.is_complex(), f"{name} must be real, got {values.dtype}.")
    check_finite(values, name)
    largest, least = float(values.double().abs().max()), 1 / LARGEST_FEATURE
    rule = f"the largest of {name} must be between {least:g} and {LARGEST_FEATURE:g} in size, got {largest:g}."
    require(not largest or least <= largest <= LARGEST_FEATURE, f"{rule} Multiply all by one number.")


def _check_labels(labels: "Tensor", num_classes: int) -> None:
    least, most, cure = int(labels.min()), int(labels.max()), "Renumber the labels."
    require(least >= 0 and most < num_classes, f"labels must lie in 0..{num_classes - 1}, got {least}..{most}.")
    got = f"{num_classes:,} classes and {len(labels):,} samples"
    require(num_classes <= len(labels), f"every class must have samples, got {got}. {cure}")
    empty = (labels.bincount(minlength=num_classes) == 0).nonzero().flatten().tolist()
    require(not empty, f"every class must have samples, got none for class {(*empty, None)[0]}. {cure}")


def _measure_heads(results: str) -> list[dict[str, Any]]:
    import torch

    from gnc_models.geometry.margins import margins_of_directions
    from gnc_models.geometry.pairwise import max_cosine, unit
    from gnc_models.metrics.alignment import misalignment

    if Path(results).is_file() or not open_store(results).storage.exists():
        raise StudyError(f"SOURCE must be a .npz file or a results folder, got {results!r}.")
    store, facts = existing_store(results), []
    for key in store.head_keys():
        head = store.read_head(key)
        if head is None:
            continue
        rows, means = torch.from_numpy(head["weights"]).double(), torch.from_numpy(head["class_means"]).double()
        present = means.isfinite().all(1)  # a rare token may have had no context that counted
        lower, upper = margins_of_directions(rows).minimum
        mean_lower, mean_upper = margins_of_directions(means[present]).minimum
        facts.append(
            {
                "trial": key,
                "num_classes": rows.shape[0],
                "feature_dim": rows.shape[1],
                "margin_min_lower": lower,
                "margin_min_upper": upper,
                "mean_margin_min_lower": mean_lower,
                "mean_margin_min_upper": mean_upper,
                "max_cosine": max_cosine(unit(rows)),
                "gnc3_uncentred": misalignment(means[present], rows[present]),
            }
        )
    if not facts:
        raise StudyError(f'SOURCE must hold kept heads, got {results!r} without any. Run with keep = "head".')
    return facts
