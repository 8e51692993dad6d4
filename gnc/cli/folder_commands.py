"""The gnc commands that look after results folders: status, compare, merge, seal, prune. Calls what does the work and prints
the outcome; runs no trial."""

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator

from gnc.cli.opening import selection_of, stored_study, warn_unreadable
from gnc.cli.output import put, say, show
from gnc_models.progress import amount
from study.design.errors import require
from study.execution.same_data import mixed_machines
from study.store.disk_use import in_words
from study.store.storage import Entry
from study.store.store import Store, existing_store, open_store
from study.upkeep.compare import compare_stores, comparison_facts, comparison_lines, difference_line, machine_lines
from study.upkeep.merge import Merge, merge_lines, merge_stores
from study.upkeep.prune import find_prunable, prune
from study.upkeep.status import Status, read_status, status_facts, status_lines


def command_status(options: argparse.Namespace) -> int:
    """Show the progress of a results folder's latest study, or of --study, on any machine that can read the folder."""
    store, selection = existing_store(options.results), selection_of(options)
    if options.watch is not None:
        return _watch(options, store)
    study = stored_study(options, store, selection=selection)
    status = read_status(store, study, selection=selection)
    show(options, status_facts(status), status_lines(status))
    for sentence in mixed_machines(store.read_trials()):
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
        study = stored_study(options, store, selection=selection)
        return read_status(store, study, selection=selection, known=known)

    status = watch(read, seconds=options.watch, as_json=options.json)
    study = stored_study(options, store, selection=selection, whatever=True)
    bad = ("failed", "diverged") if study is None or study.search.method == "grid" else ("failed",)
    return 1 if any(status.counts[state] for state in bad) else 0


def command_compare(options: argparse.Namespace) -> int:
    """Check whether two results folders hold the same numbers for the same trials; exit 1 where they do not."""
    first, second = existing_store(options.first), existing_store(options.second)
    comparison = compare_stores(first, second, selection_of(options))
    show(options, comparison_facts(comparison), comparison_lines(comparison))
    return 0 if comparison.is_same else 1


def command_merge(options: argparse.Namespace) -> int:
    """Copy the finished trials of several results folders into one, which is named last."""
    into = open_store(options.into)
    merges = merge_stores([existing_store(source) for source in options.sources], into)
    facts = {"into": into.uri, "merges": [dataclasses.asdict(merge) for merge in merges]}
    show(options, facts, _merge_lines(merges, into))
    for source, name in ((merge.source, name) for merge in merges for name in merge.unreadable):
        say(f"warning: {name} of {source} cannot be read and was left out")
    return 1 if any(merge.differing for merge in merges) else 0


def _merge_lines(merges: list[Merge], into: Store) -> Iterator[str]:
    for merge in merges:
        yield from merge_lines(merge)
        for comparison in merge.differences:
            yield "  kept | not taken:"
            yield from (difference_line(name, found) for name, found in comparison.columns.items())
            yield from machine_lines(comparison.machines)
    yield f"{amount(len(into.states()), 'trial')} in {into.uri}"


def command_seal(options: argparse.Namespace) -> int:
    """Bring results.parquet and trials.parquet up to date."""
    store = existing_store(options.results)
    started = time.monotonic()
    sealed = store.seal(compact=options.compact)
    held = f"{amount(sealed.rows, 'row')} of {amount(sealed.trials, 'trial')}"
    put(f"{held}, {sealed.fresh} new, in {time.monotonic() - started:.1f} s")
    warn_unreadable(sealed.unreadable)
    return 0


def command_prune(options: argparse.Namespace) -> int:
    """List the files of a results folder that no command needs any more, or delete them."""
    store = existing_store(options.results)
    require(options.silent >= 0, f"--silent must be a number of hours, at least 0, got {options.silent:g}.")
    found = find_prunable(store, silent_seconds=3600 * options.silent)
    gone = list(prune(store, found)) if options.yes else found
    files = [{"file": p.entry.name, "bytes": p.entry.size, "kind": p.kind, "reason": p.reason} for p in gone]
    size = sum(p.entry.size for p in gone)
    lines = [f"{p.entry.name}  {in_words(p.entry.size)}  {p.reason}" for p in gone]
    ended = "deleted" if options.yes else "could be deleted; --yes deletes them"
    total = f"{amount(len(gone), 'file')}, {in_words(size)} {ended}" if gone else "nothing to delete"
    show(options, {"deleted": options.yes, "bytes": size, "files": files}, [*lines, total])
    return 0
