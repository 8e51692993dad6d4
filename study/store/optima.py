"""What a folder holds for all its trials: rows of best codes, codes/K-d-version.npy, and optima that a user computed.
An optimiser's last digits differ between machines: the first trial that needs a code computes it, and all others read it.
A file of optima/ holds one and is never changed. Does not know how a code or an optimum is found."""

import hashlib
import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from gnc_models.references.tables import OwnOptima
from study.store.storage import FolderError, Storage, digest_of

Rows = Float[np.ndarray, "classes dim"]


def shared_code(storage: Storage, size: tuple[int, int], version: str, make: Callable[[], Rows]) -> Rows:
    """The folder's rows for this many classes and dimensions; `make` computes them if the folder has none yet.
    version: of the tables and the search that `make` follows; rows of another version are another file. FolderError
    where the file does not hold rows of this size."""
    name = "codes/{}-{}-{}.npy".format(*size, version)
    held = storage.read_once(name)
    if held is None:
        stream = io.BytesIO()
        np.save(stream, make(), allow_pickle=False)
        held = storage.write_once(name, stream.getvalue())
    try:
        rows = np.load(io.BytesIO(held), allow_pickle=False)
        if rows.shape != size:
            raise ValueError(f"shape {rows.shape}")
    except (ValueError, EOFError) as error:
        rule = f"{name} must hold a code of {size[0]} classes in {size[1]} dimensions"
        cure = "Restore it from a copy; if no trial used it yet, delete it."
        raise FolderError(f"{rule}, got {error} in {storage.uri!r}. {cure}") from None
    return rows


def code_digest(rows: Rows) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, np.float64).tobytes()).hexdigest()


def write_optimum(storage: Storage, *values: float) -> None:
    line = (",".join(f"{value:.10g}" for value in values) + "\n").encode()
    storage.write(f"optima/{digest_of(line)}.csv", line)


def read_optima(storage: Storage) -> OwnOptima:
    """All optima stored in the folder; a line that is torn or foreign is skipped."""
    names = [f"optima/{entry.name}" for entry in storage.entries("optima", ".csv")]
    return OwnOptima.parse((storage.read(name) or b"").decode(errors="replace") for name in names)
