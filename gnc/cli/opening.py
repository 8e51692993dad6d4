"""The gnc commands that look after results folders and run nothing: compare, merge, prune, best.

Knows the rooms that do the work and how their outcome is said; does not parse arguments.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gnc.cli.folder_commands import existing_store, latest_study, selection_of
from study.design.errors import StudyError
from study.store.disk_use import in_words
from study.store.store import open_store
from study.upkeep.best import best_lines, default_by, find_best, next_study
from study.upkeep.compare import compare_stores, comparison_facts, comparison_lines, difference_line, machine_lines
from study.upkeep.merge import Merge, merge_lines, merge_stores
from study.upkeep.prune import Prunable, find_prunable, prune


def command_compare(options: argparse.Namespace) -> int:
    """Numbers of two folders under the same keys; 1 where they differ."""
    first, second = existing_store(options.first), existing_store(options.second)
    comparison = compare_stores(first, second, selection_of(options))
    if options.json:
        print(json.dumps(comparison_facts(comparison)))
    else:
        for line in comparison_lines(comparison):
            print(line)
    return 0 if comparison.is_same else 1


def command_merge(options: argparse.Namespace) -> int:
    """The union of folders; 1 where trials have other numbers under the same key."""
    into = open_store(options.into)
    merges = merge_stores([existing_store(source) for source in options.sources], into)
    if options.json:
        print(json.dumps({"into": into.uri, "merges": [dataclasses.asdict(merge) for merge in merges]}))
    else:
        for merge in merges:
            _say_merge(merge)
        print(f"{len(into.states())} trials in {into.uri}")
    for merge in merges:
        for name in merge.unreadable:
            print(
                f"warning: {name} of {merge.source} cannot be read as what it should be and was left", file=sys.stderr
            )
    return 1 if any(merge.differing for merge in merges) else 0


def _say_merge(merge: Merge) -> None:
    print(*merge_lines(merge), sep="\n")
    for comparison in merge.differences:
        print("  kept | left:")
        for name, found in comparison.columns.items():
            print(difference_line(name, found))
        print(*machine_lines(comparison.machines), sep="\n", end="\n" if comparison.machines else "")


def command_prune(options: argparse.Namespace) -> int:
    """What may be deleted and why; deleted with --yes only."""
    store = existing_store(options.results)
    if not options.silent >= 0:
        raise StudyError(f"--silent must be a number of hours from 0 on, got {options.silent:g}.")
    found = find_prunable(store, silent_seconds=3600 * options.silent)
    gone = list(prune(store, found)) if options.yes else found
    if options.json:
        files = [{"file": p.entry.name, "bytes": p.entry.size, "kind": p.kind, "reason": p.reason} for p in gone]
        print(json.dumps({"deleted": options.yes, "bytes": sum(p.entry.size for p in gone), "files": files}))
        return 0
    for line in _prune_lines(gone, deleted=options.yes):
        print(line)
    return 0


def _prune_lines(found: list[Prunable], *, deleted: bool) -> Iterator[str]:
    for one in found:
        yield f"{one.entry.name}  {in_words(one.entry.size)}  {one.reason}"
    total = f"{len(found)} files, {in_words(sum(one.entry.size for one in found))}"
    if not found:
        yield "nothing to delete"
    else:
        yield f"{total} deleted" if deleted else f"{total} could be deleted; --yes deletes them"


def command_best(options: argparse.Namespace) -> int:
    """The best settings of each cell, and on request a study file that runs them again."""
    store = existing_store(options.results)
    study = None if options.all else latest_study(store)
    if options.by is None and study is None:
        raise StudyError(
            "--by must be given where no study's grid says what a cell is. Write --by num_classes,feature_dim."
        )
    by = default_by(study) if options.by is None and study else _words(options.by)
    keys = {config.key for config in study.configs} if study else None
    best = find_best(store, metric=options.metric, mode=options.mode, by=by, keys=keys, selection=selection_of(options))
    if options.write is not None:
        _write_next(
            Path(options.write), next_study(best, study=study or latest_study(store), seeds=_seeds(options.seeds))
        )
    if options.json:
        print(json.dumps(dataclasses.asdict(best)))
        return 0
    for line in best_lines(best):
        print(line)
    return 0


def _write_next(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise StudyError(f"--write must name a new file, got {str(path)!r}, which exists. Name another.") from None
    print(f"{path} written; gnc check {path} says what it would run", file=sys.stderr)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seeds(text: str) -> list[int]:
    if not all(word.isdecimal() for word in _words(text)):
        raise StudyError(f"--seeds must be whole numbers parted by commas, got {text!r}. Write --seeds 0,1,2.")
    return [int(word) for word in _words(text)]
