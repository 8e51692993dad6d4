"""`gnc report`: writes a page that begins with the main result, its figures as files, and fits and predictions as JSON.

    report/report.html (or .md)    report/figures/*.svg    report/fits.json    report/predictions.json

Knows the rest of the analysis and how the store writes a report; computes nothing itself.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from analysis.figures.classes import block_classes, block_ladder
from analysis.figures.codes import block_codes
from analysis.figures.collapse import block_collapse
from analysis.figures.contrast import block_contrast
from analysis.figures.margin import block_margin
from analysis.figures.panels import FigureBlock, render, svg_file
from analysis.figures.pareto import block_pareto, objectives_of
from analysis.figures.phase import block_phase
from analysis.figures.prediction import block_prediction
from analysis.figures.relations import block_relations
from analysis.figures.variability import block_variability
from analysis.report import provenance, sentences
from analysis.report.findings import Findings, find
from analysis.report.fits_json import fits_json
from analysis.report.html import to_html
from analysis.report.law_tables import score_parts
from analysis.report.markdown import parts_to_markdown, to_markdown
from analysis.report.page import Page
from analysis.report.sections import make_page, unreadable_text
from analysis.rows.frames import StudyFrame, load_study
from analysis.rows.matched_time import VARIABILITY
from analysis.scaling import predictions
from analysis.scaling.predictions import Scores
from study.store.store import Store

PREDICTIONS = "predictions.json"
# Columns read of every epoch, and of final rows; a study of a hundred thousand trials holds many more.
COURSES = ("num_classes", "step", "terminal", "loss_excess", *VARIABILITY, "margin_min_lower", "gnc3_uncentred")
MEASURES = (
    "step", "terminal", "train_accuracy", "test_accuracy", *VARIABILITY, "gnc3_uncentred", "loss_excess",
    "margin_min_lower", "margin_min_upper", "mean_direction_margin_min", "sample_margin_min", "random_margin",
    "reference_margin_lower", "reference_margin_upper", "margin_ratio_upper", "ufm_margin",
)  # fmt: skip
Format = Literal["html", "md"]
WRITERS: dict[Format, Callable[[Page], str]] = {"html": to_html, "md": to_markdown}


class NothingToReport(ValueError):
    """The folder holds no trial that can be read; nothing was written."""


@dataclass(frozen=True)
class ReportSummary:
    """What was written: counts, the opening sentences, the figures drawn, and what is missing and why."""

    trials: int
    complete: int
    studied: str
    answer: str
    page: str
    figures: tuple[str, ...]
    missing: dict[str, str]
    fits: int
    refused: int
    predictions: int
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """What the command line prints."""
        lines = [self.studied, self.answer]
        drawn = f"{len(self.figures)} figures" + (f" ({', '.join(self.figures)})" if self.figures else "")
        lines.append(f"{self.page}: {drawn}; {self.fits} power laws with intervals, {self.refused} refused")
        if self.predictions:
            lines.append(f"report/{PREDICTIONS}: {self.predictions} predictions; gnc report --check scores them later")
        lines += [f"  no {name} figure: {sentence}" for name, sentence in self.missing.items()]
        return "\n".join([*lines, *self.warnings])


def write_report(
    store: Store,
    *,
    keys: Collection[str] | None = None,
    predict: Iterable[Mapping[str, Any]] = (),
    page_format: Format = "html",
) -> ReportSummary:
    """Write the page, its figures, fits.json and predictions.json into the results folder.

    Args:
        store: an open results folder.
        keys: the trials of the latest study; None reports on everything the folder holds.
        predict: cells to state predictions of, as settings by name.
        page_format: what the page is written as; the figures are SVG files.
    Returns:
        What was written, for the command line to print.
    Raises:
        StudyError: the folder is no results folder.
        NothingToReport: it holds no finished trial that can be read.
    """
    objectives = [name.partition("[")[0] for name, _ in objectives_of(store.latest_study())]
    frame = load_study(store, keys=keys, courses=COURSES, measures={*MEASURES, *objectives})
    if frame.trials.num_rows == 0:
        raise NothingToReport(_why_nothing(frame, store.uri))
    earlier = predictions.predictions_from_json(store.read_report(PREDICTIONS))
    findings = find(frame, predict=predict, earlier=earlier or ())
    unreadable = set(frame.unreadable)
    blocks = figure_blocks(frame, findings, store, unreadable.add)
    warned = provenance.warnings(frame.trials)
    if earlier is None:
        warned.append(
            f"report/{PREDICTIONS} cannot be read as predictions and was left as it is; none was scored or added."
        )
    drawn = {block.name: render(block) for block in blocks if block.missing is None}
    files = {"fits.json": fits_json(frame, findings)}
    files |= {f"figures/{b.name}.svg": svg_file(drawn[b.name], b.columns) for b in blocks if b.name in drawn}
    page = make_page(frame, findings, blocks, drawn, warned)
    files[f"report.{page_format}"] = WRITERS[page_format](page).encode()
    if earlier is not None and (kept := predictions.kept_with(earlier, findings.predictions)):
        files[PREDICTIONS] = predictions.predictions_to_json(kept)
    store.write_report(files)
    return ReportSummary(
        trials=frame.trials.num_rows,
        complete=frame.final.num_rows,
        studied=sentences.sentence_studied(frame),
        answer=sentences.sentences_answer(frame, findings.trends),
        page=f"report/report.{page_format}",
        figures=tuple(b.name for b in blocks if b.missing is None),
        missing={b.name: b.missing for b in blocks if b.missing is not None},
        fits=sum(t.believed is not None for t in findings.trends),
        refused=sum(t.refused is not None for t in findings.trends),
        predictions=sum(p.refused is None for p in findings.predictions),
        unreadable=tuple(sorted(unreadable)),
        warnings=tuple(warned),
    )


def check_report(store: Store, *, keys: Collection[str] | None = None) -> Scores | None:
    """Score the predictions kept in the report against the rows there are now; None where they cannot be read."""
    earlier = predictions.predictions_from_json(store.read_report(PREDICTIONS))
    return None if earlier is None else predictions.score(earlier, load_study(store, keys=keys, courses=()).final)


def scores_text(scores: Scores) -> str:
    """The scores as Markdown, for the command line."""
    return parts_to_markdown(score_parts(scores))


def _why_nothing(frame: StudyFrame, uri: str) -> str:
    if frame.unreadable:
        return f"No trial in {uri} can be read, so no report was written. {unreadable_text(frame.unreadable)}"
    if frame.outside:
        return (
            f"No trial of the latest study in {uri} has finished, so no report was written; --all reports on the "
            f"{frame.outside} trials of other studies there."
        )
    return f"No trial in {uri} has finished yet, so no report was written."


def figure_blocks(
    frame: StudyFrame, findings: Findings, store: Store, on_unreadable: Callable[[str], None]
) -> list[FigureBlock]:
    """Every figure of the report in its order, drawn or with the sentence that stands in for it."""
    final = frame.final
    return [
        block_codes(final, partial(store.read_head, on_unreadable=on_unreadable)),
        block_collapse(frame.rows, final),
        block_margin(final, findings.comparisons),
        block_phase(final),
        block_variability(final),
        block_relations(final),
        *map(block_contrast, findings.contrasts.values()),
        block_classes(final, partial(store.read_margins, on_unreadable=on_unreadable)),
        block_ladder(final),
        block_pareto(final, frame.study),
        block_prediction(findings.comparisons),
    ]
