"""The sections of the report's page in their order, with its header and the section on provenance."""

from collections.abc import Mapping, Sequence

from analysis.figures.panels import Drawn, FigureBlock, render_panel
from analysis.report import effect_tables, law_tables, page, sentences, trial_tables
from analysis.report.findings import MOST_CONTRASTS, MOST_LEVELS, Findings
from analysis.report.next_study import NextStudy
from analysis.report.page import TEXTS, Details, Figure, Heading, Link, Long, Number, Paragraph, Part, Section, note
from analysis.rows.frames import StudyFrame, varied_settings
from gnc_models.progress import amount
from study.design.config import NUMBERS_VERSION
from study.store.schemas import SCHEMA_VERSION

MOST_KEYS = 40


def make_page(
    frame: StudyFrame, findings: Findings, blocks: Sequence[FigureBlock], drawn: Mapping[str, Sequence[Drawn]],
    warned: Sequence[str], opened: NextStudy, command: str,
) -> page.Page:  # fmt: skip
    """The report as a page: question, answer and what carries it in view, everything else in sections that fold.
    Args:
        blocks: every figure, by its name a section. drawn: the panels of those that are not missing.
        warned: what a reader must know before comparing rows.
        opened: what cannot be told yet; command: what would settle it, empty where nothing would."""
    final_table, listed = trial_tables.trials_table(frame)
    by_name = {block.name: block for block in blocks}

    def figured(name: str, *more: Part) -> Section:
        block = by_name[name]
        total = frame.final.num_rows
        shown = figure_parts(block, drawn[name], listed, total) if block.missing is None else [note(block.missing)]
        return Section(name, block.heading, [*shown, *more])

    sections = [figured(name) for name in ("history", "parallel", "importance") if name in by_name]
    if sections:
        sections.append(Section("stopped", "Trials that were stopped", stopped_parts(frame, findings)))
    sections += map(figured, ("codes", "collapse", "margin", "phase", "variability"))
    sections.append(Section("time", "Variability over time", law_tables.time_sections(findings.time_laws)))
    for name, found in findings.contrasts.items():
        sections.append(figured(f"effect-{name}", *effect_tables.contrast_sections(found)))
    if told := uncompared(findings):
        sections.append(Section("effects", "The effect of other settings", [note(told)]))
    explained = effect_tables.explained_table(findings.explained)
    laws = [*law_tables.fits_sections(findings.trends), *law_tables.forms_sections(findings.comparisons)]
    asked = law_tables.predictions_sections(findings.predictions, findings.scores)
    sections += [
        Section("explained", "What explains the margin", explained),
        figured("classes"),
        figured("ladder", *effect_tables.ladder_table(findings.ladder)),
        figured("pareto"),
        Section("fits", "Power laws", laws),
        Section("joint", "All dimensions at once", law_tables.joint_sections(findings.joint)),
        Section(
            "prediction", "The largest class count held out", law_tables.largest_section(findings.held_out_largest)
        ),
        Section("predictions", "Predictions asked for", asked),
        Section("trials", "Trials", [*trial_tables.failed_table(frame), *final_table]),
        Section("provenance", "Provenance", provenance_parts(frame, warned)),
    ]
    title = sentences.study_name(frame)
    settled: list[page.Piece] = [" To settle it: ", page.Code(command), ", whose file lies beside this page."]
    header = [
        Paragraph("Generalized neural collapse, a scaling study", "over"),
        Heading(title, 1),
        Paragraph(sentences.question(frame), "question"),
        *(Paragraph(text, "answer") for text in sentences.sentences_answer(frame, findings)),
        Paragraph(sentences.sentence_studied(frame), "studied"),
        page.Leads(lead_panels(by_name)),
        Paragraph([opened.unknown, *(settled if command else ())], "open"),
        Details("Words used on this page", (Paragraph(TEXTS["words"]),)),
        *caveat_parts(frame, warned),
    ]
    return page.Page(f"{title}: generalized neural collapse", header, sections, footer())


def lead_panels(by_name: Mapping[str, FigureBlock]) -> list[tuple[str, Drawn, str]]:
    """A panel of each of the three figures that carry the answer; fewer where they are missing."""
    shown = {name: block.panels[block.lead] for name, block in by_name.items() if block.panels}
    choices = ([name for name in captions if name in shown][:1] for captions in TEXTS["leads"])
    captions = {name: caption for each in TEXTS["leads"] for name, caption in each.items()}
    told = {name: f"{captions[name]} {by_name[name].lead_note}".strip() for name in shown if name in captions}
    return [(name, render_panel(shown[name], f"lead-{name}"), told[name]) for names in choices for name in names]


def uncompared(findings: Findings) -> str:
    """Why settings have no figure of their effect; empty where all have one."""
    if findings.not_contrasted:
        names = ", ".join(f"{name} ({count} values)" for name, count in findings.not_contrasted.items())
        return str(TEXTS["too_many"]).format(names=names, settings=MOST_CONTRASTS, levels=MOST_LEVELS)
    return "" if findings.contrasts else str(TEXTS["no_effects"])


def figure_parts(block: FigureBlock, drawn: Sequence[Drawn], listed: frozenset[str], total: int) -> list[Part]:
    """A figure of some of so many trials, and their keys, each a link where the page lists the trial."""
    if not block.trials:
        return [Figure(block, drawn, total)]
    keys = [Link(key, f"trial-{key}" if key in listed else "") for key in block.trials[:MOST_KEYS]]
    spaced: list[page.Piece] = []
    for key in keys:
        spaced += [" ", key] if spaced else [key]
    if len(block.trials) > MOST_KEYS:
        spaced.append(f" and {len(block.trials) - MOST_KEYS} more in the table")
    return [Figure(block, drawn, total), Details(f"Trial keys ({len(block.trials)})", (Paragraph(spaced, "keys"),))]


def caveat_parts(frame: StudyFrame, warned: Sequence[str]) -> list[Part]:
    """What a reader must know before believing the page."""
    parts: list[Part] = []
    if frame.missing:
        left = amount(frame.missing, "trial of the study has", "trials of the study have")
        parts.append(note(f"{left} not been run or not finished; gnc run continues the study."))
    if frame.outside:
        parts.append(note(f"Not in this report: {amount(frame.outside, 'trial')} of other studies in this folder."))
    unreadable = [unreadable_text(frame.unreadable)] if frame.unreadable else []
    return [*parts, *(Paragraph(text, "warning") for text in [*unreadable, *warned])]


def stopped_parts(frame: StudyFrame, findings: Findings) -> list[Part]:
    """What distinguishes the trials that were stopped, and the rungs of the scheduler."""
    rule, stopped = findings.search.scheduler, findings.stopped
    if rule.name == "none":
        return [note("The study has no scheduler, so no trial was stopped early.")]
    parts: list[Part] = trial_tables.distinction_parts(stopped) if stopped else [note(TEXTS["not_stopped"])]
    if findings.rungs:
        parts += trial_tables.rung_parts(findings.rungs, rule)
    elif rule.name == "median":
        parts.append(note("The median rule has no rungs: it looks at every measured epoch after the grace epochs."))
    return parts


def unreadable_text(names: Sequence[str]) -> str:
    """The files that were skipped, by name."""
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    files = amount(len(names), "file")
    return f"{files} could not be read, skipped here: {listed}. Running the study again replaces what is lost."


def provenance_parts(frame: StudyFrame, warned: Sequence[str]) -> list[Part]:
    """Versions, machines, data, the study file, and how to get the rows."""
    parts: list[Part] = [Paragraph(text, "warning") for text in warned]
    origins = sorted(trial_tables.origins(frame.trials).items())
    rows = [(name, value if len(value) < 40 else Long(value), Number(count)) for (name, value), count in origins]
    parts.append(page.table("versions", rows) if rows else note("No trial recorded its versions or machine."))
    varied = ", ".join(varied_settings(frame.final)) if frame.final.num_rows else ""
    vary = f" Settings that vary among the complete trials: {varied}." if varied else ""
    parts.append(Paragraph(f"Schema version {SCHEMA_VERSION}, numbers version {NUMBERS_VERSION}.{vary}"))
    if data := trial_tables.data_origins(frame.trials):
        seen = [(Long(settings), digest, Number(count)) for (settings, digest), count in sorted(data.items())]
        parts.append(Details(f"Data sets and their digests ({len(data)})", (page.table("data", seen),), wide=True))
    if frame.study:
        parts.append(Details("The study file as run", (page.Preformatted(frame.study),)))
    return [*parts, Heading("Getting the rows"), page.Preformatted(TEXTS["rows_recipe"])]


def footer() -> Paragraph:
    """What the measures mean, in the papers that defined them."""
    papers: list[page.Piece] = []
    for number, title in TEXTS["papers"].items():
        papers += [f"{title}, ", Link(f"arXiv {number}", f"https://arxiv.org/abs/{number}"), "; "]
    certified = ". Margins are certified intervals; intervals of fits are 95 %, over class counts."
    return Paragraph(["Measures as defined in ", *papers[:-1], certified])
