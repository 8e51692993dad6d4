"""The sections of the report's page in their order, with its header and the section on provenance."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from analysis.figures.panels import Drawn, FigureBlock, render_panel
from analysis.report import provenance, sentences
from analysis.report.effect_tables import contrast_sections, explained_table, ladder_table
from analysis.report.findings import MOST_CONTRASTS, MOST_LEVELS, Findings
from analysis.report.law_tables import (
    fits_sections,
    forms_sections,
    joint_sections,
    largest_section,
    predictions_sections,
    time_sections,
)
from analysis.report.next_study import NextStudy
from analysis.report.page import (
    Code,
    Details,
    Figure,
    Heading,
    Lead,
    Leads,
    Link,
    Long,
    Number,
    Page,
    Paragraph,
    Part,
    Piece,
    Preformatted,
    Section,
    Table,
    note,
)
from analysis.report.trial_tables import distinction_parts, failed_table, rung_parts, trials_table
from analysis.rows.frames import StudyFrame, varied_settings
from study.design.config import NUMBERS_VERSION
from study.store.schemas import SCHEMA_VERSION

MOST_KEYS = 40
PAPERS = (
    ("Jiang et al., Generalized Neural Collapse for a Large Number of Classes", "2310.05351"),
    ("Liu et al., Generalizing and Decoupling Neural Collapse via Hyperspherical Uniformity Gap", "2303.06484"),
)


def make_page(
    frame: StudyFrame,
    findings: Findings,
    blocks: Sequence[FigureBlock],
    drawn: Mapping[str, Sequence[Drawn]],
    warned: Sequence[str],
    opened: NextStudy,
    command: str,
) -> Page:
    """The report as a page: question, answer and what carries it in view, everything else in sections that fold.

    Args:
        blocks: every figure, by its name a section. drawn: the panels of those that are not missing.
        warned: what a reader must know before comparing rows.
        opened: what cannot be told yet; command: what would settle it, empty where nothing would.
    """
    final_table, listed = trials_table(frame)
    by_name = {block.name: block for block in blocks}

    def figured(name: str, *more: Part) -> Section:
        block = by_name[name]
        shown = figure_parts(block, drawn[name], listed) if block.missing is None else [note(block.missing)]
        return Section(name, block.heading, [*shown, *more])

    effects = [figured(f"effect-{name}", *contrast_sections(found)) for name, found in findings.contrasts.items()]
    searched = [figured(name) for name in ("history", "parallel", "importance") if name in by_name]
    if searched:
        searched.append(Section("stopped", "Trials that were stopped", stopped_parts(frame, findings)))
    title = sentences.study_name(frame)
    return Page(
        f"{title}: generalized neural collapse",
        [
            *answer_parts(frame, findings, title),
            Leads(lead_panels(by_name)),
            *open_parts(opened, command),
            *caveat_parts(frame, warned),
        ],
        (
            *searched,
            figured("codes"),
            figured("collapse"),
            figured("margin"),
            figured("phase"),
            figured("variability"),
            Section("time", "Variability over time", time_sections(findings.time_laws)),
            *effects,
            *uncompared_section(findings),
            Section("explained", "What explains the margin", explained_table(findings.explained)),
            figured("classes"),
            figured("ladder", *ladder_table(findings.ladder)),
            figured("pareto"),
            Section("fits", "Power laws", [*fits_sections(findings.trends), *forms_sections(findings.comparisons)]),
            Section("joint", "All dimensions at once", joint_sections(findings.joint)),
            Section("prediction", "The largest class count held out", largest_section(findings.held_out_largest)),
            Section(
                "predictions", "Predictions asked for", predictions_sections(findings.predictions, findings.scores)
            ),
            Section("trials", "Trials", [*failed_table(frame), *final_table]),
            Section("provenance", "Provenance", provenance_parts(frame, warned)),
        ),
        footer(),
    )


# The figures that carry the answer, with what each shows; the first of each row that is not missing stands in its place.
LEADS = (
    (
        ("history", "The best value of the search so far (line) and each trial (dots)."),
        ("codes", "Learned rows (blue) and class means (orange) beside the best code known (rings)."),
        ("ladder", "From the best code known (diamonds) to the rows, the class means and the worst sample."),
    ),
    (
        ("importance", "How much each setting mattered."),
        ("margin", "The margin over the class count, between random rows (dotted) and the best code known (solid)."),
    ),
    (("collapse", "Within-class variability over training; a line that falls is collapse."),),
)


def lead_panels(by_name: Mapping[str, FigureBlock]) -> list[Lead]:
    """A panel of each of the three figures that carry the answer; fewer where they are missing."""
    found = []
    for choices in LEADS:
        for name, caption in choices:
            block = by_name.get(name)
            if block is not None and block.panels:
                found.append(Lead(name, render_panel(block.panels[block.lead], f"lead-{name}"), caption))
                break
    return found


NO_EFFECTS = (
    "No setting but the sizes takes two values between complete trials that share a seed and every other setting, so "
    "no values are compared."
)


def uncompared_section(findings: Findings) -> list[Section]:
    """Why settings have no figure of their effect; nothing where all have one."""
    told = [NO_EFFECTS] if not findings.contrasts and not findings.not_contrasted else []
    if findings.not_contrasted:
        names = ", ".join(f"{name} ({count} values)" for name, count in findings.not_contrasted.items())
        told.append(f"Not compared: {names}. {TOO_MANY}")
    return [Section("effects", "The effect of other settings", [note(" ".join(told))])] if told else []


TOO_MANY = (
    f"At most {MOST_CONTRASTS} settings of at most {MOST_LEVELS} values are compared here; gnc contrast compares any."
)


def figure_parts(block: FigureBlock, drawn: Sequence[Drawn], listed: frozenset[str]) -> list[Part]:
    """A figure, and the keys of its trials, each a link where the page lists the trial."""
    if not block.trials:
        return [Figure(block, drawn)]
    keys = [Link(key, f"trial-{key}" if key in listed else "") for key in block.trials[:MOST_KEYS]]
    spaced: list[str | Link] = [piece for key in keys for piece in (key, " ")][:-1]
    if len(block.trials) > MOST_KEYS:
        spaced.append(f" and {len(block.trials) - MOST_KEYS} more in the table")
    return [Figure(block, drawn), Details(f"Trial keys ({len(block.trials)})", (Paragraph(spaced, "keys"),))]


def answer_parts(frame: StudyFrame, findings: Findings, title: str) -> list[Part]:
    """Title, question, answer, and what was studied."""
    answer = sentences.sentences_answer(frame, findings)
    return [
        Paragraph("Generalized neural collapse, a scaling study", "over"),
        Heading(title, 1),
        Paragraph(sentences.question(frame), "question"),
        *(Paragraph(text, "answer") for text in answer),
        Paragraph(sentences.sentence_studied(frame), "studied"),
    ]


def open_parts(opened: NextStudy, command: str) -> list[Part]:
    """What cannot be told yet, the command that would settle it, and the page's words."""
    told: list[Piece] = [opened.unknown]
    told += [" To settle it: ", Code(command), ", whose file lies beside this page."] if command else []
    return [Paragraph(told, "open"), Details("Words used on this page", (Paragraph(WORDS),))]


def caveat_parts(frame: StudyFrame, warned: Sequence[str]) -> list[Part]:
    """What a reader must know before believing the page."""
    parts: list[Part] = []
    if frame.missing:
        left = f"{frame.missing} trials of the study have not been run or have not finished"
        parts.append(note(f"{left}; gnc run continues the study."))
    if frame.outside:
        parts.append(note(f"{frame.outside} trials in this folder belong to other studies and are not in this report."))
    unreadable = [unreadable_text(frame.unreadable)] if frame.unreadable else []
    return [*parts, *(Paragraph(text, "warning") for text in [*unreadable, *warned])]


def stopped_parts(frame: StudyFrame, findings: Findings) -> list[Part]:
    """What distinguishes the trials that were stopped, and the rungs of the scheduler."""
    rule = findings.search.scheduler
    if rule.name == "none":
        return [note("The study has no scheduler, so no trial was stopped early.")]
    parts: list[Part] = distinction_parts(findings.stopped) if findings.stopped else [note(NOT_STOPPED)]
    if findings.rungs:
        parts += rung_parts(findings.rungs, rule)
    elif rule.name == "median":
        parts.append(note("The median rule has no rungs: it looks at every measured epoch after the grace epochs."))
    return parts


NOT_STOPPED = "The scheduler has stopped no trial of settings that can be compared with a complete one."


WORDS = (
    "K is the number of classes, d the feature dimension. A cell is a group of trials that differ in the seed alone. A "
    "code is a set of unit vectors, one for each class. The margin of a class is the distance from its vector to the "
    "convex hull of all the others, and the minimum margin is the smallest of them; it is certified, that is, computed "
    "as an interval that holds the true value. The best code known is the one with the largest minimum margin that the "
    "tables hold. Unconstrained features (UFM) is the model in which every feature vector may be chosen freely. A trial "
    "is terminal from the epoch on at which it has reached 99 % training accuracy. GNC1, GNC2 and GNC3 are the three "
    "parts of generalized neural collapse: features of a class shrink to their mean, the minimum margin grows to its "
    "largest value, and class means align with classifier rows."
)


def unreadable_text(names: Sequence[str]) -> str:
    """The files that were skipped, by name."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    listed = ", ".join(names[:5]) + more
    return f"{files} could not be read and were skipped: {listed}. Running the study again replaces them."


def provenance_parts(frame: StudyFrame, warned: Sequence[str]) -> list[Part]:
    """Versions, machines, data, the study file, and how to get the rows."""
    parts: list[Part] = [Paragraph(text, "warning") for text in warned]
    origins = sorted(provenance.origins(frame.trials).items())
    rows = [(name, value if len(value) < 40 else Long(value), Number(count)) for (name, value), count in origins]
    versions = Table("Versions and machines", ("what", "value", "trials"), rows)
    parts.append(versions if rows else note("No trial recorded its versions or machine."))
    parts.append(Paragraph(versions_text(frame.final)))
    if data := provenance.data_origins(frame.trials):
        seen = [(Long(settings), digest, Number(count)) for (settings, digest), count in sorted(data.items())]
        table = Table("Data sets", ("data settings", "SHA-256 of the tensors", "trials"), seen)
        parts.append(Details(f"Data sets and their digests ({len(data)})", (table,), wide=True))
    if frame.study:
        parts.append(Details("The study file as run", (Preformatted(frame.study),)))
    return [*parts, Heading("Getting the rows"), Preformatted(ROWS_RECIPE)]


def versions_text(final: pa.Table) -> str:
    """Schema and numbers version, and which settings varied."""
    varied = ", ".join(varied_settings(final)) if final.num_rows else ""
    vary = f" Settings that vary among the complete trials: {varied}." if varied else ""
    return f"Schema version {SCHEMA_VERSION}, numbers version {NUMBERS_VERSION}.{vary}"


def footer() -> Paragraph:
    """What the measures mean, in the papers that defined them."""
    links: list[list[str | Link]] = [
        [f"{title}, ", Link(f"arXiv {number}", f"https://arxiv.org/abs/{number}"), "; "] for title, number in PAPERS
    ]
    papers = [piece for link in links for piece in link][:-1]
    certified = ". Margins are certified intervals; intervals of fits are 95 %, over class counts."
    return Paragraph(["Measures as defined in ", *papers, certified])


ROWS_RECIPE = """# one row per measured epoch of every trial; units are in the column metadata
import pandas, polars, duckdb
pandas.read_parquet("results.parquet")
polars.read_parquet("results.parquet")
duckdb.sql("select num_classes, margin_min_lower from 'results.parquet' where terminal")

# one row per complete trial, its last measurement
from analysis.rows.frames import final_rows
final_rows(".")
"""
