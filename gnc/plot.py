"""The figures of the report from Python: `gnc.plot.margin(gnc.open_results("results/quickstart"))`, in matplotlib axes.

Each function takes the results or their folder, `where`, an expression as that of `--where` which selects final rows, and `ax`: axes of
your own to draw in, as many as the figure has panels. Without `ax` a figure of pyplot is made, as notebooks show it.
Each returns the axes, one for each panel, and raises a ValueError in one sentence where there is nothing to draw."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from matplotlib.axes import Axes

from analysis.effects.contrast import DEFAULT_MEASURES, contrasts
from analysis.effects.search import groups_of, importances, search_of
from analysis.figures import search
from analysis.figures.classes import block_classes, block_ladder
from analysis.figures.codes import block_codes
from analysis.figures.collapse import block_collapse, block_variability
from analysis.figures.contrast import block_contrast
from analysis.figures.margin import block_margin
from analysis.figures.panels import CAPTIONS, FigureBlock, side_by_side
from analysis.figures.phase import block_phase
from analysis.figures.style import use_style
from analysis.scaling.form_choice import compare_all
from gnc.results import Results, open_results
from study.design.errors import StudyError
from study.design.where import ConditionRefused, check_column, rows_where

Given = Axes | Sequence[Axes] | None


def _figure(name: str, make: Callable[[Results, pa.Table], FigureBlock]) -> Callable[..., list[Axes]]:
    def draw(results: Results | str | Path, *, where: str | None = None, ax: Given = None) -> list[Axes]:
        opened = _opened(results)
        return _draw(make(opened, _final(opened, where)), ax)

    draw.__doc__ = f"{CAPTIONS[name]['heading']}."
    return draw


codes = _figure("codes", lambda results, final: block_codes(final, results.store.read_head))
collapse = _figure("collapse", lambda results, final: block_collapse(results.rows(), final))
margin = _figure("margin", lambda _, final: block_margin(final, tuple(compare_all(final))))
phase = _figure("phase", lambda _, final: block_phase(final))
variability = _figure("variability", lambda _, final: block_variability(final))
classes = _figure("classes", lambda results, final: block_classes(final, results.store.read_margins))
ladder = _figure("ladder", lambda _, final: block_ladder(final))
pareto = _figure("pareto", lambda results, final: search.block_pareto(final, results.study))
history = _figure("history", lambda results, final: search.block_history(groups_of(final, search_of(results.study))))


def _parallel(results: Results, final: pa.Table) -> FigureBlock:
    asked = search_of(results.study)
    return search.block_parallel(groups_of(final, asked), asked)


def _importance(results: Results, final: pa.Table) -> FigureBlock:
    asked = search_of(results.study)
    return search.block_importance(list(importances(groups_of(final, asked), asked)), asked)


parallel = _figure("parallel", _parallel)
importance = _figure("importance", _importance)


def contrast(
    results: Results | str | Path, setting: str, measures: Sequence[str] = DEFAULT_MEASURES,
    *, where: str | None = None, ax: Given = None,
) -> list[Axes]:  # fmt: skip
    """The values of a setting beside each other, one panel for each measure."""
    final = _final(_opened(results), where)
    found = contrasts(final, check_column(final, setting), measures)
    if not found:
        rule = f"{setting} must vary between complete trials that share every other setting, got none. Run more."
        raise StudyError(rule)
    return _draw(block_contrast(found), ax)


def _opened(results: Results | str | Path) -> Results:
    return results if isinstance(results, Results) else open_results(results)


def _final(results: Results, where: str | None) -> pa.Table:
    final = results.final()
    if final.num_rows == 0:
        rule = f"results must hold a complete trial to draw, got none in {results.store.uri}. Run trials first."
        raise StudyError(rule)
    try:
        chosen = final if where is None else rows_where(final, where)
    except ConditionRefused as refused:
        raise ConditionRefused(str(refused).replace("--where", "where")) from None
    if chosen.num_rows == 0:
        raise StudyError(f"where must select at least one of {final.num_rows} complete trials, got {where!r}.")
    return chosen


def _draw(block: FigureBlock, ax: Given) -> list[Axes]:
    if block.missing is not None:
        raise StudyError(block.missing)
    with use_style():
        if ax is None:
            import matplotlib.pyplot as plt

            return side_by_side(block.panels, block.columns, plt.figure).axes
        given = [ax] if isinstance(ax, Axes) else list(ax)
        if len(given) != len(block.panels):
            cure = "Select with where=, or give as many axes."
            raise StudyError(f"ax must be axes for each of {len(block.panels)} panels, got {len(given)}. {cure}")
        for panel, own in zip(block.panels, given, strict=True):
            panel.draw(own)
        return given
