"""What a user's training loop hands over, as tensors: NumPy arrays and tensors of any float type, on any device.

Knows torch and numpy; does not know measures.
"""

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

ArrayLike: TypeAlias = Any  # a torch tensor, a NumPy array, or what numpy.asarray takes


def as_floats(name: str, values: ArrayLike) -> Tensor:
    """A tensor of floating-point numbers that shares memory with `values` where it can; detached, on its device.

    Raises:
        ValueError: numbers of another kind: integers are no features, and complex numbers have no margin.
    """
    tensor = _as_tensor(name, values)
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating-point numbers, got {tensor.dtype}. Convert them first.")
    return tensor


def as_labels(name: str, values: ArrayLike) -> Tensor:
    """Labels as int64.

    Raises:
        ValueError: floating-point or boolean labels, of which one cannot say what class they mean.
    """
    tensor = _as_tensor(name, values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, one class per sample, got {tensor.dtype}. Give class numbers.")
    return tensor.to(torch.int64)


def _as_tensor(name: str, values: ArrayLike) -> Tensor:
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_meta:
            kind = values.device if values.is_meta else values.layout
            raise ValueError(f"{name} must be a dense tensor with values, got one of {kind}. Use to_dense() first.")
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be a tensor or an array of numbers, got {array.dtype} of {type(values)}.")
    if array.dtype.kind == "u" or not array.dtype.isnative:  # torch adds no unsigned integers wider than a byte
        array = array.astype(np.int64 if array.dtype.kind == "u" else array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing here writes
        return torch.from_numpy(np.ascontiguousarray(array))
