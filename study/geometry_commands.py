"""`gnc margins`, `gnc code`, `gnc measure`: the geometry of anyone's classifier, without a study.

Knows gnc_models and, for `measure RESULTS`, the store; does not know trials or Ray.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gnc_models.bounds import random_margin, reference_margin, unconstrained_optimum
from gnc_models.codes import explicit_code, max_cosine, optimise_code
from gnc_models.kept_optima import keep_optimum
from gnc_models.margins import Margins, one_vs_rest_margins
from gnc_models.metrics import measure_collapse
from gnc_models.unconstrained import optimise_unconstrained
from study.matrix_files import check_finite, read_matrix, read_tensors
from study.refusals import StudyError
from study.store import open_store

LARGEST_CODE = 5_000_000  # coordinates; above that even families that can be written down take minutes


def command_margins(options: argparse.Namespace) -> int:
    """Certified one-vs-rest margins of a classifier in a file, between random and best known."""
    if not 0 < options.tolerance < 1:
        raise StudyError(f"--tolerance must be between 0 and 1, got {options.tolerance!r}.")
    if options.top is not None and options.top < 1:
        raise StudyError(f"--top must be at least 1, got {options.top}.")
    rows = read_matrix(options.file, options.tensor)
    check_finite(rows, "classifier rows")
    norms = rows.double().norm(dim=1)
    if not options.raw:
        if bool((norms == 0).any()):
            zero = int((norms == 0).nonzero()[0])
            raise StudyError(
                f"classifier rows must not be zero, got row {zero}. Use --raw for margins of rows as they are."
            )
        rows = normalize(rows.double(), dim=1)
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    margins = one_vs_rest_margins(rows.to(device), tolerance=options.tolerance, mode=options.mode)
    facts = _margin_facts(margins, rows, options, time.monotonic() - started)
    if options.json:
        print(json.dumps(facts))
    else:
        _print_facts(facts)
    if options.per_class or options.top:
        _print_classes(margins, norms, None if options.per_class else options.top)
    return 0


def _margin_facts(margins: Margins, rows: Tensor, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    num_classes, feature_dim = rows.shape
    lower, upper = margins.minimum
    facts: dict[str, Any] = {
        "num_classes": num_classes,
        "feature_dim": feature_dim,
        "margin_min_lower": lower,
        "margin_min_upper": upper,
        "margin_mean": float((margins.lower + margins.upper).mean() / 2) if options.mode == "all" else None,
        "tolerance": options.tolerance,
        "rounds": margins.rounds,
        "seconds": round(seconds, 3),
    }
    return facts if options.raw else facts | _place(lower, num_classes, feature_dim)


def _place(margin: float, num_classes: int, feature_dim: int) -> dict[str, Any]:
    """Where a margin of unit rows lies between random rows and the best known code."""
    best, null = reference_margin(num_classes, feature_dim), random_margin(num_classes, feature_dim)
    score = (margin - null) / (best.lower - null) if null is not None and best.lower > null else None
    return {
        "reference_margin_lower": best.lower,
        "reference_margin_upper": best.upper,
        "reference_source": best.source,
        "random_margin": null,
        "margin_score": score,
    }


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = f"{value:.10g}" if isinstance(value, float) else "-" if value is None else value
        print(f"{name:<{width}}  {shown}")


def _print_classes(margins: Margins, norms: Tensor, top: int | None) -> None:
    """The classes of smallest margin first; those never certified in mode min have the wide interval they had."""
    lower, upper = margins.lower.cpu(), margins.upper.cpu()
    order = torch.argsort(upper, stable=True).tolist()[:top]
    print(f"{'class':>8}  {'lower':>14}  {'upper':>14}  {'norm':>10}  support")
    for k in order:
        support = " ".join(map(str, margins.support[k]))
        print(f"{k:>8}  {float(lower[k]):>14.10f}  {float(upper[k]):>14.10f}  {float(norms[k]):>10.4g}  {support}")


def command_code(options: argparse.Namespace) -> int:
    """The best reference known for (K, d), a code to go with it, and the optimum at a temperature."""
    num_classes, feature_dim = options.classes, options.dim
    for name, value, least in (
        ("--classes", num_classes, 2),
        ("--dim", feature_dim, 1),
        ("--starts", options.starts, 1),
    ):
        if value < least:
            raise StudyError(f"{name} must be at least {least}, got {value}.")
    if not 0 <= options.seed < 1 << 63:
        raise StudyError(f"--seed must be at least 0 and below 2^63, got {options.seed}.")
    facts: dict[str, Any] = {"num_classes": num_classes, "feature_dim": feature_dim}
    facts |= {k: v for k, v in _place(0.0, num_classes, feature_dim).items() if k != "margin_score"}
    points = None
    if options.temperature is not None:
        points = _add_optimum(facts, options)
    elif options.optimise or options.output:
        points = _add_code(facts, options)
    if options.output and points is not None:
        np.save(options.output, points.double().numpy())
        facts["output"] = options.output
    if options.json:
        print(json.dumps(facts))
    else:
        _print_facts(facts)
    return 0


def _add_code(facts: dict[str, Any], options: argparse.Namespace) -> Tensor:
    """Coordinates of an explicit code where one is known, else of the best found by optimising now."""
    if options.classes * options.dim > LARGEST_CODE:
        raise StudyError(
            f"--classes times --dim must be at most {LARGEST_CODE:,} to build a code, "
            f"got {options.classes * options.dim:,}. Without --output and --optimise the reference alone is printed."
        )
    explicit = None if options.optimise else explicit_code(options.classes, options.dim)
    code = explicit or optimise_code(options.classes, options.dim, starts=options.starts, seed=options.seed)
    facts |= {
        "code": "explicit" if explicit else f"optimised from {options.starts} starts, seed {options.seed}",
        "code_margin_lower": code.margin_lower,
        "code_max_cosine": max_cosine(code.points),
    }
    return code.points


def _add_optimum(facts: dict[str, Any], options: argparse.Namespace) -> Tensor | None:
    """The unconstrained-feature model's optimum: from table or cache, else (or for its coordinates) optimised now.

    What is optimised is kept in the user's cache, so that later seals of results compare with it.
    """
    if not (options.temperature > 0 and math.isfinite(options.temperature)):
        raise StudyError(f"--temperature must be greater than 0 and finite, got {options.temperature!r}.")
    tabulated = unconstrained_optimum(options.classes, options.dim, options.temperature)
    optimum: Any = tabulated
    points = None
    if tabulated is None or options.optimise or options.output:
        optimum = optimise_unconstrained(
            options.classes, options.dim, options.temperature, starts=options.starts, seed=options.seed
        )
        points = optimum.weights
        size = (options.classes, options.dim, options.temperature)
        margins = (optimum.margin, optimum.margin_low, optimum.margin_high)
        facts["ufm_kept"] = keep_optimum(*map(float, (*size, optimum.loss, *margins, options.starts, options.seed)))
    facts |= {
        "temperature": options.temperature,
        "ufm_loss": optimum.loss,
        "ufm_margin": optimum.margin,
        "ufm_margin_low": optimum.margin_low,
        "ufm_margin_high": optimum.margin_high,
        "ufm_source": optimum.source
        if points is None
        else f"optimised from {options.starts} starts, seed {options.seed}",
    }
    return points


def command_measure(options: argparse.Namespace) -> int:
    """Every collapse metric of features in a file, or the geometry of the heads kept in a results folder."""
    is_file = Path(options.source).suffix == ".npz"
    facts = [_measure_file(options)] if is_file else _measure_heads(options.source)
    if options.json:
        print(json.dumps(facts[0] if is_file else facts))
        return 0
    for index, one in enumerate(facts):
        print(end="\n" if index else "")
        _print_facts(one)
    return 0


# What cannot be told of features alone: all that speaks of classifier rows.
NEEDS_WEIGHTS = ("margin_", "hull_", "centred_", "weight_", "gnc3", "max_cosine", "mean_direction", "sample_margin",
                 "effective_temperature", "ncc_agreement", "active_classes", "input_correlation")  # fmt: skip


def _measure_file(options: argparse.Namespace) -> dict[str, Any]:
    arrays = read_tensors(options.source)
    for name in ("features", "labels"):
        if name not in arrays:
            raise StudyError(f"FILE must hold the array {name!r}, got {sorted(arrays)}.")
    if arrays["labels"].is_floating_point() or not len(arrays["labels"]):
        raise StudyError(f"labels must be integers of at least one sample, got {arrays['labels'].dtype} of "
                         f"{len(arrays['labels'])}.")  # fmt: skip
    features, labels = arrays["features"].double(), arrays["labels"].long()
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise StudyError(
            f"features must be [samples, dim] and labels [samples], got {tuple(features.shape)} and {tuple(labels.shape)}."
        )
    check_finite(features, "features")
    if "weights" in arrays and arrays["weights"].shape[1:] != features.shape[1:]:
        shape = tuple(arrays["weights"].shape)
        raise StudyError(f"weights must be [classes, {features.shape[1]}] as the features are, got {shape}.")
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
            test_features=arrays.get("test_features", features).double(),
            test_labels=arrays.get("test_labels", labels).long(),
        )
    except ValueError as error:
        raise StudyError(str(error)) from None
    values = dict(collapse.values)
    if "test_features" not in arrays:
        values["ncc_test_accuracy"] = None
    if "weights" not in arrays:
        values |= {name: None for name in values if name.startswith(NEEDS_WEIGHTS)}
    return {"num_classes": num_classes, "feature_dim": features.shape[1], **values}


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if bool((labels < 0).any()) or bool((labels >= num_classes).any()):
        raise StudyError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}.")
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
        lower, upper = one_vs_rest_margins(normalize(rows, dim=1)).minimum
        means = means[means.isfinite().all(1)]  # a rare token may have had no context that counted
        mean_lower, mean_upper = one_vs_rest_margins(normalize(means, dim=1)).minimum
        facts.append(
            {
                "trial": key,
                "num_classes": rows.shape[0],
                "feature_dim": rows.shape[1],
                "margin_min_lower": lower,
                "margin_min_upper": upper,
                "mean_margin_min_lower": mean_lower,
                "mean_margin_min_upper": mean_upper,
                "max_cosine": max_cosine(normalize(rows, dim=1)),
                "gnc3_uncentred": float((1 - (normalize(rows, dim=1) * normalize(means, dim=1)).sum(1)).mean()),
            }
        )
    if not facts:
        raise StudyError(f'SOURCE must hold kept heads, got {results!r} without any. Run with keep = "head".')
    return facts
