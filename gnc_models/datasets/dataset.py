"""What a data set is: labelled tensors for training, test and unseen variants, and their digest."""

import hashlib
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Samples sorted by class, labels 0 to classes - 1, all on the CPU; inputs are float32.

    Inputs are `[samples, channels, height, width]` images or `[samples, dim]` vectors. `unseen_*` are samples of the
    same classes from a source kept out of training and test, None where there is none.
    """

    train_inputs: Float[Tensor, "train *input"]
    train_labels: Int64[Tensor, " train"]
    test_inputs: Float[Tensor, "test *input"]
    test_labels: Int64[Tensor, " test"]
    unseen_inputs: Float[Tensor, "unseen *input"] | None
    unseen_labels: Int64[Tensor, " unseen"] | None
    class_names: tuple[str, ...]
    digest: str


def make_digest(tensors: tuple[Tensor | None, ...]) -> str:
    """SHA-256, as 64 hex digits, of the tensors' order, dtypes, shapes and bytes; None counts as a tensor of its own."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none;")
            continue
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()
