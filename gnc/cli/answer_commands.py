"""The gnc commands that say what results mean: report, best, contrast and export. Calls what does the work and prints the
outcome; runs no trial."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gnc.cli.first_commands import write_new
from gnc.cli.opening import selection_of, stored_study, warn_unreadable
from gnc.cli.output import put, say, show
from gnc_models.catalog.parts import digest_of, is_file, split_reference
from gnc_models.progress import amount
from study.design.columns import column_sentence
from study.design.errors import StudyError, require
from study.design.search import GRID
from study.design.study_file import Study, parse_study
from study.design.where import check_column, rows_where
from study.store.store import Store, existing_store
from study.upkeep.best import best_lines, choose_goals, default_by, find_best, next_study


def command_report(options: argparse.Namespace) -> int:
    """Fit trends, draw figures and write report/report.html into the results folder."""
    # matplotlib takes a second to load: only here, where figures are drawn
    from analysis.report.law_tables import score_parts
    from analysis.report.report import NothingToReport, check_report, write_report
    from analysis.report.writers import parts_to_markdown

    store = existing_store(options.results)
    study = stored_study(options, store, whatever=True)
    keys = None if options.all or study is None else {c.key for c in study.configs}
    if options.check:
        scores, place = check_report(store), f"{store.uri}/report"
        if scores is None:
            raise StudyError(f"predictions.json must be written by gnc report, got another file in {place}. Remove it.")
        put(parts_to_markdown(score_parts(scores)).rstrip("\n"))
        return 0
    predict = study.report.predict if study else ()
    try:
        text = store.latest_study(options.study)
        summary = write_report(store, keys=keys, study=text, predict=predict, page_format=options.format)
    except NothingToReport as reason:
        say(str(reason))
        return 1
    put(summary)
    warn_unreadable(summary.unreadable)
    return 0


def command_best(options: argparse.Namespace) -> int:
    """Find the best settings of each cell of the grid, and write a study file that runs them again."""
    store = existing_store(options.results)
    study = stored_study(options, store)
    goals = choose_goals(options.metric, options.mode, study)
    if options.by is None and study is None:
        raise StudyError("--by must be given where no study file names the cells. Write --by num_classes,feature_dim.")
    by = default_by(study) if options.by is None and study else _words(options.by)
    unreadable: list[str] = []
    given = _keys(study), selection_of(options)
    best = find_best(store, goals, by=by, keys=given[0], selection=given[1], on_unreadable=unreadable.append)
    warn_unreadable(unreadable)
    if options.write is not None:
        seeds, wanted = _words(options.seeds), "--seeds must be whole numbers separated by commas"
        require(all(word.isdecimal() for word in seeds), f"{wanted}, got {options.seeds!r}. Write --seeds 0,1,2.")
        run = stored_study(options, store, whatever=True)
        text = next_study(best, study=run, seeds=list(map(int, seeds)), path=options.write)
        write_new(Path(options.write), text, "--write")
        again = "" if seeds else " Its seeds are those that chose: --seeds with others judges the choice."
        say(f"Wrote {options.write}. What it would run: gnc check {options.write}.{again}")
        _write_code(Path(options.write), text, store)
    show(options, dataclasses.asdict(best), best_lines(best))
    return 0 if best.winners else 1


def command_export(options: argparse.Namespace) -> int:
    """Write the trials into a storage file of Optuna, which optuna-dashboard FILE shows."""
    from study.scheduling.optuna_study import export_trials  # loads Optuna, which takes a second

    store = existing_store(options.results)
    study = stored_study(options, store)
    goals = choose_goals(options.metric, options.mode, study)
    path = Path(options.optuna)
    require(path.absolute().parent.is_dir(), f"--optuna must lie in a folder that exists, got {options.optuna!r}.")
    require(not path.exists(), f"--optuna must name a new file, got {options.optuna!r}, which exists. Name another.")
    metrics, modes = [goal.metric for goal in goals], [goal.mode for goal in goals]
    unreadable: list[str] = []
    search, name = (study.search, study.name) if study else (GRID, "trials")
    goal = {"metrics": metrics, "modes": modes}
    written = export_trials(path, store, search, name=name, **goal, keys=_keys(study), on_unreadable=unreadable.append)
    warn_unreadable(unreadable)
    facts = {"file": options.optuna, **goal, "trials": written}
    shown = [f"{amount(count, 'trial')} of {name}" for name, count in written.items()]
    show(options, facts, [*shown, f"To look at them: optuna-dashboard {options.optuna}"])
    return 0


def _keys(study: Study | None) -> set[str] | None:
    """The trials of the study; None for all."""
    return {config.key for config in study.configs} if study else None


def _write_code(path: Path, text: str, store: Store) -> None:
    """Put the files of parts of one's own where the study file at `path` looks for them, unless there is a file."""
    parts = {part for config in parse_study(text).configs for own in config.parts().values() for part in own}
    for reference, source in sorted(parts):
        name = Path(split_reference(reference)[0])
        place, code = path.parent / name, store.read_code(source)
        # a folder made by someone else must not say where on this machine a file is written
        is_below = not name.is_absolute() and ".." not in name.parts
        if code is not None and is_file(name.name) and is_below and not place.exists() and digest_of(code) == source:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(code)
            say(f"Wrote {place}, the code of {reference}.")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def command_contrast(options: argparse.Namespace) -> int:
    """Compare the values of one setting, paired over seeds and cells."""
    # matplotlib takes a second to load: only here, where figures are drawn
    from analysis.effects.contrast import DEFAULT_MEASURES, adjust_together, contrasts
    from analysis.figures.contrast import block_contrast
    from analysis.figures.panels import figure_file
    from analysis.report.effect_tables import contrast_parts
    from analysis.report.writers import parts_to_markdown
    from analysis.rows.frames import SETTING_NAMES, final_rows, parts_by
    from gnc_models.progress import counted

    final = final_rows(existing_store(options.results))
    rule = f"RESULTS must hold a complete trial, got none in {options.results!r}. Run trials first."
    require(final.num_rows > 0, rule)
    for condition in options.where:
        final = rows_where(final, condition)
    measures = options.measure or DEFAULT_MEASURES
    for setting in options.tuned:
        check_column(final.select(SETTING_NAMES), setting)
    bounds = dict(_bound(text, measures) for text in options.bound)
    asked = {"against": options.against, "tuned": options.tuned}
    parts = parts_by(final, options.by, options.where)
    each_part = counted(parts, "parts", len(parts))
    each = (contrasts(rows, options.setting, measures, where=where, **asked) for rows, where in each_part)
    found = adjust_together([contrast for several in each for contrast in several])
    if not found:
        names = [measure.partition("[")[0] for measure in measures]
        for name in (name for name in names if final.num_rows and final[name].null_count == final.num_rows):
            raise StudyError(f"--measure must be measured, got {name!r} in no trial. {column_sentence(name)}".strip())
        rule = f"{options.setting} must vary between complete trials that share a seed and every other setting"
        got = f"got {amount(final.num_rows, 'row')} where it does not"
        raise StudyError(f"{rule}, {got}. Widen --where, or run more of the grid.")
    try:
        put(parts_to_markdown(contrast_parts(found, bounds)).rstrip("\n"))
    except ValueError as error:
        raise StudyError(str(error)) from None
    if options.figure:
        path = Path(options.figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(figure_file(block_contrast(found), path.suffix))
        say(f"figure: {path}")
    return 0


def _bound(text: str, measures: Sequence[str]) -> tuple[str, float]:
    """A compared measure and its bound, from COLUMN=SIZE."""
    measure, _, size = text.rpartition("=")
    if measure not in measures:
        known = ", ".join(measures)
        raise StudyError(f"--bound must be COLUMN=SIZE of a compared measure, got {text!r}. Compared: {known}.")
    try:
        return measure, float(size)
    except ValueError:
        raise StudyError(f"--bound must give {measure} a number, got {size!r}. Write {measure}=0.01.") from None
