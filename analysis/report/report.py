"""`gnc report`: writes the page, its figures as files, fits and predictions as JSON and the next study into the folder
report/ of the results. Knows the rest of the analysis and how the store writes a report; computes nothing itself."""

import io
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from analysis.effects.search import search_of
from analysis.figures import classes, codes, search
from analysis.figures.collapse import block_collapse, block_variability
from analysis.figures.contrast import block_contrast
from analysis.figures.margin import block_margin
from analysis.figures.panels import FigureBlock, render, svg_file
from analysis.figures.phase import block_phase
from analysis.report import sentences, trial_tables
from analysis.report.findings import Findings, find
from analysis.report.fits_json import fits_json
from analysis.report.next_study import next_study
from analysis.report.page import Page
from analysis.report.sections import make_page, unreadable_text
from analysis.report.writers import to_html, to_markdown
from analysis.rows.frames import StudyFrame, final_rows, load_study, study_document
from analysis.rows.measures import VARIABILITY
from analysis.scaling import predictions
from analysis.scaling.predictions import Scores
from analysis.statistics.procrustes import unit_rows
from gnc_models.progress import amount, counted
from gnc_models.references.tables import best_code_points
from study.store.store import Store

PREDICTIONS, NEXT = "predictions.json", "next.toml"
# Columns read of every epoch, and of final rows; a study of a hundred thousand trials holds many more.
COURSES = ("num_classes", "step", "terminal", "loss_excess", *VARIABILITY, "margin_min_lower", "gnc3_uncentred")
MEASURES = (
    "step", "terminal", "stationary", "train_accuracy", "test_accuracy", *VARIABILITY, "gnc3_uncentred", "loss_excess",
    "margin_min_lower", "margin_min_upper", "mean_direction_margin_min", "sample_margin_min", "random_margin",
    "reference_margin_lower", "reference_margin_upper", "margin_ratio_upper", "ufm_margin_low",
    "ufm_margin_high",
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
    unknown: str
    command: str
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
        settled = f" To settle it: {self.command}" if self.command else ""
        lines = [self.studied, self.answer, f"{self.unknown}{settled}"]
        drawn = amount(len(self.figures), "figure") + (f" ({', '.join(self.figures)})" if self.figures else "")
        lines.append(f"{self.page}: {drawn}; {amount(self.fits, 'power law')} with intervals, {self.refused} refused")
        if self.predictions:
            made = amount(self.predictions, "prediction")
            lines.append(f"report/{PREDICTIONS}: {made}; gnc report --check scores them later")
        lines += [f"  no {name} figure: {sentence}" for name, sentence in self.missing.items()]
        return "\n".join([*lines, *self.warnings])


def write_report(
    store: Store, *, keys: Collection[str] | None = None, study: str | None = None,
    predict: Iterable[Mapping[str, Any]] = (), page_format: Format = "html",
) -> ReportSummary:  # fmt: skip
    """Write the page, its figures, fits.json and predictions.json into the results folder.
    Args:
        keys: the trials of the study; None reports on everything the folder holds.
        study: the text of the study file; None for the one that was run last.
        predict: cells to state predictions of, as settings by name.
    Raises:
        StudyError: the folder is no results folder.
        NothingToReport: it holds no finished trial that can be read."""
    text = study or store.latest_study()
    asked = search_of(text)
    objectives = {name.partition("[")[0] for name, _ in search.objectives_of(text)}
    courses = {*COURSES, *filter(None, [asked.scheduler.metric])}
    measures = {*MEASURES, *objectives, *asked.metrics}
    frame = load_study(store, keys=keys, study=study, courses=courses, measures=measures)
    if frame.trials.num_rows == 0:
        raise NothingToReport(_why_nothing(frame, store.uri))
    earlier = predictions.predictions_from_json(store.read_report(PREDICTIONS))
    findings = find(frame, predict=predict, earlier=earlier or ())
    unreadable = set(frame.unreadable)
    blocks = figure_blocks(frame, findings, store, unreadable.add)
    warned = trial_tables.warnings(frame.trials)
    if earlier is None:
        left = "cannot be read as predictions and was left as it is; none was scored or added"
        warned.append(f"report/{PREDICTIONS} {left}.")
    drawn = {b.name: render(b) for b in counted(blocks, "figures", len(blocks)) if b.missing is None}
    files: dict[str, bytes | None] = {"fits.json": fits_json(frame, findings)}
    files |= {f"figures/{b.name}.svg": svg_file(drawn[b.name], b.columns) for b in blocks if b.name in drawn}
    opened = next_study(frame, findings)
    files[NEXT] = None if opened.text is None else opened.text.encode()
    command = "" if opened.text is None else run_command(store.uri, opened.text)
    page = make_page(frame, findings, blocks, drawn, warned, opened, command)
    files[f"report.{page_format}"] = WRITERS[page_format](page).encode()
    if earlier is not None and (kept := predictions.kept_with(earlier, findings.predictions)):
        files[PREDICTIONS] = predictions.predictions_to_json(kept)
    store.write_report(files)
    return ReportSummary(
        trials=frame.trials.num_rows, complete=frame.final.num_rows, studied=sentences.sentence_studied(frame),
        answer="\n".join(sentences.sentences_answer(frame, findings)), unknown=opened.unknown, command=command,
        page=f"report/report.{page_format}", figures=tuple(b.name for b in blocks if b.missing is None),
        missing={b.name: b.missing for b in blocks if b.missing is not None},
        fits=sum(t.believed is not None for t in findings.trends),
        refused=sum(t.refused is not None for t in findings.trends),
        predictions=sum(p.refused is None for p in findings.predictions), unreadable=tuple(sorted(unreadable)),
        warnings=tuple(warned),
    )  # fmt: skip


def check_report(store: Store) -> Scores | None:
    """Score the predictions kept in the report against the rows there are now; None where they cannot be read."""
    earlier = predictions.predictions_from_json(store.read_report(PREDICTIONS))
    return None if earlier is None else predictions.score(earlier, final_rows(store))


def _why_nothing(frame: StudyFrame, uri: str) -> str:
    if frame.unreadable:
        return f"No trial in {uri} can be read, so no report was written. {unreadable_text(frame.unreadable)}"
    if frame.outside:
        others = f"--all reports on {amount(frame.outside, 'trial')} of other studies there"
        return f"No trial of the study in {uri} has finished, so no report was written; {others}."
    return f"No trial in {uri} has finished yet, so no report was written."


def figure_blocks(
    frame: StudyFrame, findings: Findings, store: Store, on_unreadable: Callable[[str], None]
) -> list[FigureBlock]:
    """Every figure of the report in its order, drawn or with the sentence that stands in for it."""
    final, searched, asked = frame.final, findings.searched, findings.search
    heads = partial(store.read_head, on_unreadable=on_unreadable)
    blocks = [search.block_history(searched), search.block_parallel(searched, asked)]
    blocks.append(search.block_importance(findings.importances, asked))
    return [
        *(blocks if asked.method != "grid" else ()),
        codes.block_codes(final, heads, partial(known_code, store), store.uri),
        block_collapse(frame.rows, final),
        block_margin(final, findings.comparisons, store.uri),
        block_phase(final),
        block_variability(final),
        *map(block_contrast, findings.contrasts.values()),
        classes.block_classes(final, partial(store.read_margins, on_unreadable=on_unreadable)),
        classes.block_ladder(final),
        search.block_pareto(final, frame.study),
    ]


def known_code(store: Store, num_classes: int, feature_dim: int) -> np.ndarray | None:
    """The rows of the best code [K, d]: from the tables, else as `gnc code` wrote them into the report's folder."""
    points = best_code_points(num_classes, feature_dim)
    kept = None if points is not None else store.read_report(codes.code_file(num_classes, feature_dim))
    try:
        found = points if kept is None else np.load(io.BytesIO(kept), allow_pickle=False)
    except (ValueError, EOFError):
        return None
    if found is None or found.shape != (num_classes, feature_dim) or not np.isfinite(found).all():
        return None
    return unit_rows(found.astype(float))


def run_command(uri: str, study: str) -> str:
    """What runs the proposed study into the folder that it was made for; a file in an object store is to be copied first."""
    allow = " --allow-code" * ("code" in study_document(study))  # of parts of one's own, whose code the folder holds
    return f"gnc run {NEXT if '://' in uri else f'{uri}/report/{NEXT}'} {uri}{allow}"
