"""A results folder from Python: rows, trials, heads and margins as pyarrow tables, and a power law of any table. A table is a
data frame for pandas by `.to_pandas()` and for Polars by `polars.from_arrow`; DuckDB takes it as it is."""

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.rows.frames import join_final, of_trials
from analysis.scaling import power_law
from analysis.scaling.power_law import PowerLawFit
from gnc_models.progress import amount
from study.design.errors import SHOWN, StudyError
from study.design.study_file import parse_study
from study.design.where import check_column
from study.scheduling.suggestions import complete_study
from study.store.store import Store, existing_store


def open_results(path: str | Path, *, study: str | None = None) -> "Results":
    """What a results folder holds.

    Args:
        path: the folder or its URI.
        study: the name of a study that was run there, whose trials alone are taken; None for all of the folder.
    Raises:
        ValueError: there is no results folder, or no study of that name was run in it."""
    store = existing_store(path)
    if study is None:
        return Results(store)
    text = store.latest_study(study) or ""
    return Results(store, {c.key for c in complete_study(parse_study(text), store).configs}, text)


class Results:
    """The trials of a results folder, or of one of its studies. Every method reads the folder as it is then.

    Files that cannot be read are left out with a warning. docs/rows.md lists the columns; their units and meanings are
    also in the tables' field metadata."""

    def __init__(self, store: Store, keys: Collection[str] | None = None, study: str | None = None) -> None:
        self.store, self._keys, self._study = store, keys, study

    def __repr__(self) -> str:
        """The folder and how many trials there are."""
        return f"Results({self.store.uri!r}, {amount(self.trials().num_rows, 'trial')})"

    @property
    def study(self) -> str | None:
        """The text of the study file that is meant, or that was run last; None where none was run."""
        return self._study or self.store.latest_study()

    def rows(self, columns: Collection[str] | None = None) -> pa.Table:
        """One row per trial and measured epoch, by both; columns: only these, and the trial's key and epoch."""
        wanted = None if columns is None else {"trial", "epoch", *columns}
        return self._mine(self.store.read(wanted, on_unreadable=_warn))

    def trials(self) -> pa.Table:
        """One row per trial: its settings and how it went."""
        return self._mine(self.store.read_trials(_warn))

    def final(self) -> pa.Table:
        """One row per complete trial: its last measurement, every setting and how it went."""
        return join_final(self._mine(self.store.read(last=True, on_unreadable=_warn)), self.trials())

    def head(self, key: str) -> pa.Table:
        """A trial's classifier at its end: one row per class with `weights` and `class_means`, each a list of dim numbers.

        key: the trial's, or its first digits. `numpy.stack(table["weights"].to_numpy())` gives [classes, dim]."""
        head = self.store.read_head(key := self._find(key), on_unreadable=_warn)
        if head is None:
            raise StudyError(f'key must be of a trial that kept its head, got {key!r}. Run with keep = "head".')
        columns = {name: pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), v.shape[1]) for name, v in head.items()}
        return pa.table({"class_index": pa.array(range(len(head["weights"])), pa.int64()), **columns})

    def margins(self, key: str) -> pa.Table:
        """A trial's margins at its end, one row per class; key: the trial's, or its first digits."""
        found = self.store.read_margins(key := self._find(key), on_unreadable=_warn)
        if found is None:
            raise StudyError(f'key must be of a trial that kept its margins, got {key!r}. Run with keep = "head".')
        return found

    def _find(self, key: str) -> str:
        keys = self.trials()["trial"].to_pylist()
        found = [known for known in keys if known.startswith(key)]
        if len(found) != 1:
            more = ", ..." if len(keys) > SHOWN else "."
            known = f"Keys: {', '.join(keys[:SHOWN])}{more}" if keys else "There is none yet."
            rule = f"key must name one trial of {self.store.uri}, got {key!r}, which names {len(found)}"
            raise StudyError(f"{rule}. {known}")
        return str(found[0])

    def _mine(self, table: pa.Table) -> pa.Table:
        return table if self._keys is None else of_trials(table, self._keys)


def _warn(name: str) -> None:
    warnings.warn(f"{name} cannot be read and was left out", stacklevel=4)


def fit_power_law(
    measure: str | Sequence[float] | np.ndarray, size: str | Sequence[float] | np.ndarray = "num_classes", *,
    data: Any = None, cell: str | Sequence[Any] | None = None, group: str | Sequence[Any] | None = None,
) -> PowerLawFit:  # fmt: skip
    """Fit `measure = prefactor[group] * size ** exponent`, with an interval over sizes.

    Args:
        measure, size: columns of `data` by name, or arrays [rows]; positive.
        data: a table of pyarrow, a data frame of pandas or Polars (any that has Arrow's protocol), or a dictionary of arrays.
        cell: rows of a cell are repetitions, such as seeds, and are averaged; by default the column `cell` of the data,
            or each row for itself.
        group: rows of a group share a prefactor; by default all rows do.
    Returns:
        `.exponent` with `.estimate`, `.low` and `.high` (95 %), the prefactors' logarithms, and what was fitted.
    Raises:
        ValueError: a value that is not positive and finite, or columns that are not there.
        FitRefused: the data carry no interval; its `estimate` is the fit without one.
    Source: as analysis.scaling.power_law."""
    if data is None and any(isinstance(given, str) for given in (measure, size, cell, group)):
        raise StudyError("data must be given where a column is named, got none. Give data=results.final().")
    try:
        table = pa.table({} if data is None else data)
    except (TypeError, pa.ArrowInvalid) as error:
        rule = "data must be a table, a data frame or a dictionary of columns"
        raise StudyError(f"{rule}, got {data!r:.80}: {error}.") from None
    cell = "cell" if cell is None and "cell" in table.column_names else cell
    given = {"measure": measure, "size": size, "group": group, "cell": cell}
    columns = {name: one for name, one in given.items() if one is not None}
    found = {
        n: table[check_column(table, c)].to_pylist() if isinstance(c, str) else list(c) for n, c in columns.items()
    }
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise StudyError(f"measure, size, cell and group must be as long as each other, got {lengths}.")
    arrays = [np.asarray(found[name], dtype=float) for name in ("measure", "size")]
    if not lengths["measure"] or arrays[0].ndim != 1 or arrays[1].ndim != 1:
        shapes = " and ".join(str(one.shape) for one in arrays)
        raise StudyError(f"measure and size must be arrays [rows] of at least one row, got shapes {shapes}.")
    return power_law.fit_power_law(
        *arrays, cell=[str(one) for one in found.get("cell", range(lengths["measure"]))],
        group=[str(one) for one in found["group"]] if group is not None else None,
        name=size if isinstance(size, str) else "size",
    )  # fmt: skip
