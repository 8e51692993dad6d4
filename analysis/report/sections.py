"""The sections of the report's page in their order, its header and its provenance. Numbers come in, HTML goes out."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from analysis.figures.panels import Drawn, FigureBlock
from analysis.report import html as page
from analysis.report import provenance
from analysis.report import sentences as answer
from analysis.report.findings import Findings
from analysis.report.law_tables import blind_section, joint_sections, predictions_sections, time_sections
from analysis.report.power_law_tables import fits_sections, forms_sections
from analysis.report.trial_tables import (
    contrast_table,
    effects_table,
    explained_table,
    failed_table,
    ladder_table,
    trials_table,
)
from analysis.rows.frames import StudyFrame, varied_settings
from analysis.scaling.trends import Trend
from study.design.config import NUMBERS_VERSION
from study.store.schemas import SCHEMA_VERSION

PAPERS = (
    ("Jiang et al., Generalized Neural Collapse for a Large Number of Classes", "2310.05351"),
    ("Liu et al., Generalizing and Decoupling Neural Collapse via Hyperspherical Uniformity Gap", "2303.06484"),
)


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

    contrasts = [figured(f"contrast-{name}", contrast_table(found)) for name, found in findings.contrasts.items()]
    parts = [
        figured("codes"),
        figured("collapse"),
        figured("margin"),
        figured("phase"),
        figured("variability"),
        ("time", "Variability over time", tuple(time_sections(findings.time_laws))),
        figured("relations"),
        figured("effect-temperature", effects_table(frame.final, "temperature")),
        figured("effect-normalization", effects_table(frame.final, "normalization")),
        *contrasts,
        ("explained", "What explains the margin", (explained_table(frame.final),)),
        figured("classes"),
        figured("ladder", ladder_table(frame.final)),
        figured("pareto"),
        ("fits", "Power laws", (*fits_sections(findings.trends), *forms_sections(findings.comparisons))),
        ("joint", "All dimensions at once", tuple(joint_sections(findings.joint))),
        figured("prediction", *blind_section(findings.blind)),
        ("predictions", "Predictions asked for", tuple(predictions_sections(findings.predictions, findings.scores))),
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
from analysis.rows.frames import final_rows
final_rows(".")
"""
