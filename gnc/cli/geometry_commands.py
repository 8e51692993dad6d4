"""`gnc margins` and `gnc code`: the margins of any classifier, and the best margins known.

PyTorch takes seconds to load, so what needs it is imported inside the functions that compute. Knows gnc_models; does not
know studies, trials or Ray.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnc.cli.output import fact_lines, show, shown
from gnc.cli.parser import Commands, add_command, add_json, require
from gnc_models.references.margin import margin_score, random_margin, reference_margin, unconstrained_optimum
from gnc_models.references.tables import NO_OPTIMA
from study.design.errors import StudyError

if TYPE_CHECKING:
    from torch import Tensor

    from gnc_models.geometry.margins import Margins

MOST_CLASSES = 10_000_000  # the bounds take more than a minute there, and far longer above it
LARGEST_CODE = 5_000_000  # coordinates; above that even explicit constructions take minutes
MOST_STARTED = 1_000_000_000  # coordinates of all starts of a search, which are in memory together: 8 GB


def add_margins_parser(commands: Commands) -> None:
    example = "gnc margins model.safetensors --tensor lm_head.weight --mode min"
    parser = add_command(commands, command_margins, example, add_json)
    parser.add_argument("file", help="the weights: .npy, .npz, .pt or .safetensors; code in a pickle is never run")
    parser.add_argument("--tensor", metavar="NAME", help="the matrix to use, where the file holds several")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative gap of the bounds; default: 1e-6")
    parser.add_argument("--mode", choices=("all", "min"), default="all", help="every class, or the smallest margin")
    parser.add_argument("--raw", action="store_true", help="use the rows as they are, not scaled to unit length")
    parser.add_argument("--per-class", action="store_true", help="print a line for every class")
    parser.add_argument("--top", type=int, metavar="N", help="print a line for the N classes with the smallest margins")


def command_margins(options: argparse.Namespace) -> int:
    """Measure the certified one-vs-rest margins of any classifier."""
    require(0 < options.tolerance < 1, f"--tolerance must be between 0 and 1, got {options.tolerance!r}.")
    require(options.top is None or options.top >= 1, f"--top must be at least 1, got {options.top}.")
    import torch

    from gnc.cli.tensor_files import check_finite, read_matrix
    from gnc_models.geometry.margins import margins_of_directions, one_vs_rest_margins
    from gnc_models.geometry.pairwise import row_norms

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
    classes = _class_facts(margins, row_norms(rows), len(rows) if options.per_class else options.top or 0)
    found = facts | ({"classes": classes} if classes else {})
    show(options, found, [*fact_lines(facts), *(_class_lines(classes) if classes else [])])
    return 0


def _margin_facts(margins: "Margins", rows: "Tensor", options: argparse.Namespace, seconds: float) -> dict[str, Any]:
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
    if not options.raw:
        facts |= _references(num_classes, feature_dim)
        score = float(margin_score(lower, facts["random_margin"], facts["reference_margin_lower"]))
        facts["margin_score"] = None if math.isnan(score) else score
    return facts


def _class_facts(margins: "Margins", norms: "Tensor", top: int) -> list[dict[str, Any]]:
    """Classes with the smallest margins first; in mode min, classes that were not certified keep a wide interval."""
    order = margins.upper.argsort(stable=True).tolist()[:top]
    values = (margins.lower.tolist(), margins.upper.tolist(), norms.tolist(), margins.support)
    return [
        dict(zip(("class", "lower", "upper", "norm", "support"), (k, *(v[k] for v in values)), strict=True))
        for k in order
    ]


def _class_lines(classes: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'class':>8}  {'lower':>17}  {'upper':>17}  {'norm':>10}  support"
    for one in classes:
        bounds = f"{shown('lower', one['lower']):>17}  {shown('upper', one['upper']):>17}"
        yield f"{one['class']:>8}  {bounds}  {one['norm']:>10.4g}  {' '.join(map(str, one['support']))}"


def _references(num_classes: int, feature_dim: int) -> dict[str, Any]:
    """What a margin of unit rows is compared with."""
    best = reference_margin(num_classes, feature_dim)
    return {
        "reference_margin_lower": best.lower,
        "reference_margin_upper": best.upper,
        "reference_source": best.source,
        "random_margin": random_margin(num_classes, feature_dim),
    }


def add_code_parser(commands: Commands) -> None:
    parser = add_command(commands, command_code, "gnc code --classes 24 --dim 3 --temperature 0.1", add_json)
    parser.add_argument("--classes", type=int, required=True, metavar="K", help="number of classes")
    parser.add_argument("--dim", type=int, required=True, metavar="D", help="number of feature dimensions")
    parser.add_argument("--temperature", type=float, metavar="T", help="optimum of unconstrained features at T instead")
    parser.add_argument("--optimise", action="store_true", help="search for a code even where one is known")
    parser.add_argument("--starts", type=int, default=16, metavar="N", help="random starts of a search; default: 16")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random starts; default: 0")
    parser.add_argument(
        "--results", metavar="FOLDER", help="store a computed optimum there, and compare its rows with it"
    )
    parser.add_argument("--output", metavar="FILE.npy", help="write the coordinates of the code into this file")


def command_code(options: argparse.Namespace) -> int:
    """Print the margin of the best code known for K classes in D dimensions, or search for a code."""
    _check_code_options(options)
    size = {"num_classes": options.classes, "feature_dim": options.dim}
    facts: dict[str, Any] = size | _references(**size)
    points = None
    if options.temperature is not None:
        points = _add_optimum(facts, options)
    elif options.optimise or options.output:
        points = _add_code(facts, options)
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
        require(value >= least, f"--{name} must be at least {least}, got {value}.")
    is_code = options.optimise or options.output or options.temperature is not None
    require(options.dim >= 2 or not is_code, f"--dim must be at least 2 for a code or an optimum, got {options.dim}.")
    require(options.classes <= MOST_CLASSES, f"--classes must be at most {MOST_CLASSES:,}, got {options.classes}.")
    require(0 <= options.seed < 1 << 63, f"--seed must be at least 0 and below 2^63, got {options.seed}.")
    is_possible = options.temperature is None or 0 < options.temperature < math.inf
    require(is_possible, f"--temperature must be greater than 0 and finite, got {options.temperature!r}.")
    if options.output:
        path = Path(options.output)
        require(path.parent.is_dir(), f"--output must lie in a folder that exists, got {options.output!r}.")
        require(not path.is_dir(), f"--output must name a file, got the folder {options.output!r}.")


def _add_code(facts: dict[str, Any], options: argparse.Namespace) -> "Tensor":
    """Coordinates of an explicit code where one is known, else of the best code that a search finds."""
    from gnc_models.codes.best_code import explicit_code, optimise_code
    from gnc_models.geometry.pairwise import max_cosine

    if options.classes * options.dim > LARGEST_CODE:
        raise StudyError(
            f"--classes times --dim must be at most {LARGEST_CODE:,} to build a code, "
            f"got {options.classes * options.dim:,}. Without --output and --optimise the reference alone is printed."
        )
    explicit = None if options.optimise else explicit_code(options.classes, options.dim)
    source = "explicit" if explicit else _search_words(options)
    code = explicit or optimise_code(options.classes, options.dim, starts=options.starts, seed=options.seed)
    facts |= {"code": source, "code_margin_lower": code.margin_lower, "code_max_cosine": max_cosine(code.points)}
    return code.points


def _search_words(options: argparse.Namespace) -> str:
    """The search in words; StudyError where its starts would not fit into memory."""
    size = options.starts * options.classes * options.dim
    rule = f"--starts times --classes times --dim must be at most {MOST_STARTED:,} for a search, got {size:,}."
    require(size <= MOST_STARTED, rule)
    return f"optimised from {options.starts} starts, seed {options.seed}"


def _add_optimum(facts: dict[str, Any], options: argparse.Namespace) -> "Tensor | None":
    """The optimum of the unconstrained-feature model: from a table, or optimised where none or coordinates are needed.

    A computed optimum is stored in the folder of --results, whose rows are compared with it from then on.
    """
    own = NO_OPTIMA
    if options.results:
        # Arrow is slow to load, and most calls name no folder
        from study.store.optima import read_optima, write_optimum
        from study.store.store import open_store

        store = open_store(options.results)
        store.check_results_folder()
        own = read_optima(store.storage)
    tabulated = unconstrained_optimum(options.classes, options.dim, options.temperature, own)
    optimum: Any = tabulated
    points = None
    if tabulated is None or options.optimise or options.output:
        source = _search_words(options)
        from gnc_models.codes.unconstrained_features import optimise_unconstrained

        size = (options.classes, options.dim, options.temperature)
        optimum = optimise_unconstrained(*size, starts=options.starts, seed=options.seed)
        points = optimum.weights
        margins = (optimum.margin, optimum.margin_low, optimum.margin_high)
        if options.results:
            write_optimum(store.storage, *map(float, (*size, optimum.loss, *margins, options.starts, options.seed)))
            facts["ufm_kept_in"] = options.results
    facts |= {"temperature": options.temperature}
    facts |= {f"ufm_{name}": getattr(optimum, name) for name in ("loss", "margin", "margin_low", "margin_high")}
    facts["ufm_source"] = optimum.source if points is None else source
    return points
