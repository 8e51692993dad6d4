"""Rows of best codes: the first trial that needs one computes them, and all others, on any machine, read them.
An optimiser's last digits differ between machines, and rows of other codes could not be compared. Does not know how it is found."""

import hashlib
import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from study.store.storage import FolderError, Storage


def shared_code(
    storage: Storage, size: tuple[int, int], version: str, make: Callable[[], Float[np.ndarray, "classes dim"]]
) -> Float[np.ndarray, "classes dim"]:
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
        raise FolderError(
            f"{name} must hold a code of {size[0]} classes in {size[1]} dimensions, got {error} in {storage.uri!r}. "
            "Restore it from a copy; if no trial used it yet, delete it."
        ) from None
    return rows


def code_digest(rows: Float[np.ndarray, "classes dim"]) -> str:
    """SHA-256 of the rows as float64."""
    return hashlib.sha256(np.ascontiguousarray(rows, np.float64).tobytes()).hexdigest()
