"""What a data set is: labelled tensors for training, test and unseen variants, and their digest."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Samples sorted by class, labels 0 to classes - 1, all on the CPU.

    Inputs are float32 `[samples, channels, height, width]` images or `[samples, dim]` vectors, or int64
    `[samples, context]` tokens or `[samples, 1]` indices. `unseen_*` are samples of the same classes from a source kept
    out of training and test, `ood_inputs` samples of other classes; each is None where there is none. Test labels are
    always true; training labels are those trained on.
    """

    train_inputs: Float[Tensor, " train *input"] | Int64[Tensor, " train *input"]
    train_labels: Int64[Tensor, " train"]
    test_inputs: Float[Tensor, " test *input"] | Int64[Tensor, " test *input"] | None
    test_labels: Int64[Tensor, " test"] | None
    unseen_inputs: Float[Tensor, " unseen *input"] | None
    unseen_labels: Int64[Tensor, " unseen"] | None
    class_names: tuple[str, ...]
    digest: str
    ood_inputs: Float[Tensor, " ood *input"] | None = None
    single_continuation: Bool[Tensor, " train"] | None = None  # text: contexts that one label alone follows
    label_entropy: float | None = None  # text: entropy of the training label given its context, nats
    vocabulary: int | None = None  # text: token ids run from 0 to below this
    source: str | None = None  # text: what was read, and its version


def label_samples(
    train: Float[Tensor, "classes train_samples *input"],
    test: Float[Tensor, "classes test_samples *input"],
    class_names: tuple[str, ...],
    unseen: Float[Tensor, "classes unseen_samples *input"] | None = None,
) -> Dataset:
    """A data set from the samples of each class in turn; `class_names` has one name per class."""
    train_inputs, train_labels = _flatten_classes(train)
    test_inputs, test_labels = _flatten_classes(test)
    unseen_inputs, unseen_labels = (None, None) if unseen is None else _flatten_classes(unseen)
    tensors = (train_inputs, train_labels, test_inputs, test_labels, unseen_inputs, unseen_labels)
    return Dataset(*tensors, class_names, digest_tensors(tensors))


def _flatten_classes(inputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.flatten(0, 1), torch.arange(inputs.shape[0]).repeat_interleave(inputs.shape[1])


def with_digest(dataset: Dataset) -> Dataset:
    """The same data set with the digest of the tensors it now has."""
    tensors = [dataset.train_inputs, dataset.train_labels, dataset.test_inputs, dataset.test_labels]
    tensors += [dataset.unseen_inputs, dataset.unseen_labels]
    # a later field joins only where it is there, so that sets without it keep the digest they always had
    later = [tensor for tensor in (dataset.ood_inputs, dataset.single_continuation) if tensor is not None]
    return replace(dataset, digest=digest_tensors([*tensors, *later]))


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
