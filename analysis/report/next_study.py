"""What these trials cannot tell, and a study file whose trials would, next.toml beside the report: the study as it was run
with the missing trials added, so that what is finished is not run again. Knows study files; runs nothing."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from analysis.report.findings import Findings
from analysis.report.sentences import COUNTS, listed, needed_sizes
from analysis.rows.frames import StudyFrame, gathered, groups, of_trials, study_document, usual_rows, values
from analysis.rows.measures import MARGIN
from analysis.rows.wording import words
from analysis.scaling.trends import AT_END, Trend
from analysis.statistics.inference import MIN_CELLS, MIN_SEEDS
from gnc_models.progress import amount
from study.design.config import TrialConfig
from study.design.errors import StudyError, make_config
from study.upkeep.best import toml_lines

MOST_CELLS = 24  # whose seeds are added in one go
MOST_SIZES = 12  # class counts that are added in one go
Point = tuple[dict[str, Any], tuple[int, ...]]  # every setting but the seed, and seeds


@dataclass(frozen=True)
class NextStudy:
    """unknown: what cannot be told, in a sentence. text: the study file that would settle it; None where none would."""

    unknown: str
    text: str | None = None


def next_study(frame: StudyFrame, findings: Findings) -> NextStudy:
    """The most pressing of what is open: unfinished trials, then class counts for a trend, then seeds for a verdict."""
    document = study_document(frame.study)
    if not document:
        return NextStudy("The folder holds no study file that can be read, so no next study is proposed.")
    if frame.missing:
        which = amount(frame.missing, "trial of the study has", "trials of the study have")
        return NextStudy(f"{which} not finished.", frame.study)
    known = set(frame.trials["trial"].to_pylist())
    refused = ""
    for what, points in _open_questions(frame.final, findings, document) if frame.final.num_rows else ():
        unknown = f"What cannot be told yet is {what}."
        new = [point for point in points if _keys(point) - known and _is_of(document, point)]
        text = _searched(document, new) if document.get("search") else _appended(str(frame.study), document, new)
        if new and text is not None:
            return NextStudy(unknown, text)
        refused = refused or f"{unknown} No trials of the settings in this study could be added to tell it."
    return NextStudy(refused or "Nothing that this report asks is left open by too few trials.")


def _is_of(document: Mapping[str, Any], point: Point) -> bool:
    """Whether what the study fixes and lists makes this point: a folder may hold trials of other studies."""
    sources = {name for name in point[0] if name.endswith("_source")}
    own = {name: point[0][name] for name in _listed(document) | sources | {"num_classes"} if name in point[0]}
    try:
        made = make_config({**document.get("fixed", {}), **own, "seed": 0})
    except StudyError:
        return False
    return made.key == make_config({**point[0], "seed": 0}).key


def _blocks(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    grid = document.get("grid", {})
    return grid if isinstance(grid, list) else [grid]


def _listed(document: Mapping[str, Any]) -> set[str]:
    """The settings that the study's grid lists and its search draws."""
    listed_names = {name for block in _blocks(document) for name in (*block, *block.get("zip", {}))}
    return (listed_names | set(document.get("search", {}))) - {"zip", "seed"}


def _keys(point: Point) -> set[str]:
    return {make_config({**point[0], "seed": seed}).key for seed in point[1]}


def _open_questions(
    final: pa.Table, findings: Findings, document: Mapping[str, Any]
) -> Iterator[tuple[str, list[Point]]]:
    """What is open, the most pressing first, each with the points that would tell it."""
    if findings.searched:
        best = [group.trials[group.best_index] for group in findings.searched if group.is_measured]
        points, have = _more_seeds(final, best, _new_seed(document)), set(final["trial"].to_pylist())
        if points := [point for point in points if not _keys(point) <= have]:
            seeds = f"that needs {MIN_SEEDS} seeds that had no part in the choice"
            yield f"whether the best settings were lucky: {seeds}", points
        return
    usual = usual_rows(final)
    pooled = [t for t in findings.trends if (t.measure, t.moment, list(t.where)) == (MARGIN, AT_END, ["feature_dim"])]
    if few := [t for t in pooled if t.refused and (t.fit.sizes if t.fit else 0) < MIN_CELLS]:
        at = f"at d = {listed([t.where['feature_dim'] for t in few])}"
        counts = f"{COUNTS[MIN_CELLS]} class counts with a margin above 0 at 99 % training accuracy"
        what = f"how the margin goes with the number of classes {at}: that needs {counts}"
        yield what, [point for t in few for point in _more_sizes(usual, t, MIN_CELLS)]
    for setting, contrasts in findings.contrasts.items():
        gaps = [level.difference for contrast in contrasts for level in contrast.levels if level.difference]
        if gaps and min(gap.seeds for gap in gaps) < MIN_SEEDS:
            what = f"whether the values of {words(setting)} differ by more than chance"
            keys = [key for contrast in contrasts for key in contrast.keys]
            yield f"{what}: a verdict needs {MIN_SEEDS} seeds", _more_seeds(final, keys)
    for t in pooled:
        if t.believed and (needed := needed_sizes(t.believed)) is not None and needed > t.believed.sizes:
            at = f"at d = {t.where['feature_dim']}: the interval of its exponent holds 0"
            wanted = min(needed, t.believed.sizes + MOST_SIZES)
            yield f"whether the margin changes with the number of classes {at}", _more_sizes(usual, t, wanted)


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in TrialConfig.model_fields if row[name] is not None and name != "seed"}


def _new_seed(document: Mapping[str, Any]) -> int:
    """The first seed above all that the study itself runs."""
    tables = [table for block in _blocks(document) for table in (block, block.get("zip", {}))]
    named = [seed for table in tables for seed in table.get("seed", ())]
    return int(max(named or [document.get("fixed", {}).get("seed", 0)])) + 1


def _more_seeds(final: pa.Table, trials: Collection[str], first: int = 0) -> list[Point]:
    """MIN_SEEDS seeds from the first on for the cells of these trials, at most MOST_CELLS of them."""
    mine = of_trials(final, trials)
    places = gathered((cell, place) for place, cell in enumerate(mine["cell"].to_pylist())).values()
    chosen = pa.array([several[0] for several in places][:MOST_CELLS], pa.int64())
    return [(_settings(row), tuple(range(first, first + MIN_SEEDS))) for row in mine.take(chosen).to_pylist()]


def _more_sizes(usual: pa.Table, trend: Trend, wanted: int) -> list[Point]:
    """Class counts between those there are, each with the settings and seeds of the nearest; fewer where refused."""
    by_size = groups(usual, ["feature_dim", "num_classes"])
    dim = trend.where["feature_dim"]
    cells = [(where["num_classes"], rows) for where, rows in by_size if where["feature_dim"] == dim]
    have = [k for k, rows in cells if values(rows, "terminal").any()]
    found: list[Point] = []
    # where no trial reached the terminal phase, others would not either
    for num_classes in between([k for k, _ in cells], wanted - len(have)) if have else ():
        nearest = min(cells, key=lambda cell: abs(math.log(cell[0] / num_classes)))[1]
        settings = _settings(nearest.slice(0, 1).to_pylist()[0]) | {"num_classes": num_classes}
        try:
            make_config({**settings, "seed": 0})
        except StudyError:
            continue
        found.append((settings, tuple(sorted(set(nearest["seed"].to_pylist())))))
    return found


def between(have: Sequence[int], count: int) -> list[int]:
    """So many whole numbers far from those there are, in the logarithm: between them, or around them where few fit."""
    taken, low, high = sorted(set(have)), min(have), max(have)
    while len(range(low, high + 1)) - len(taken) < count:
        low, high = max(2, low // 2), high + max(1, high // 4)
    free = [k for k in range(low, high + 1) if k not in taken]
    chosen: list[int] = []
    for _ in range(max(count, 0)):
        best = max(free, key=lambda k: min(abs(math.log(k / other)) for other in taken + chosen))
        chosen.append(best)
        free.remove(best)
    return sorted(chosen)


def _appended(study: str, document: Mapping[str, Any], points: Sequence[Point]) -> str | None:
    """The study's text with blocks of the grid for the points; None where its grid is written so that none fits on."""
    added = _grid(points, _listed(document))
    if not isinstance(document.get("grid"), list):
        study = "\n".join("[[grid]]" if line.split("#")[0].strip() == "[grid]" else line for line in study.split("\n"))
    text = "\n".join([study.rstrip("\n"), "", "# Added by gnc report", *_grid_lines(added)])
    is_right = study_document(text) == {**document, "grid": [*_blocks(document), *added]}
    return text if is_right else None


def _grid(points: Sequence[Point], names: set[str]) -> list[dict[str, Any]]:
    """Blocks of the grid with these settings: points that differ in the class count alone are one block."""
    found: dict[str, dict[str, Any]] = {}
    for settings, seeds in points:
        shared = {name: value for name, value in settings.items() if name != "num_classes"}
        own = {name: [value] for name, value in shared.items() if name in names}
        new = {"num_classes": [], **own, "seed": list(seeds)}
        found.setdefault(json.dumps([shared, seeds], sort_keys=True), new)["num_classes"].append(
            settings["num_classes"]
        )
    return list(found.values())


def _grid_lines(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [line for block in blocks for line in ("[[grid]]", *toml_lines(block), "")]


def _searched(document: Mapping[str, Any], points: Sequence[Point]) -> str | None:
    """A grid of the points of a search, with what the study fixes; None where parts have options of their own."""
    names, fixed = _listed(document), document.get("fixed", {})
    if any("." in name for name in names) or any(isinstance(value, dict) for value in fixed.values()):
        return None
    about = f"The best settings of {document['name']}, with seeds that had no part in the choice."
    head = {"name": f"{document['name']}-best", "description": about}
    tables = {name: document[name] for name in ("fixed", "resources", "code") if document.get(name)}
    lines = [line for name, table in tables.items() for line in ("", f"[{name}]", *toml_lines(table))]
    own = [{n: v for n, v in block.items() if n not in fixed} for block in _grid(points, names)]
    return "\n".join([*toml_lines(head), *lines, "", *_grid_lines(own)])
