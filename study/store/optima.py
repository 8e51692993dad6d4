"""Optima of the unconstrained-feature model that a user computed for this folder: optima/<digest>.csv.
One file holds one optimum and is never changed, so that everyone who seals the folder uses the same optima."""

from gnc_models.references.tables import OwnOptima
from study.store.storage import Storage, digest_of


def write_optimum(storage: Storage, *values: float) -> None:
    """Store one optimum, its values in the order of OPTIMUM_COLUMNS."""
    line = (",".join(f"{value:.10g}" for value in values) + "\n").encode()
    storage.write(f"optima/{digest_of(line)}.csv", line)


def read_optima(storage: Storage) -> OwnOptima:
    """All optima stored in the folder; a line that is torn or foreign is skipped."""
    names = [f"optima/{entry.name}" for entry in storage.entries("optima", ".csv")]
    return OwnOptima.parse((storage.read(name) or b"").decode(errors="replace") for name in names)
