"""What a data set is: labelled tensors for training, test and unseen variants, and their digest."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
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


def label_samples(
    train: Float[Tensor, "classes train_samples *input"],
    test: Float[Tensor, "classes test_samples *input"],
    unseen: Float[Tensor, "classes unseen_samples *input"] | None,
    class_names: tuple[str, ...],
) -> Dataset:
    """A data set from the samples of each class in turn; `class_names` has one name a class."""
    train_inputs, train_labels = _flatten_classes(train)
    test_inputs, test_labels = _flatten_classes(test)
    unseen_inputs, unseen_labels = (None, None) if unseen is None else _flatten_classes(unseen)
    tensors = (train_inputs, train_labels, test_inputs, test_labels, unseen_inputs, unseen_labels)
    return Dataset(*tensors, class_names, digest_tensors(tensors))


def _flatten_classes(inputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.flatten(0, 1), torch.arange(inputs.shape[0]).repeat_interleave(inputs.shape[1])


def digest_tensors(tensors: Iterable[Tensor | None]) -> str:
    """SHA-256, as 64 hex digits, of the tensors' order, dtypes, shapes and bytes; None counts as a tensor of its own."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none;")
            continue
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
