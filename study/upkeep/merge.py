"""`gnc merge`: the union of results folders, as if one folder had seen every trial. Sources are only read.
If numbers of a trial differ, the version found first stays, the destination's before the sources', and the difference is
told. Not copied are trials in progress, and what can be made again. Knows the store and differences; does not know Ray."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gnc_models.progress import counted
from study.design.errors import StudyError
from study.store.finished_trials import RANK, Fragment
from study.store.schemas import FRAGMENT_SCHEMA, IDENTITY, SETTINGS, record_from_json
from study.store.store import Store
from study.upkeep.compare import Comparison, compare_fragments

COPIED = ("suggestions", "logs", "optima", "codes", "code")  # files that are the same under the same name
HELD_BACK = 500  # pairs of trials compared at a time


@dataclass
class Merge:
    """What merging one source did."""

    source: str
    taken: list[str] = field(default_factory=list)  # trials that the destination did not have
    advanced: list[str] = field(default_factory=list)  # trials that went further than the destination's
    same: int = 0
    lesser: int = 0  # trials that the destination has further on
    differences: list[Comparison] = field(default_factory=list)  # of those with other numbers; first the one kept
    failures: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def differing(self) -> list[str]:
        """Keys whose numbers are not those of the destination."""
        return [key for comparison in self.differences for key in comparison.differing]


class FolderTrials:
    """A folder's finished trials: from their own files, or from the tables where an archive holds them."""

    def __init__(self, store: Store) -> None:
        store.check_only_copy()
        self.store = store
        self.unreadable: list[str] = []
        found = store.states(on_unreadable=self.unreadable.append)
        self.states = {key: state for key, state in found.items() if state != "failed"}
        files = store.fragments()
        # of a trial with several files it takes the tables to tell which one counts
        plain = {key: entries[0].name for key, entries in files.items() if len(entries) == 1}
        self._files = {key: f"rows/{name}" for key, name in plain.items() if name.count(".") == 1}
        self.beside = {f"{folder}/{e.name}" for folder in ("margins", "heads") for e in store.storage.entries(folder)}

    def content(self, key: str) -> bytes | None:
        """The trial's own file."""
        return self.store.storage.read(self._files[key]) if key in self._files else None

    def read(self, key: str) -> Fragment | None:
        """The trial; None where it was removed or torn meanwhile."""
        if key in self._files:
            return self.store.read_fragment(key, self.unreadable.append)
        return self._in_tables.get(key)

    @cached_property
    def _in_tables(self) -> dict[str, Fragment]:
        names = [column.name for column in (*IDENTITY, *SETTINGS)]
        rows = self.store.read(FRAGMENT_SCHEMA.names)
        keys: list[str] = rows.column("trial").to_pylist()
        first, count = {key: len(keys) - 1 - index for index, key in enumerate(reversed(keys))}, Counter(keys)
        found = {}
        for trial in self.store.read_trials().to_pylist():
            key = trial["trial"]
            if key in self.states and key not in self._files:
                own = rows.slice(first.get(key, 0), count[key]).replace_schema_metadata(FRAGMENT_SCHEMA.metadata)
                settings = {name: trial[name] for name in names}
                found[key] = Fragment(key, settings, own, record_from_json(json.dumps(trial)))
        return found


def merge_stores(sources: Sequence[Store], into: Store) -> list[Merge]:
    """Bring every source's finished trials, failures and study files into the destination; then seal it."""
    paths = ((store, store.storage.local_path("")) for store in (*sources, into))
    places = [str(path.resolve()) if path else store.uri.rstrip("/") for store, path in paths]
    if repeated := [place for place in places if places.count(place) > 1]:
        raise StudyError(f"the folders of a merge must be different ones, got {repeated[0]!r} twice. Leave one out.")
    all_theirs = [FolderTrials(source) for source in sources]  # refuses before anything is written
    into.storage.check_writable()
    done = [_merge(theirs, into) for theirs in all_theirs]
    _copy_studies(sources, into)
    into.seal()
    return done


def _merge(theirs: FolderTrials, into: Store) -> Merge:
    merge, ours = Merge(theirs.store.uri), FolderTrials(into)
    waiting: list[tuple[Fragment, Fragment]] = []
    for key, state in counted(sorted(theirs.states.items()), "trials", len(theirs.states)):
        held = ours.states.get(key)
        if held is None or RANK[state] > RANK[held]:
            if _take(key, theirs, ours):
                (merge.taken if held is None else merge.advanced).append(key)
        elif RANK[state] < RANK[held]:
            merge.lesser += 1
        elif (content := ours.content(key)) is not None and content == theirs.content(key):
            _note_same(key, theirs, ours, merge)
        else:
            mine, other = ours.read(key), theirs.read(key)
            waiting += [(mine, other)] if mine is not None and other is not None else []
        if len(waiting) == HELD_BACK:
            _settle(waiting, theirs, ours, merge)
    _settle(waiting, theirs, ours, merge)
    merge.failures = _copy_failures(theirs, into)
    for folder in COPIED:
        _copy_absent(theirs.store, into, folder)
    merge.unreadable = list(dict.fromkeys(theirs.unreadable))
    return merge


def _settle(waiting: list[tuple[Fragment, Fragment]], theirs: FolderTrials, into: FolderTrials, merge: Merge) -> None:
    """Compare trials that both hold in the same state; of two that a scheduler stopped, the longer one is kept."""
    level = []
    for mine, other in waiting:
        if _continues(mine, other):
            merge.advanced += [other.key] if _take(other.key, theirs, into) else []
        elif _continues(other, mine):
            merge.lesser += 1
        else:
            level.append((mine, other))
    waiting.clear()
    differing = set(compare_fragments(*zip(*level, strict=True)).differing) if level else set()
    if pairs := [pair for pair in level if pair[0].key in differing]:
        merge.differences.append(compare_fragments(*zip(*pairs, strict=True)))
    for mine, _ in level:
        if mine.key not in differing:
            _note_same(mine.key, theirs, into, merge)


def _continues(shorter: Fragment, longer: Fragment) -> bool:
    if shorter.record.state != "stopped" or longer.rows.num_rows <= shorter.rows.num_rows:
        return False
    found = compare_fragments([shorter], [longer])
    return not set(found.columns) - {"reached_terminal"}


def _note_same(key: str, theirs: FolderTrials, into: FolderTrials, merge: Merge) -> None:
    merge.same += 1
    _copy_beside(key, theirs, into, replace=False)


def _take(key: str, theirs: FolderTrials, into: FolderTrials) -> bool:
    """Copy the trial's margins and head first and its rows last: once the rows are there, nothing may be missing."""
    fragment, content = theirs.read(key), theirs.content(key)
    if fragment is None:
        return False
    _copy_beside(key, theirs, into, replace=True)
    if fragment.record.state == "stopped":  # a study without the rule that stopped it goes on from there
        _copy_absent(theirs.store, into.store, f"checkpoints/{key}")
    if content is None:
        into.store.put_fragment(fragment)
    else:
        into.store.storage.write(f"rows/{fragment.file}", content)
    return True


def _copy_beside(key: str, source: FolderTrials, into: FolderTrials, *, replace: bool) -> None:
    read = {f"margins/{key}.parquet": source.store.read_margins, f"heads/{key}.safetensors": source.store.read_head}
    for name in (name for name in read if name in source.beside and (replace or name not in into.beside)):
        content = source.store.storage.read(name)
        if content is not None and read[name](key, source.unreadable.append) is not None:  # it names a torn one
            into.store.storage.write(name, content)


def _copy_failures(theirs: FolderTrials, into: Store) -> int:
    """Copy the failures of trials that the destination has not finished, under numbers that are free there."""
    finished, held, copied = FolderTrials(into).states, into.failures(), 0
    for key, failed in theirs.store.failures(on_unreadable=theirs.unreadable.append).items():
        known = [_without_attempt(failure) for failure in held.get(key, [])]
        for failure in failed:
            if key not in finished and _without_attempt(failure) not in known:
                taken = {known["attempt"] for known in held.get(key, [])}
                number = failure["attempt"] if failure["attempt"] not in taken else into.next_attempt(key)
                into.write_failure(key, number, {**failure, "attempt": number})
                held.setdefault(key, []).append({**failure, "attempt": number})
                copied += 1
    return copied


def _without_attempt(failure: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in failure.items() if name != "attempt"}


def _copy_absent(source: Store, into: Store, folder: str) -> None:
    held = {entry.name for entry in into.storage.entries(folder)}
    for entry in source.storage.entries(folder):
        content = None if entry.name in held else source.storage.read(f"{folder}/{entry.name}")
        if content is not None:
            into.storage.write(f"{folder}/{entry.name}", content)


def _copy_studies(sources: Sequence[Store], into: Store) -> None:
    """Copy the study files, oldest first. The latest of the destination stays the latest; else the latest of the sources."""
    latest = into.latest_study()
    held = {name for _, name, _ in into.study_files()}
    found = sorted((at, name, text) for source in sources for at, name, text in source.study_files())
    new = [text for _, name, text in found if name not in held]
    for text in new:
        into.write_study(text)
    if new and latest is not None:
        into.write_study(latest)


def merge_lines(merge: Merge) -> Iterator[str]:
    """What merging one source did, in words."""
    counts = {"taken": len(merge.taken), "further on than before": len(merge.advanced), "the same": merge.same,
              "further on here": merge.lesser, "with other numbers, left": len(merge.differing)}  # fmt: skip
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no finished trials"
    yield f"{merge.source}: {told}{f'; failures taken: {merge.failures}' if merge.failures else ''}"
