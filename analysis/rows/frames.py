"""The rows of a study as tables: which trials, their final rows, groups of trials that share settings. Knows the columns
of `study.store.schemas` and the reading half of the store; does not know figures, fits or torch."""

import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from study.design.config import settings_with
from study.design.where import check_column
from study.store.schemas import IDENTITY, MEASUREMENTS, REFERENCES, SETTINGS, TRIAL_COLUMNS
from study.store.sealing.table_rows import only
from study.store.store import Store, open_store

SETTING_NAMES = tuple(column.name for column in SETTINGS)
SIZES = ("num_classes", "feature_dim")
ALWAYS = ("trial", "cell", "epoch")
COLUMNS = {column.name: column for column in (*IDENTITY, *SETTINGS, *MEASUREMENTS, *REFERENCES, *TRIAL_COLUMNS)}
# The settings that figures of margin or variability show on an axis or as a line, numbers first; others are pooled.
SHOWN_SETTINGS = tuple(sorted(settings_with("axis"), key=lambda name: pa.types.is_string(COLUMNS[name].type)))
of_trials = only  # a table's rows of these trials
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class StudyFrame:
    """What the store holds of one study.
    rows: one row per measured epoch, by trial and epoch. trials: one row per trial. final: the last row of every
    complete trial joined with the columns of the trials table. outside: trials in the folder that are not of this study.
    missing: trials of the study that have no row in the trials table yet. unreadable: the fragments that were skipped."""

    rows: pa.Table
    trials: pa.Table
    final: pa.Table
    outside: int
    missing: int
    unreadable: tuple[str, ...]
    study: str | None


def load_study(
    store: Store, *, keys: Collection[str] | None = None, study: str | None = None,
    courses: Collection[str] | None = None, measures: Collection[str] | None = None,
) -> StudyFrame:  # fmt: skip
    """Read the rows and trials of a study.
    keys: its trials; None for all that the folder holds. study: its text; None for the one run last. courses: columns of
    `rows` beside trial and epoch; None for all. measures: those of `final` beside the settings."""
    skipped: set[str] = set()
    rows = store.read(None if courses is None else {*ALWAYS, *courses}, on_unreadable=skipped.add)
    needed = None if measures is None else {*ALWAYS, *SETTING_NAMES, *measures}
    last = store.read(needed, last=True, on_unreadable=skipped.add)
    trials = store.read_trials(skipped.add)
    held = set(trials["trial"].to_pylist())
    wanted = held if keys is None else set(keys)
    if keys is not None:
        rows, last, trials = (of_trials(table, wanted) for table in (rows, last, trials))
    counts, text = (len(held - wanted), len(wanted - held)), study or store.latest_study()
    return StudyFrame(rows, trials, join_final(last, trials), *counts, tuple(sorted(skipped)), text)


def final_rows(results: str | Path | Store) -> pa.Table:
    """One row per complete trial of a folder, its URI or an open store, by key: its last measurement, every setting, and the
    trial's own columns (`state`, `reached_terminal`, `versions`, ...)."""
    return load_study(open_store(results) if isinstance(results, str | Path) else results, courses=()).final


def join_final(last: pa.Table, trials: pa.Table) -> pa.Table:
    """The last row of each complete trial with the trial columns behind it, by trial key."""
    complete = trials.filter(pc.equal(trials["state"], "complete"))
    place = pc.index_in(last["trial"], value_set=complete["trial"].combine_chunks())
    found = last.filter(pc.is_valid(place))
    own = complete.take(pc.drop_null(place))
    for column in TRIAL_COLUMNS:
        found = found.append_column(complete.schema.field(column.name), own[column.name])
    return found.sort_by("trial")


def study_document(study: str | None) -> dict[str, Any]:
    """A study's text as the tables it holds; empty where there is no text, or none that can be read."""
    try:
        return tomllib.loads(study or "")
    except tomllib.TOMLDecodeError:
        return {}


def trial_bounds(trial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows of each trial begin, and where they have ended; rows of one trial stand together."""
    changes = np.flatnonzero(trial[1:] != trial[:-1]) + 1
    return np.array([0, *changes], dtype=int)[: len(trial)], np.array([*changes, len(trial)], dtype=int)[: len(trial)]


def values(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array: numbers as float64 with NaN for null, booleans as bool, text as objects."""
    column = table[name]
    if pa.types.is_boolean(column.type):
        return np.asarray(column.fill_null(False).to_pylist(), dtype=bool)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.asarray(column.to_pylist(), dtype=object)


def distinct(table: pa.Table, name: str) -> list[Any]:
    """The values a column takes, sorted, null last."""
    found = table[name].unique().to_pylist()
    return sorted((v for v in found if v is not None), key=lambda v: (str(type(v)), v)) + [None] * (None in found)


def varied_settings(table: pa.Table) -> list[str]:
    """Settings that take more than one value in these rows, in the order of the schema."""
    return [name for name in SETTING_NAMES if name in table.column_names and len(table[name].unique()) > 1]


def settings_of_rows(table: pa.Table, names: Collection[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True)) or [()] * table.num_rows


def gathered(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    """The values of each key, in the order of the pairs."""
    found: dict[Key, list[Value]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def groups(table: pa.Table, names: Collection[str]) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Rows that share these settings, in sorted order of the values, nulls last."""
    code, first = codes(table, names)
    keys = settings_of_rows(table.take(first), names)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    order = sorted(range(len(keys)), key=lambda i: tuple((v is None, v if v is not None else 0) for v in keys[i]))
    yield from ((dict(zip(names, keys[i], strict=True)), table.take(members[i])) for i in order)


def codes(table: pa.Table, names: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """A number from 0 for each row, equal where these settings are, and the first row of each number."""
    code = np.zeros(table.num_rows, dtype=np.int64)
    for name in names:
        found = table[name].combine_chunks().dictionary_encode(null_encoding="encode")
        code = np.unique(code * len(found.dictionary) + found.indices.to_numpy(), return_inverse=True)[1]
    return code, np.unique(code, return_index=True)[1]


def ranks(table: pa.Table, name: str) -> np.ndarray:
    """The place of each row's text among the texts of a column in sorted order: they stand for it and are faster compared."""
    found = table[name].combine_chunks().dictionary_encode()
    return np.argsort(np.argsort(np.asarray(found.dictionary.to_pylist(), dtype=str)))[found.indices.to_numpy()]


def group_labels(table: pa.Table, names: Sequence[str]) -> list[str]:
    """`temperature = 0.1, normalization = both` for each row: the group that has a prefactor of its own."""
    code, first = codes(table, names)
    rows = settings_of_rows(table.take(first), names)
    labels = [", ".join(f"{n} = {v}" for n, v in zip(names, row, strict=True)) for row in rows]
    return [labels[index] for index in code]


def settings_by_label(table: pa.Table, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    firsts = table.take(np.sort(codes(table, names)[1]))
    return dict(zip(group_labels(firsts, names), firsts.select(list(names)).to_pylist() or [{}], strict=False))


def independent_settings(final: pa.Table) -> list[str]:
    """Settings that vary at one size, even where the other settings of this list are fixed."""
    varied = [name for name in varied_settings(final) if name not in (*SIZES, "seed")]
    kept: list[str] = []
    for name in sorted(varied, key=lambda n: n not in SHOWN_SETTINGS):
        if len(codes(final, [*SIZES, *kept, name])[1]) > len(codes(final, [*SIZES, *kept])[1]):
            kept.append(name)
    return kept


def best_trial(rows: pa.Table) -> dict[str, Any]:
    lower = np.nan_to_num(values(rows, "margin_min_lower"), nan=-np.inf)  # argmax would take NaN for the largest
    return rows.take([int(np.argmax(lower))]).to_pylist()[0]


def parts_by(table: pa.Table, by: str | None, where: Sequence[str] = ()) -> list[tuple[pa.Table, str]]:
    """The rows for each value of a column, each with the conditions that select them; all rows where by is None."""
    if by is None:
        return [(table, " and ".join(where))]
    parts = groups(table, [check_column(table, by)])
    return [(rows, " and ".join([*where, f"{by} = {value[by]}"])) for value, rows in parts]


def usual_normalization(table: pa.Table) -> str:
    """The normalization that figures of one normalization show: `both` where present, else the most frequent."""
    present = {row["values"]: row["counts"] for row in table["normalization"].value_counts().to_pylist()}
    return "both" if "both" in present else max(sorted(present), key=lambda name: present[name], default="")


def with_normalization(table: pa.Table, normalization: str) -> pa.Table:
    return table.filter(pc.equal(table["normalization"], normalization))


def usual_temperature(table: pa.Table) -> float | None:
    """The temperature that most class counts share, then most trials, then the lowest; None where none is used."""
    used = (t for t in distinct(table, "temperature") if t is not None)
    shared = {t: table.filter(pc.equal(table["temperature"], t)) for t in used}
    return max(shared, key=lambda t: (len(shared[t]["num_classes"].unique()), shared[t].num_rows, -t), default=None)


def temperature_follows_size(table: pa.Table) -> bool:
    """Whether the temperature was chosen by the number of classes: several temperatures, but one per size."""
    by_size = (members for _, members in groups(table, ["num_classes"]))
    return len(table["temperature"].unique()) > 1 and all(len(rows["temperature"].unique()) == 1 for rows in by_size)


def is_usual(table: pa.Table) -> np.ndarray:
    """Which rows have the usual normalization and, within their feature_dim, the usual temperature (any that follows K)."""
    normalization = usual_normalization(table)
    usual: dict[int, Collection[float | None]] = {}
    for where, members in groups(with_normalization(table, normalization), ["feature_dim"]):
        follows = temperature_follows_size(members)
        usual[where["feature_dim"]] = distinct(members, "temperature") if follows else [usual_temperature(members)]
    names = ("normalization", "feature_dim", "temperature")
    code, first = codes(table, names)
    settings = settings_of_rows(table.take(first), names)
    return np.array([n == normalization and t in usual[d] for n, d, t in settings], dtype=bool)[code]


def usual_rows(table: pa.Table) -> pa.Table:
    return table.take(np.flatnonzero(is_usual(table)))


def cell_rows(table: pa.Table, measures: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays [cells] by name, in the order of cell keys: medians of the measures over seeds (NaN where no seed has one), what
    the seeds share, their keys as `title`, and `terminal`, 1 where every seed reached it."""
    shared = ("num_classes", "feature_dim", "temperature")
    frame = {name: values(table, name) for name in (*measures, *shared)}
    _, first, index = np.unique(ranks(table, "cell"), return_index=True, return_inverse=True)
    order = np.argsort(index, kind="stable")
    edges = np.searchsorted(index[order], np.arange(1, len(first)))
    found = {name: frame[name][first] for name in shared}
    found |= {name: np.array([median(v) for v in np.split(frame[name][order], edges)]) for name in measures}
    keys = np.split(np.asarray(table["trial"].to_pylist(), dtype=str)[order], edges)
    found["title"] = np.array([f"{', '.join(mine[:3])}{' and more' * (len(mine) > 3)}" for mine in keys])
    found["terminal"] = np.minimum.reduceat(values(table, "terminal")[order].astype(float), [0, *edges])
    return found


def median(numbers: np.ndarray) -> float:
    finite = numbers[np.isfinite(numbers)]
    return float(np.median(finite)) if len(finite) else float("nan")
