"""`gnc margins` and `gnc code`: the margins of anyone's classifier, and the best that is known.

Knows gnc_models; does not know studies, trials or Ray.
"""

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc.cli.output import print_facts, print_json, shown
from gnc.cli.tensor_files import check_finite, read_matrix
from gnc_models.codes.best_code import explicit_code, optimise_code
from gnc_models.codes.unconstrained_features import optimise_unconstrained
from gnc_models.geometry.margins import Margins, margins_of_directions, one_vs_rest_margins
from gnc_models.geometry.pairwise import max_cosine, row_norms
from gnc_models.references.margin import random_margin, reference_margin, unconstrained_optimum
from gnc_models.references.tables import NO_OPTIMA
from study.design.errors import StudyError
from study.store.optima import read_optima, write_optimum
from study.store.storage import Storage

MOST_CLASSES = 10_000_000  # there the bounds take more than a minute, far above it they do not end
LARGEST_CODE = 5_000_000  # coordinates; above that even families that can be written down take minutes


def command_margins(options: argparse.Namespace) -> int:
    """Certified one-vs-rest margins of a classifier in a file, between random and best known."""
    if not 0 < options.tolerance < 1:
        raise StudyError(f"--tolerance must be between 0 and 1, got {options.tolerance!r}.")
    if options.top is not None and options.top < 1:
        raise StudyError(f"--top must be at least 1, got {options.top}.")
    rows = read_matrix(options.file, options.tensor).double()
    check_finite(rows, "classifier rows")
    zero = (~rows.any(1)).nonzero()
    if len(zero) and not options.raw:
        raise StudyError(
            f"classifier rows must not be zero, got row {int(zero[0])}. Use --raw for margins of rows as they are."
        )
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    of_rows = one_vs_rest_margins if options.raw else margins_of_directions
    margins = of_rows(rows.to(device), tolerance=options.tolerance, mode=options.mode)
    facts = _margin_facts(margins, rows, options, time.monotonic() - started)
    shown_classes = len(rows) if options.per_class else options.top or 0
    classes = _class_facts(margins, rows, shown_classes)
    if options.json:
        print_json(facts | ({"classes": classes} if classes else {}))
        return 0
    print_facts(facts)
    if classes:
        _print_classes(classes)
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


def _class_facts(margins: Margins, rows: Tensor, top: int) -> list[dict[str, Any]]:
    """The classes of smallest margin first; those never certified in mode min have the wide interval they had."""
    norms = row_norms(rows).tolist()
    lower, upper = margins.lower.tolist(), margins.upper.tolist()
    order = torch.argsort(margins.upper, stable=True).tolist()[:top]
    return [
        {"class": k, "lower": lower[k], "upper": upper[k], "norm": norms[k], "support": margins.support[k]}
        for k in order
    ]


def _print_classes(classes: list[dict[str, Any]]) -> None:
    print(f"{'class':>8}  {'lower':>17}  {'upper':>17}  {'norm':>10}  support")
    for one in classes:
        bounds = f"{shown('lower', one['lower']):>17}  {shown('upper', one['upper']):>17}"
        print(f"{one['class']:>8}  {bounds}  {one['norm']:>10.4g}  {' '.join(map(str, one['support']))}")


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
    if feature_dim < 2 and (options.optimise or options.output or options.temperature is not None):
        raise StudyError(f"--dim must be at least 2 for a code or an optimum, got {feature_dim}.")
    if num_classes > MOST_CLASSES:
        raise StudyError(f"--classes must be at most {MOST_CLASSES:,}, got {num_classes}.")
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
        # numpy would add the ending to the name of another
        with open(options.output, "wb") as file:
            np.save(file, points.double().numpy())
        facts["output"] = options.output
    (print_json if options.json else print_facts)(facts)
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
    """The unconstrained-feature model's optimum: from a table, else (or for its coordinates) optimised now.

    What is optimised is kept in the results folder that --results names, whose rows are compared with it from then on.
    """
    if not (options.temperature > 0 and math.isfinite(options.temperature)):
        raise StudyError(f"--temperature must be greater than 0 and finite, got {options.temperature!r}.")
    storage = Storage(options.results) if options.results else None
    own = read_optima(storage) if storage else NO_OPTIMA
    tabulated = unconstrained_optimum(options.classes, options.dim, options.temperature, own)
    optimum: Any = tabulated
    points = None
    if tabulated is None or options.optimise or options.output:
        optimum = optimise_unconstrained(
            options.classes, options.dim, options.temperature, starts=options.starts, seed=options.seed
        )
        points = optimum.weights
        size = (options.classes, options.dim, options.temperature)
        margins = (optimum.margin, optimum.margin_low, optimum.margin_high)
        if storage is not None:
            write_optimum(storage, *map(float, (*size, optimum.loss, *margins, options.starts, options.seed)))
            facts["ufm_kept_in"] = options.results
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
