"""`gnc code`: the best margins known, and what else a margin is compared with; the geometry of the heads a folder keeps.
PyTorch takes seconds to load, so what needs it is imported inside the functions that compute."""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnc.cli.output import fact_lines, show
from gnc_models.codes.phases import unconstrained_optimum
from gnc_models.references.margin import MOST_CLASSES, random_margin_interval, reference_margin
from gnc_models.references.tables import NO_OPTIMA
from study.design.errors import StudyError, require

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_CODE = 5_000_000  # coordinates; above that even explicit constructions take minutes
MOST_STARTED = 1_000_000_000  # coordinates of all starts of a search, which are in memory together: 8 GB
SEARCH = "optimised from {} starts, seed {}"


def reference_facts(num_classes: int, feature_dim: int) -> dict[str, Any]:
    """What a margin of unit rows is compared with."""
    require(
        num_classes <= MOST_CLASSES, f"classes must be at most {MOST_CLASSES:,} for a reference, got {num_classes}."
    )
    best = reference_margin(num_classes, feature_dim)
    random = random_margin_interval(num_classes, feature_dim)
    facts: dict[str, Any] = {"reference_margin_lower": best.lower, "reference_margin_upper": best.upper}
    facts["reference_source"] = best.source
    ends = {"random_margin": "median", "random_margin_lower": "low", "random_margin_upper": "high"}
    return facts | {name: getattr(random, end, None) for name, end in ends.items()}


def command_code(options: argparse.Namespace) -> int:
    """Print the margin of the best code known for K classes in D dimensions, or search for a code."""
    _check_code_options(options)
    size = {"num_classes": options.classes, "feature_dim": options.dim}
    facts: dict[str, Any] = size | reference_facts(**size)
    points = None
    if options.temperature is not None:
        points = _add_optimum(facts, options)
    elif options.optimise or options.output:
        points = _add_code(facts, options)
    else:
        _check_no_search(options, "Add --optimise.")
    if options.output and points is not None:
        # numpy would append .npy to a name without it
        with open(options.output, "wb") as file:
            np.save(file, points.double().numpy())
        facts["output"] = options.output
    show(options, facts, fact_lines(facts))
    return 0


def _check_code_options(options: argparse.Namespace) -> None:
    for name, least in (("classes", 2), ("dim", 1), ("starts", 1)):
        value = getattr(options, name)
        require(value is None or value >= least, f"--{name} must be at least {least}, got {value}.")
    is_code = options.optimise or options.output or options.temperature is not None
    require(options.dim >= 2 or not is_code, f"--dim must be at least 2 for a code or an optimum, got {options.dim}.")
    require(options.classes <= MOST_CLASSES, f"--classes must be at most {MOST_CLASSES:,}, got {options.classes}.")
    require(0 <= (options.seed or 0) < 1 << 63, f"--seed must be at least 0 and below 2^63, got {options.seed}.")
    is_possible = options.temperature is None or 0 < options.temperature < math.inf
    require(is_possible, f"--temperature must be greater than 0 and finite, got {options.temperature!r}.")
    has_use = not options.results or options.temperature is not None
    require(has_use, f"--results must come with --temperature, got {options.results!r} alone.")
    if options.output is not None:
        path = Path(options.output)
        require(path.parent.is_dir(), f"--output must lie in a folder that exists, got {options.output!r}.")
        require(options.output and not path.is_dir(), f"--output must name a file, got {options.output!r}.")


def _add_code(facts: dict[str, Any], options: argparse.Namespace) -> "Tensor":
    """Coordinates of an explicit code where one is known, else of the best code that a search finds."""
    from gnc_models.codes.code import explicit_code
    from gnc_models.codes.search import optimise_code
    from gnc_models.geometry.pairwise import max_cosine

    size = options.classes * options.dim
    rule = f"--classes times --dim must be at most {LARGEST_CODE:,} to build a code, got {size:,}"
    require(size <= LARGEST_CODE, f"{rule}. Without --output and --optimise the reference alone is printed.")
    code, source = None if options.optimise else explicit_code(options.classes, options.dim), "explicit"
    if code is None:
        starts, seed = _effort(options)
        code = optimise_code(options.classes, options.dim, starts=starts, seed=seed)
        source = SEARCH.format(starts, seed)
    else:
        _check_no_search(options, "A code is known; --optimise searches for another.")
    facts |= {"code": source, "code_margin_lower": code.margin_lower, "code_max_cosine": max_cosine(code.points)}
    return code.points


def _effort(options: argparse.Namespace) -> tuple[int, int]:
    """Starts and seed of a search; StudyError where its starts would not fit into memory."""
    starts, seed = options.starts or 16, options.seed or 0
    size = starts * options.classes * options.dim
    rule = f"--starts times --classes times --dim must be at most {MOST_STARTED:,} for a search, got {size:,}."
    require(size <= MOST_STARTED, rule)
    return starts, seed


def _check_no_search(options: argparse.Namespace, cure: str) -> None:
    given = [f"--{name}" for name in ("starts", "seed") if getattr(options, name) is not None]
    require(not given, f"{' and '.join(given)} must come with a search, got none here. {cure}")


def _add_optimum(facts: dict[str, Any], options: argparse.Namespace) -> "Tensor | None":
    """The optimum of the unconstrained-feature model: a known one, or optimised (and stored) where there is none."""
    own = NO_OPTIMA
    if options.results:
        # Arrow is slow to load, and most calls name no folder
        from study.store.optima import read_optima, write_optimum
        from study.store.store import open_store

        store = open_store(options.results)
        store.check_results_folder()
        own = read_optima(store.storage)
    optimum: Any = unconstrained_optimum(options.classes, options.dim, options.temperature, own)
    points = getattr(optimum, "weights", None)
    if optimum is None or options.optimise or (options.output and points is None):
        from gnc_models.codes.unconstrained_features import optimise_unconstrained

        size = (options.classes, options.dim, options.temperature)
        starts, seed = _effort(options)
        source = SEARCH.format(starts, seed)
        optimum = replace(optimise_unconstrained(*size, starts=starts, seed=seed), source=source)
        points = optimum.weights
        margins = (optimum.margin, optimum.margin_low, optimum.margin_high)
        if options.results:
            effort = (starts, seed, optimum.found)
            write_optimum(store.storage, *map(float, (*size, optimum.loss, *margins, *effort)))
            facts["ufm_kept_in"] = options.results
    else:
        _check_no_search(options, "The optimum is known; --optimise searches for another.")
    facts |= {"temperature": options.temperature}
    shown = ("loss", "margin", "margin_low", "margin_high", "starts", "found")
    facts |= {f"ufm_{name}": getattr(optimum, name) for name in shown}
    facts["ufm_source"] = optimum.source
    return points


def measure_heads(results: str) -> list[dict[str, Any]]:
    """Margins and alignment of every kept head; StudyError where the folder keeps none."""
    import torch

    from gnc_models.geometry.margins import margins_of_directions
    from gnc_models.geometry.pairwise import max_cosine, unit
    from gnc_models.metrics.alignment import misalignment
    from study.store.store import existing_store, open_store

    is_other = Path(results).exists() and not Path(results).is_dir()
    if is_other or not open_store(results).storage.exists():
        raise StudyError(f"SOURCE must be a file of features or a results folder, got {results!r}.")
    store, facts = existing_store(results), []
    for key in store.head_keys():
        head = store.read_head(key)
        if head is None:
            continue
        rows, means = torch.from_numpy(head["weights"]).double(), torch.from_numpy(head["class_means"]).double()
        present = means.isfinite().all(1)  # a rare token may have had no context that counted
        found = {"trial": key, "num_classes": rows.shape[0], "feature_dim": rows.shape[1]}
        for name, points in (("margin_min", rows), ("mean_margin_min", means[present])):
            found[f"{name}_lower"], found[f"{name}_upper"] = margins_of_directions(points).minimum
        found["max_cosine"] = max_cosine(unit(rows))
        facts.append(found | {"gnc3_uncentred": misalignment(means[present], rows[present])})
    if not facts:
        raise StudyError(f'SOURCE must hold kept heads, got {results!r} without any. Run with keep = "head".')
    return facts
