"""The gnc commands that need the results folder alone: status, report, best, compare, merge, seal, prune.

Calls what does the work and prints the outcome; runs no trial.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

from gnc.cli.opening import add_all, add_results, add_where, existing_store, latest_study, selection_of, warn_unreadable
from gnc.cli.output import say, show
from gnc.cli.parser import Commands, add_command, add_json, require
from study.design.errors import StudyError
from study.execution.same_data import mixed_machines
from study.store.disk_use import in_words
from study.store.storage import Entry
from study.store.store import Store, open_store
from study.upkeep.best import best_lines, default_by, find_best, next_study
from study.upkeep.compare import compare_stores, comparison_facts, comparison_lines, difference_line, machine_lines
from study.upkeep.merge import Merge, merge_lines, merge_stores
from study.upkeep.prune import Prunable, find_prunable, prune
from study.upkeep.status import Status, read_status, status_facts, status_lines


def add_status_parser(commands: Commands) -> None:
    example = "gnc status results/quickstart --watch"
    parser = add_command(commands, command_status, example, add_results, add_all, add_where, add_json)
    watch = "update every SECONDS until the study ends; default: 5"
    parser.add_argument("--watch", nargs="?", type=float, const=5.0, metavar="SECONDS", help=watch)


def command_status(options: argparse.Namespace) -> int:
    """Show the progress of the latest study, on any machine that can read the results folder."""
    store, selection = existing_store(options.results), selection_of(options)
    if options.watch is not None:
        return _watch(options, store)
    study = None if options.all else latest_study(store, selection)
    status = read_status(store, study, selection=selection)
    show(options, status_facts(status), status_lines(status))
    for sentence in mixed_machines(store.read_trials().to_pylist()):
        say(f"warning: {sentence}")
    warn_unreadable(status.unreadable)
    return 0


def _watch(options: argparse.Namespace, store: Store) -> int:
    """Show the progress until the study ends; returns 1 if trials failed, as gnc run does."""
    from study.upkeep.watch import watch  # loads rich, which only a live view needs

    require(0 < options.watch < math.inf, f"--watch must be a number of seconds above 0, got {options.watch:g}.")
    selection = selection_of(options)
    known: dict[Entry, str] = {}

    def read() -> Status:
        study = None if options.all else latest_study(store, selection)
        return read_status(store, study, selection=selection, known=known)

    status = watch(read, seconds=options.watch, as_json=options.json)
    study = latest_study(store, selection)
    bad = ("failed", "diverged") if study is None or study.search.method == "grid" else ("failed",)
    return 1 if any(status.counts[state] for state in bad) else 0


def add_report_parser(commands: Commands) -> None:
    parser = add_command(commands, command_report, "gnc report results/quickstart", add_results, add_all)
    parser.add_argument("--format", choices=("html", "md"), default="html", help="format of the page; default: html")
    parser.add_argument("--check", action="store_true", help="score the predictions of earlier reports by later trials")


def command_report(options: argparse.Namespace) -> int:
    """Fit trends, draw figures and write report/report.html into the results folder."""
    # matplotlib takes a second to load: only here, where figures are drawn
    from analysis.report.report import NothingToReport, check_report, scores_text, write_report

    store = existing_store(options.results)
    study = latest_study(store)
    keys = None if options.all or study is None else {c.key for c in study.configs}
    if options.check:
        scores = check_report(store)
        if scores is None:
            raise StudyError(
                f"predictions.json must be written by gnc report, got another file in {store.uri}/report. Remove it."
            )
        print(scores_text(scores), end="")
    else:
        predict = study.report.predict if study else ()
        try:
            summary = write_report(store, keys=keys, predict=predict, page_format=options.format)
        except NothingToReport as reason:
            say(str(reason))
            return 1
        print(summary)
        warn_unreadable(summary.unreadable)
    return 0


def add_best_parser(commands: Commands) -> None:
    example = "gnc best results/quickstart --metric test_accuracy --by num_classes,feature_dim"
    parser = add_command(commands, command_best, example, add_results, add_all, add_where, add_json)
    parser.add_argument("--metric", required=True, help="the measured column to compare, at each trial's last epoch")
    parser.add_argument("--mode", choices=("min", "max"), default="max", help="which is best; default: max")
    parser.add_argument("--by", metavar="NAMES", help="settings of a cell, separated by commas; default: the grid's")
    parser.add_argument("--write", metavar="NEXT.toml", help="write the best settings into a new study file")
    parser.add_argument("--seeds", default="", metavar="0,1,2", help="seeds to add in that file")


def command_best(options: argparse.Namespace) -> int:
    """Find the best settings of each cell of the grid, and write a study file that runs them again."""
    store = existing_store(options.results)
    study = None if options.all else latest_study(store)
    if options.by is None and study is None:
        raise StudyError("--by must be given where no study file names the cells. Write --by num_classes,feature_dim.")
    by = default_by(study) if options.by is None and study else _words(options.by)
    keys = {config.key for config in study.configs} if study else None
    best = find_best(store, metric=options.metric, mode=options.mode, by=by, keys=keys, selection=selection_of(options))
    if options.write is not None:
        text = next_study(best, study=study or latest_study(store), seeds=_seeds(options.seeds))
        _write_next(Path(options.write), text)
    show(options, dataclasses.asdict(best), best_lines(best))
    return 0


def _write_next(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise StudyError(f"--write must name a new file, got {str(path)!r}, which exists. Name another.") from None
    say(f"Wrote {path}. What it would run: gnc check {path}")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seeds(text: str) -> list[int]:
    are_numbers = all(word.isdecimal() for word in _words(text))
    require(are_numbers, f"--seeds must be whole numbers separated by commas, got {text!r}. Write --seeds 0,1,2.")
    return [int(word) for word in _words(text)]


def add_compare_parser(commands: Commands) -> None:
    parser = add_command(commands, command_compare, "gnc compare results/before results/after", add_where, add_json)
    parser.add_argument("first", metavar="A", help="a results folder or its URI")
    parser.add_argument("second", metavar="B", help="another results folder or its URI")


def command_compare(options: argparse.Namespace) -> int:
    """Check whether two results folders hold the same numbers for the same trials; exit 1 where they do not."""
    first, second = existing_store(options.first), existing_store(options.second)
    comparison = compare_stores(first, second, selection_of(options))
    show(options, comparison_facts(comparison), comparison_lines(comparison))
    return 0 if comparison.is_same else 1


def add_merge_parser(commands: Commands) -> None:
    parser = add_command(commands, command_merge, "gnc merge results/here results/there results/all", add_json)
    parser.add_argument("sources", metavar="A", nargs="+", help="a folder to copy from; it is not changed")
    parser.add_argument("into", metavar="INTO", help="the folder to copy into; it may hold trials, or not exist")


def command_merge(options: argparse.Namespace) -> int:
    """Copy the finished trials of several results folders into one, which is named last."""
    into = open_store(options.into)
    merges = merge_stores([existing_store(source) for source in options.sources], into)
    facts = {"into": into.uri, "merges": [dataclasses.asdict(merge) for merge in merges]}
    show(options, facts, _merge_lines(merges, into))
    for merge in merges:
        for name in merge.unreadable:
            say(f"warning: {name} of {merge.source} cannot be read and was left out")
    return 1 if any(merge.differing for merge in merges) else 0


def _merge_lines(merges: list[Merge], into: Store) -> Iterator[str]:
    for merge in merges:
        yield from merge_lines(merge)
        for comparison in merge.differences:
            yield "  kept | not taken:"
            yield from (difference_line(name, found) for name, found in comparison.columns.items())
            yield from machine_lines(comparison.machines)
    yield f"{len(into.states())} trials in {into.uri}"


def add_seal_parser(commands: Commands) -> None:
    parser = add_command(commands, command_seal, "gnc seal results/quickstart --compact", add_results)
    parser.add_argument("--compact", action="store_true", help="replace one file per trial by the two tables")


def command_seal(options: argparse.Namespace) -> int:
    """Bring results.parquet and trials.parquet up to date."""
    store = existing_store(options.results)
    started = time.monotonic()
    sealed = store.seal(compact=options.compact)
    print(f"{sealed.rows} rows of {sealed.trials} trials, {sealed.fresh} new, in {time.monotonic() - started:.1f} s")
    warn_unreadable(sealed.unreadable)
    return 0


def add_prune_parser(commands: Commands) -> None:
    parser = add_command(commands, command_prune, "gnc prune results/quickstart", add_results, add_json)
    parser.add_argument("--yes", action="store_true", help="delete these files; without it nothing is changed")
    silent = "treat a trial as dead after HOURS without output, unless its process runs on this machine; default: 24"
    parser.add_argument("--silent", type=float, default=24.0, metavar="HOURS", help=silent)


def command_prune(options: argparse.Namespace) -> int:
    """List the files of a results folder that no command needs any more, or delete them."""
    store = existing_store(options.results)
    require(options.silent >= 0, f"--silent must be a number of hours, at least 0, got {options.silent:g}.")
    found = find_prunable(store, silent_seconds=3600 * options.silent)
    gone = list(prune(store, found)) if options.yes else found
    files = [{"file": p.entry.name, "bytes": p.entry.size, "kind": p.kind, "reason": p.reason} for p in gone]
    facts = {"deleted": options.yes, "bytes": sum(p.entry.size for p in gone), "files": files}
    show(options, facts, _prune_lines(gone, deleted=options.yes))
    return 0


def _prune_lines(found: list[Prunable], *, deleted: bool) -> Iterator[str]:
    for one in found:
        yield f"{one.entry.name}  {in_words(one.entry.size)}  {one.reason}"
    total = f"{len(found)} files, {in_words(sum(one.entry.size for one in found))}"
    if not found:
        yield "nothing to delete"
    else:
        yield f"{total} deleted" if deleted else f"{total} could be deleted; --yes deletes them"
