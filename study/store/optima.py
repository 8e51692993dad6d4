"""Optima of the unconstrained-feature model that were computed on request for this folder: optima/<digest>.csv.

One file holds one optimum and is never changed. Whoever seals the folder compares its rows with the same optima.
"""

from gnc_models.references.tables import OwnOptima
from study.store.storage import Storage, digest_of


def write_optimum(storage: Storage, *values: float) -> None:
    """Keep one optimum, its values in the order of OPTIMUM_COLUMNS."""
    line = (",".join(f"{value:.10g}" for value in values) + "\n").encode()
    storage.write(f"optima/{digest_of(line)}.csv", line)


def read_optima(storage: Storage) -> OwnOptima:
    """All optima kept in the folder; a line that is torn or foreign counts for nothing."""
    names = [f"optima/{entry.name}" for entry in storage.entries("optima", ".csv")]
    return OwnOptima.parse((storage.read(name) or b"").decode(errors="replace") for name in names)
