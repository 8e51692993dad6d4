"""The report: one HTML file that opens with the answer, its figures as files, and the fits as JSON.

    report/report.html    report/figures/*.svg    report/fits.json

Knows every other module of analysis and the writing of reports by the store; does not compute anything itself.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from analysis import answer, page, provenance
from analysis.comparison import FormComparison, compare_all, comparison_to_json
from analysis.figures.classes import block_classes, block_ladder
from analysis.figures.codes import block_codes
from analysis.figures.collapse import block_collapse
from analysis.figures.effects import block_effect
from analysis.figures.margin import block_margin
from analysis.figures.prediction import block_prediction
from analysis.figures.svg import Drawn, FigureBlock, render, svg_file
from analysis.figures.variability import block_variability
from analysis.fit_tables import fits_sections, forms_sections
from analysis.frames import Readable, StudyFrame, load_study, varied_settings
from analysis.tables import effects_table, explained_table, failed_table, trials_table
from analysis.trends import Trend, fit_trends, trend_to_json
from study.config import NUMBERS_VERSION
from study.records import SCHEMA_VERSION

FITS_SCHEMA = 1
PAPERS = (
    ("Jiang et al., Generalized Neural Collapse for a Large Number of Classes", "2310.05351"),
    ("Liu et al., Generalizing and Decoupling Neural Collapse via Hyperspherical Uniformity Gap", "2303.06484"),
)


class Writable(Readable, Protocol):
    """A store that also keeps a report."""

    def write_report(self, files: dict[str, bytes]) -> None: ...


@dataclass(frozen=True)
class Findings:
    """What was fitted: the power laws asked of the study, and the forms compared."""

    trends: tuple[Trend, ...]
    comparisons: tuple[FormComparison, ...]


@dataclass(frozen=True)
class ReportSummary:
    """What was written: counts, the opening sentences, the figures drawn, and what is missing and why."""

    trials: int
    complete: int
    studied: str
    answer: str
    figures: tuple[str, ...]
    missing: dict[str, str]
    fits: int
    refused: int
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """What the command line prints."""
        lines = [self.studied, self.answer]
        drawn = f"{len(self.figures)} figures" + (f" ({', '.join(self.figures)})" if self.figures else "")
        lines.append(f"report/report.html: {drawn}; {self.fits} power laws with intervals, {self.refused} refused")
        lines += [f"  no {name} figure: {sentence}" for name, sentence in self.missing.items()]
        return "\n".join([*lines, *self.warnings])


def write_report(store: Writable, *, keys: Collection[str] | None = None) -> ReportSummary:
    """Write report.html, figures/*.svg and fits.json into the results folder.

    Args:
        store: an open results folder.
        keys: the trials of the latest study; None reports on everything the folder holds.
    Returns:
        What was written, for the command line to print.
    """
    frame = load_study(store, keys=keys)
    findings = Findings(tuple(fit_trends(frame.final, frame.rows)), tuple(compare_all(frame.final)))
    blocks = figure_blocks(frame, store, findings)
    warned = provenance.warnings(frame.trials)
    drawn = {block.name: render(block) for block in blocks if block.missing is None}
    columns = {block.name: block.columns for block in blocks}
    files = {f"figures/{name}.svg": svg_file(panels, columns[name]) for name, panels in drawn.items()}
    files["fits.json"] = fits_json(frame, findings)
    files["report.html"] = render_page(frame, findings, blocks, drawn, warned).encode()
    store.write_report(files)
    return ReportSummary(
        trials=frame.trials.num_rows,
        complete=frame.final.num_rows,
        studied=answer.sentence_studied(frame),
        answer=answer.sentences_answer(frame, findings.trends),
        figures=tuple(b.name for b in blocks if b.missing is None),
        missing={b.name: b.missing for b in blocks if b.missing is not None},
        fits=sum(t.believed is not None for t in findings.trends),
        refused=sum(t.refused is not None for t in findings.trends),
        unreadable=tuple(sorted({*frame.unreadable, *store.unreadable})),
        warnings=tuple(warned),
    )


def figure_blocks(frame: StudyFrame, store: Readable, findings: Findings) -> list[FigureBlock]:
    """Every figure of the report in its order, drawn or with the sentence that stands in for it."""
    final = frame.final
    return [
        block_codes(final, store),
        block_collapse(frame.rows, final),
        block_margin(final),
        block_variability(final),
        block_effect(final, "temperature"),
        block_effect(final, "normalization"),
        block_classes(final, store),
        block_ladder(final),
        block_prediction(findings.comparisons),
    ]


def fits_json(frame: StudyFrame, findings: Findings) -> bytes:
    """The trends with everything needed to use them without the page; sorted keys, so that it can be compared."""
    content: dict[str, Any] = {
        "fits_schema": FITS_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "numbers_version": NUMBERS_VERSION,
        "study": answer.study_name(frame),
        "complete_trials": frame.final.num_rows,
        "trends": [trend_to_json(trend) for trend in findings.trends],
        "comparisons": [comparison_to_json(comparison) for comparison in findings.comparisons],
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()


def render_page(
    frame: StudyFrame,
    findings: Findings,
    blocks: Sequence[FigureBlock],
    drawn: Mapping[str, Sequence[Drawn]],
    warned: Sequence[str],
) -> str:
    """The HTML of the report."""
    shown, listed = trials_table(frame)
    by_name = {block.name: block for block in blocks}

    def figured(name: str, *more: str) -> tuple[str, str, tuple[str, ...]]:
        block = by_name[name]
        return name, block.heading, (page.figure(block, drawn.get(name, ()), listed), *more)

    parts = [
        figured("codes"),
        figured("collapse"),
        figured("margin"),
        figured("variability"),
        figured("effect-temperature", effects_table(frame.final, "temperature")),
        figured("effect-normalization", effects_table(frame.final, "normalization")),
        ("explained", "What explains the margin", (explained_table(frame.final),)),
        figured("classes"),
        figured("ladder"),
        ("fits", "Power laws", (*fits_sections(findings.trends), *forms_sections(findings.comparisons))),
        figured("prediction"),
        ("trials", "Trials", (failed_table(frame), shown)),
        ("provenance", "Provenance", tuple(provenance_parts(frame, warned))),
    ]
    title = answer.study_name(frame)
    return page.document(
        f"{title}: generalized neural collapse",
        header(frame, findings.trends, title, warned),
        [(name, heading) for name, heading, _ in parts],
        [page.section(name, heading, *body) for name, heading, body in parts],
        footer(),
    )


def header(frame: StudyFrame, trends: Sequence[Trend], title: str, warned: Sequence[str]) -> str:
    """Title, what was studied, the answer, and what a reader must know before believing it."""
    parts = [
        page.paragraph("Generalized neural collapse, a scaling study", "over"),
        f"<h1>{page.escape(title)}</h1>",
        page.paragraph(answer.sentence_studied(frame), "studied"),
        page.paragraph(answer.sentences_answer(frame, trends), "answer"),
    ]
    if frame.missing:
        parts.append(
            page.note(f"{frame.missing} trials of the study have not been run or have not finished; gnc run continues.")
        )
    if frame.outside:
        parts.append(
            page.note(f"{frame.outside} trials in this folder belong to other studies and are not in this report.")
        )
    if frame.unreadable:
        parts.append(page.note(unreadable_text(frame.unreadable), warning=True))
    parts += [page.note(text, warning=True) for text in warned]
    return "\n".join(parts)


def unreadable_text(names: Sequence[str]) -> str:
    """The fragments that were skipped, by name."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    listed = ", ".join(names[:5]) + more
    return f"{len(names)} files could not be read and were skipped: {listed}. Running the study again replaces them."


def provenance_parts(frame: StudyFrame, warned: Sequence[str]) -> list[str]:
    """Versions, machines, data, the study file, and how to get the rows."""
    parts = [page.note(text, warning=True) for text in warned]
    origins = provenance.origins(frame.trials)
    rows = [(o.name, o.value if len(o.value) < 40 else page.Long(o.value), page.Number(str(o.trials))) for o in origins]
    if rows:
        parts.append(page.table("Versions and machines", ("what", "value", "trials"), rows))
    else:
        parts.append(page.note("No trial recorded its versions or machine."))
    parts.append(page.paragraph(versions_text(frame.final)))
    data = [
        (page.Long(d.settings), d.digest, page.Number(str(d.trials))) for d in provenance.data_origins(frame.trials)
    ]
    if data:
        body = page.table("Data sets", ("data settings", "SHA-256 of the tensors", "trials"), data)
        parts.append(page.details(f"Data sets and their digests ({len(data)})", body, wide=True))
    if frame.study:
        parts.append(page.details("The study file as run", page.preformatted(frame.study)))
    return [*parts, "<h3>Getting the rows</h3>", page.preformatted(ROWS_RECIPE)]


def versions_text(final: pa.Table) -> str:
    """Schema and numbers version, and which settings varied."""
    varied = ", ".join(varied_settings(final)) if final.num_rows else ""
    vary = f" Settings that vary among the complete trials: {varied}." if varied else ""
    return f"Schema version {SCHEMA_VERSION}, numbers version {NUMBERS_VERSION}.{vary}"


def footer() -> str:
    """What the measures mean, in the papers that defined them."""
    links = "; ".join(
        f'{page.escape(title)}, <a href="https://arxiv.org/abs/{number_}">arXiv {number_}</a>'
        for title, number_ in PAPERS
    )
    certified = "Margins are certified intervals; intervals of fits are 95 %, clustered by cell."
    return f"<p>Measures as defined in {links}. {certified}</p>"


ROWS_RECIPE = """# one row per measured epoch of every trial; units are in the column metadata
import pandas, polars, duckdb
pandas.read_parquet("results.parquet")
polars.read_parquet("results.parquet")
duckdb.sql("select num_classes, margin_min_lower from 'results.parquet' where terminal")

# one row per complete trial, its last measurement
from analysis.frames import final_rows
final_rows(".")
"""
