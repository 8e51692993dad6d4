"""`gnc margins`: the margins of any classifier, what decides them, and what they are compared with. PyTorch takes seconds to
load, so what needs it is imported inside the functions that compute."""

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnc.cli.geometry_commands import reference_facts
from gnc.cli.output import MarginWatch, fact_lines, note_lines, show, shown
from gnc_models.progress import amount
from gnc_models.references.margin import margin_score, margin_score_bounds
from study.design.errors import StudyError, require, unreadable

if TYPE_CHECKING:
    from torch import Tensor

    from gnc_models.geometry.margins import Margins

SHOWN_GROUPS, SHOWN_MEMBERS, SHOWN_HUBS, LONGEST = 20, 12, 5, 24  # as text; JSON has all groups and whole names
QUANTILES = {"margin_q05": 0.05, "margin_q50": 0.5, "margin_q95": 0.95}


def command_margins(options: argparse.Namespace) -> int:
    """Measure the certified one-vs-rest margins of any classifier."""
    require(0 < options.tolerance < 1, f"--tolerance must be between 0 and 1, got {options.tolerance!r}.")
    require(options.top is None or options.top >= 1, f"--top must be at least 1, got {options.top}.")
    require(0 < options.near < 1, f"--near must be between 0 and 1, got {options.near!r}.")
    # Threads that spin while they wait take a third of the CPU time and make nothing quicker. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gnc.files.classifier import read_classifier
    from gnc.files.stored import check_finite

    classifier = read_classifier(options.file, options.tensor)
    rows = classifier.rows.double()
    check_finite(rows, "classifier rows")
    names = read_labels(options.labels, len(rows)) if options.labels else {}
    facts, tables = _measured(rows, options)
    facts = {"tensor": classifier.name} | facts
    tables["notes"] += classifier.notes
    tables["notes"] += [] if classifier.bias is None else ["its bias is left out: margins are of the rows"]
    if names:
        if unnamed := len(rows) - len(names):
            tables["notes"].append(f"{amount(unnamed, 'class', 'classes')} without a name in {options.labels}")
        mentioned = {k for name in ("duplicates", "near_duplicates") for group in tables[name] for k in group}
        mentioned |= {one["class"] for one in tables["largest_supports"]}
        mentioned |= {k for one in tables.get("classes", ()) for k in (one["class"], *one["support"])}
        tables["labels"] = {str(k): names[k] for k in sorted(mentioned) if k in names}
    lines = _lines(facts, tables, names, in_short=options.mode == "min")
    show(options, facts | tables, lines)
    return 1 if facts["interrupted"] else 0


def _measured(rows: "Tensor", options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts, and the tables below them: groups of duplicates, largest supports, classes, what was assumed."""
    import torch

    from gnc_models.geometry.duplicates import near_rows, same_rows, spread, welch_floor
    from gnc_models.geometry.margins import margins_of_directions, one_vs_rest_margins
    from gnc_models.geometry.pairwise import row_norms, unit

    started = time.monotonic()
    kept, zero = _without_zero(rows, options)
    same = [kept[group].tolist() for group in same_rows(rows[kept], directions=not (options.raw or options.centred))]
    repeated = {k for group in same for k in group[1:]}
    distinct = torch.tensor([k for k in kept.tolist() if k not in repeated], dtype=torch.int64)
    if options.distinct:
        kept = distinct
    require(len(kept) >= 2, f"FILE must hold at least 2 rows to compare, got {len(kept)} after the rows left out.")
    used = rows[kept] - rows[kept].mean(0) if options.centred else rows[kept]
    at_mean = kept[~used.any(1)].tolist()
    rule = (
        f"rows must not equal their mean with --centred, got row {(*at_mean, None)[0]}. Use --raw too, or leave it out."
    )
    require(options.raw or not at_mean, rule)
    margins = None
    with MarginWatch() as watch:
        if options.distinct or not same:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            of_rows = one_vs_rest_margins if options.raw else margins_of_directions
            margins = of_rows(used.to(device), tolerance=options.tolerance, mode=options.mode, progress=watch)
        turned = rows[distinct] - rows[kept].mean(0) if options.centred else rows[distinct]
        near = [] if watch.stopped else near_rows(unit(turned), cosine=options.near)
    facts: dict[str, Any] = {
        "num_classes": len(kept), "feature_dim": rows.shape[1], "rows_in_file": len(rows), "zero_rows": len(zero),
        "distinct_rows": len(distinct), "duplicate_groups": len(same),
        "near_groups": None if watch.stopped else len(near),
        **_margin_facts(margins, options, interrupted=watch.stopped), "seconds": round(time.monotonic() - started, 3),
        **(_score(margins, len(kept), rows.shape[1]) if not options.raw else {}),
        "mean_squared_cosine_times_dim": spread(rows[kept]),
        "centred_mean_squared_cosine_times_dim": spread(rows[kept] - rows[kept].mean(0)),
        "welch_floor": welch_floor(len(kept), rows.shape[1]),
    }  # fmt: skip
    top = len(rows) if options.per_class else options.top or 0
    classes = [] if margins is None else _class_facts(margins, row_norms(used), kept.tolist(), top)
    hubs = [] if margins is None else _hubs(margins, kept.tolist())
    near = [distinct[group].tolist() for group in near]
    notes = _notes(options, same, watch.stopped)
    tables = {"duplicates": same, "near_duplicates": near, "largest_supports": hubs, "notes": notes}
    return facts, tables | ({"classes": classes} if classes else {})


def _without_zero(rows: "Tensor", options: argparse.Namespace) -> tuple["Tensor", list[int]]:
    """The rows to measure, and the rows of zeros; StudyError where these have no direction and none are left out."""
    import torch

    is_zero = ~rows.any(1)
    zero = is_zero.nonzero()[:, 0].tolist()
    if zero and not (options.raw or options.leave_out_zero):
        rule = f"classifier rows must not be zero, got row {zero[0]}{f' and {len(zero) - 1} more' if zero[1:] else ''}"
        raise StudyError(f"{rule}. Use --leave-out-zero, or --raw for margins of rows as they are.")
    kept = (~is_zero).nonzero()[:, 0] if options.leave_out_zero else torch.arange(len(rows))
    require(len(kept) >= 2, f"FILE must hold at least 2 rows that are not zero, got {len(kept)}.")
    return kept, zero


def _notes(options: argparse.Namespace, same: list[list[int]], stopped: bool) -> list[str]:
    """What was assumed, and what the reader may take for more than it is."""
    length = "rows are as they are in the file" if options.raw else "rows are scaled to unit length"
    notes = [f"{length}{', less their mean (rounded to float64)' if options.centred else ''}"]
    if same and not options.distinct:
        lines = ", and no class has a line" if options.per_class or options.top else ""
        notes.append(f"exact duplicates decide the smallest margin{lines}; --distinct goes on with one row of each")
    return notes + (["interrupted: the bounds hold, and classes not certified have wide ones"] if stopped else [])


def _margin_facts(margins: "Margins | None", options: argparse.Namespace, *, interrupted: bool) -> dict[str, Any]:
    """Facts of the margins; without margins exact duplicates have decided that the smallest is 0."""
    lower, upper = (0.0, 0.0) if margins is None else margins.minimum
    facts: dict[str, Any] = {"margin_min_lower": lower, "margin_min_upper": upper}
    facts |= dict.fromkeys(("margin_mean", *QUANTILES, "classes_certified"))
    if margins is not None:
        middle = (margins.lower + margins.upper) / 2
        if options.mode == "all" and not interrupted:
            facts |= {"margin_mean": float(middle.mean())}
            facts |= {name: float(np.quantile(middle.cpu(), q)) for name, q in QUANTILES.items()}
        # the division by the rows' lengths widens intervals by less than this
        certified = margins.upper - margins.lower <= options.tolerance * margins.upper + 1e-12 * (not options.raw)
        facts["classes_certified"] = int(certified.sum())
    return facts | {"interrupted": interrupted, "tolerance": options.tolerance, "rounds": getattr(margins, "rounds", 0)}


def _score(margins: "Margins | None", num_classes: int, feature_dim: int) -> dict[str, Any]:
    """What a margin of unit rows is compared with."""
    facts = reference_facts(num_classes, feature_dim)
    lower, upper = (0.0, 0.0) if margins is None else margins.minimum
    best, null = facts["reference_margin_lower"], (facts["random_margin_lower"], facts["random_margin_upper"])
    scores = margin_score(lower, facts["random_margin"], best), *margin_score_bounds(lower, upper, null, best)
    names = "margin_score", "margin_score_lower", "margin_score_upper"
    known = (None if math.isnan(score) else float(score) for score in scores)
    return facts | dict(zip(names, known, strict=True))


def _class_facts(margins: "Margins", norms: "Tensor", kept: list[int], top: int) -> list[dict[str, Any]]:
    """Classes with the smallest margins first; in mode min, classes that were not certified keep a wide interval."""
    lower, upper, lengths = margins.lower.tolist(), margins.upper.tolist(), norms.tolist()
    first = margins.upper.argsort(stable=True).tolist()[:top]
    near = {k: [kept[j] for j in margins.support[k]] for k in first}
    ends = ((k, {"lower": lower[k], "upper": upper[k], "norm": lengths[k]}) for k in first)
    return [{"class": kept[k], **numbers, "support": near[k]} for k, numbers in ends]


def _hubs(margins: "Margins", kept: list[int]) -> list[dict[str, int]]:
    """The classes that carry the nearest hull points of most other classes."""
    members = margins.support_rows[margins.support_rows >= 0]
    counts = members.bincount(minlength=len(kept))
    first = counts.argsort(descending=True, stable=True)[:SHOWN_HUBS].tolist()
    return [{"class": kept[k], "supports": int(counts[k])} for k in first if int(counts[k])]


def _answer(facts: dict[str, Any]) -> str:
    """The smallest margin in words, beside what it could be."""
    ends = " to ".join(dict.fromkeys(shown(name, facts[name]) for name in ("margin_min_lower", "margin_min_upper")))
    told = f"The smallest margin of {facts['num_classes']:,} classes in {facts['feature_dim']} dimensions is {ends}."
    if "reference_margin_lower" not in facts:
        return told
    null = "" if facts["random_margin"] is None else f", random rows have {facts['random_margin']:.3g}"
    score = facts["margin_score"]
    part = "" if score is None or score < 0 else f"; that is {100 * score:.3g} % of the way between them"
    return f"{told} The best code known has {facts['reference_margin_lower']:.6g}{null}{part}."


def _lines(facts: dict[str, Any], tables: dict[str, Any], names: dict[int, str], *, in_short: bool) -> Iterator[str]:
    yield _answer(facts)
    yield from ["All facts: --json or --mode all."] if in_short else fact_lines(facts)
    yield from note_lines(tables["notes"])
    for title, groups in (("duplicates", tables["duplicates"]), ("near-duplicates", tables["near_duplicates"])):
        for group in groups[:SHOWN_GROUPS]:
            more = f" and {len(group) - SHOWN_MEMBERS} more" if len(group) > SHOWN_MEMBERS else ""
            yield f"{title} ({len(group)}): {', '.join(_named(k, names) for k in group[:SHOWN_MEMBERS])}{more}"
        if len(groups) > SHOWN_GROUPS:
            yield f"{title}: {amount(len(groups) - SHOWN_GROUPS, 'more group')}, all of them with --json"
    if tables["largest_supports"]:
        hubs = (f"{_named(one['class'], names)} ({one['supports']})" for one in tables["largest_supports"])
        yield f"largest supports, class (other classes whose nearest point it carries): {', '.join(hubs)}"
    if classes := tables.get("classes", []):
        yield f"{'class':>8}  {'lower':>17}  {'upper':>17}  {'norm':>10}  support"
    for one in classes:
        bounds = f"{shown('lower', one['lower']):>17}  {shown('upper', one['upper']):>17}"
        support = " ".join(_named(k, names) for k in one["support"])
        yield f"{_named(one['class'], names):>8}  {bounds}  {one['norm']:>10.4g}  {support}"


def _named(k: int, names: dict[int, str]) -> str:
    name = names.get(k)
    return str(k) if name is None else f"{k} {name if len(name) <= LONGEST else name[:LONGEST] + '...'!r}"


def read_labels(path: str, count: int) -> dict[int, str]:
    """Names of classes by their number: lines of text, a JSON list, or a JSON object of numbers to names or back."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable("--labels must name a readable file of UTF-8 text", path, error) from None
    try:
        found = json.loads(text, object_pairs_hook=tuple)  # an object's pairs, also where a name is there twice
    except (ValueError, RecursionError) as error:
        # a vocabulary's first line may be [PAD]
        torn = re.match(r'\s*[\[{]\s*["\[{\d]', text)
        require(not torn, f"--labels must be lines of text or JSON, got {path!r}, which is torn JSON: {error}.")
        found = None
    if not isinstance(found, tuple | list):
        found = text.removesuffix("\n").replace("\r\n", "\n").split("\n")
    pairs = list(enumerate(found)) if isinstance(found, list) else list(found)
    if isinstance(found, tuple) and all(type(value) is int for _, value in pairs):
        pairs = [(value, name) for name, value in pairs]
    is_numbered = all(str(k).lstrip("-").isdecimal() and len(str(k)) < 20 for k, _ in pairs)
    rule = f"--labels must map numbers to names or names to numbers, got another JSON object in {path!r}."
    require(is_numbered, rule)
    # ImageNet's index has lists of which the last is the name
    names = {int(k): str(value[-1] if isinstance(value, list) and value else value) for k, value in pairs}
    require(len(names) == len(pairs), f"--labels must give each number one name, got a number twice in {path!r}.")
    wrong = [k for k in names if not 0 <= k < count]
    require(
        not wrong, f"--labels must have at most one name per row ({count}), got a name for row {max(wrong, default=0)}."
    )
    return names
