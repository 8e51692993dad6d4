"""The report: a page that opens with the answer, its figures as files, the fits and the predictions as JSON.

    report/report.html (or .md, .pdf)    report/figures/*.svg    report/fits.json    report/predictions.json

Knows every other module of analysis and the writing of reports by the store; does not compute anything itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from analysis.figures.classes import block_classes, block_ladder
from analysis.figures.codes import block_codes
from analysis.figures.collapse import block_collapse
from analysis.figures.contrast import block_contrast
from analysis.figures.effects import block_effect
from analysis.figures.files import figure_file
from analysis.figures.margin import block_margin
from analysis.figures.panels import Drawn, FigureBlock, render, svg_file
from analysis.figures.pareto import block_pareto, objectives_of
from analysis.figures.phase import block_phase
from analysis.figures.prediction import block_prediction
from analysis.figures.relations import block_relations
from analysis.figures.variability import block_variability
from analysis.report import provenance
from analysis.report import sentences as answer
from analysis.report.findings import Findings, find
from analysis.report.fits_json import fits_json
from analysis.report.markdown import to_markdown
from analysis.report.pdf import to_pdf
from analysis.report.sections import render_page
from analysis.rows.frames import Heads, Readable, StudyFrame, TellingHeads, load_study
from analysis.rows.matched_time import VARIABILITY
from analysis.scaling.predictions import (
    Prediction,
    Scores,
    kept_with,
    predictions_from_json,
    predictions_to_json,
    score,
)

PREDICTIONS = "predictions.json"
# Columns read of every epoch, and of final rows; a study of a hundred thousand trials holds many more.
COURSES = ("num_classes", "step", "terminal", "loss_excess", *VARIABILITY, "margin_min_lower", "gnc3_uncentred")
MEASURES = (
    "step", "terminal", "train_accuracy", "test_accuracy", *VARIABILITY, "gnc3_uncentred", "loss_excess",
    "margin_min_lower", "margin_min_upper", "mean_direction_margin_min", "sample_margin_min", "random_margin",
    "reference_margin_lower", "reference_margin_upper", "margin_ratio_upper", "ufm_margin",
)  # fmt: skip
Format = Literal["html", "md", "pdf"]
FORMATS: tuple[Format, ...] = ("html", "md", "pdf")


class Writable(Readable, Protocol):
    """A store that also keeps a report."""

    def write_report(self, files: dict[str, bytes]) -> None: ...

    def read_report(self, name: str) -> bytes | None: ...


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
    store: Writable,
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
        page_format: what the page is written as; figures are SVG files, with pdf they are PDF files too.
    Returns:
        What was written, for the command line to print.
    """
    frame = load_study(store, keys=keys, courses=COURSES, measures=measures_needed(store.latest_study()))
    earlier = predictions_from_json(store.read_report(PREDICTIONS))
    findings = find(frame, predict=predict, earlier=earlier or ())
    heads = TellingHeads(store, set())
    blocks = figure_blocks(frame, heads, findings)
    warned = provenance.warnings(frame.trials) + _lost_predictions(earlier)
    drawn = {block.name: render(block) for block in blocks if block.missing is None}
    files = {"fits.json": fits_json(frame, findings), **_figure_files(blocks, drawn, page_format)}
    html = render_page(frame, findings, blocks, drawn, warned)
    files[f"report.{page_format}"] = _in_format(html, blocks, page_format)
    if earlier is not None and (kept := kept_with(earlier, findings.predictions)):
        files[PREDICTIONS] = predictions_to_json(kept)
    store.write_report(files)
    return ReportSummary(
        trials=frame.trials.num_rows,
        complete=frame.final.num_rows,
        studied=answer.sentence_studied(frame),
        answer=answer.sentences_answer(frame, findings.trends),
        page=f"report/report.{page_format}",
        figures=tuple(b.name for b in blocks if b.missing is None),
        missing={b.name: b.missing for b in blocks if b.missing is not None},
        fits=sum(t.believed is not None for t in findings.trends),
        refused=sum(t.refused is not None for t in findings.trends),
        predictions=sum(p.refused is None for p in findings.predictions),
        unreadable=tuple(sorted({*frame.unreadable, *heads.told})),
        warnings=tuple(warned),
    )


def check_report(store: Writable, *, keys: Collection[str] | None = None) -> Scores | None:
    """Score the predictions kept in the report against the rows there are now; None where they cannot be read."""
    earlier = predictions_from_json(store.read_report(PREDICTIONS))
    return None if earlier is None else score(earlier, load_study(store, keys=keys, courses=()).final)


def _lost_predictions(earlier: Sequence[Prediction] | None) -> list[str]:
    if earlier is not None:
        return []
    return [f"report/{PREDICTIONS} cannot be read as predictions and was left as it is; none was scored or added."]


def measures_needed(study: str | None) -> set[str]:
    """The measurements that the report reads of final rows; the objectives of the study's search among them."""
    return {*MEASURES, *(name.partition("[")[0] for name, _ in objectives_of(study))}


def _figure_files(
    blocks: Sequence[FigureBlock], drawn: Mapping[str, Sequence[Drawn]], page_format: Format
) -> dict[str, bytes]:
    found = {}
    for block in blocks:
        if block.name in drawn:
            found[f"figures/{block.name}.svg"] = svg_file(drawn[block.name], block.columns)
        if block.name in drawn and page_format == "pdf":  # as long as all the rest: drawn again, fonts embedded
            found[f"figures/{block.name}.pdf"] = figure_file(block.name, block.panels, block.columns, ".pdf")
    return found


def _in_format(html: str, blocks: Sequence[FigureBlock], page_format: Format) -> bytes:
    if page_format == "html":
        return html.encode()
    text = to_markdown(html)
    return text.encode() if page_format == "md" else to_pdf(text, {b.name: b for b in blocks})


def figure_blocks(frame: StudyFrame, store: Heads, findings: Findings) -> list[FigureBlock]:
    """Every figure of the report in its order, drawn or with the sentence that stands in for it."""
    final = frame.final
    return [
        block_codes(final, store),
        block_collapse(frame.rows, final),
        block_margin(final, findings.comparisons),
        block_phase(final),
        block_variability(final),
        block_relations(final),
        block_effect(final, "temperature"),
        block_effect(final, "normalization"),
        *(block_contrast(found, name) for name, found in findings.contrasts.items()),
        block_classes(final, store),
        block_ladder(final),
        block_pareto(final, frame.study),
        block_prediction(findings.comparisons),
    ]
