"""Reads matrices from files of the user: .npy, .npz, .safetensors, .pt. Code in a pickle is never run.

Knows numpy, torch and safetensors; does not know what the matrices mean.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from study.design.errors import StudyError

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth", ".bin")
LISTED = 20  # candidates named in a refusal


def read_tensors(path: str) -> dict[str, Tensor]:
    """Every tensor of the file by name; StudyError for a file that is absent, torn, unsafe or of another kind."""
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise StudyError(f"FILE must end in one of {', '.join(SUFFIXES)}, got {path!r}.")
    if not Path(path).is_file():
        raise StudyError(f"FILE must be a file that exists, got {path!r}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # the refusals below are enough
            if suffix == ".safetensors":
                return load_file(path)
            if suffix in (".npy", ".npz"):
                return _read_numpy(path)
            return dict(_flatten(torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))))
    except pickle.UnpicklingError:
        raise StudyError(
            f"FILE must hold tensors only, got {path!r}, which would have to run code to load. "
            "Save the tensors alone: safetensors.torch.save_file(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # noqa: BLE001 - torn bytes raise what zipfile, zlib, struct, ast and torch raise
        first = (str(error).splitlines() or [""])[0]
        raise StudyError(f"FILE must be readable, got {path!r}: {first or type(error).__name__}.") from None


def array_names(path: str) -> set[str]:
    """The names of all arrays in a readable .npz file, with those that hold no numbers and that `read_tensors` skips."""
    return set(np.load(path, allow_pickle=False))


def read_matrix(path: str, name: str | None) -> Tensor:
    """The matrix of that name, or the only one; StudyError lists the candidates where several could be meant."""
    tensors = read_tensors(path)
    matrices = {n: t for n, t in tensors.items() if t.ndim == 2 and t.is_floating_point() and t.shape[0] >= 2}
    if name is not None:
        if name not in tensors:
            raise StudyError(
                f"--tensor must name a tensor of {path}, got {name!r}. It holds {_listing(matrices) or 'none'}."
            )
        if name not in matrices:
            shape = tuple(tensors[name].shape)
            raise StudyError(f"--tensor must name a floating-point matrix of at least 2 rows, got {name!r} of {shape}.")
        return matrices[name]
    if not matrices:
        raise StudyError(
            f"FILE must hold a floating-point matrix of at least 2 rows, got {path!r} without one: "
            f"{_listing(tensors) or 'no tensors'}."
        )
    if len(matrices) > 1:
        raise StudyError(f"--tensor must be given where a file holds several matrices: {_listing(matrices)}.")
    return next(iter(matrices.values()))


def check_finite(rows: Tensor, what: str) -> None:
    """StudyError naming the first row that is not finite."""
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero()
    if len(bad):
        raise StudyError(
            f"{what} must be finite, got {len(bad)} rows with NaN or infinity, the first is {int(bad[0])}."
        )


def _read_numpy(path: str) -> dict[str, Tensor]:
    loaded = np.load(path, allow_pickle=False)
    arrays = {"array": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    return {
        name: torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
        for name, array in arrays.items()
        # a zip archive may hold bytes that are no array; torch has no long double
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiubc" and array.dtype.char not in "gG"
    }


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Dense tensors with values of nested dicts and lists, named by the path to them."""
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
        return [(prefix or "tensor", value.detach())] if dense else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [found for key, inner in items for found in _flatten(inner, f"{prefix}.{key}" if prefix else str(key))]


def _listing(tensors: dict[str, Tensor]) -> str:
    # a name may hold line breaks
    shown = [f"{repr(name)[1:-1]} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:LISTED]]
    return ", ".join(shown) + (f", ... {len(tensors)} in all" if len(tensors) > LISTED else "")
