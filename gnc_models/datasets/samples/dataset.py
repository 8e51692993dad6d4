"""What a data set is: labelled tensors for training, test and unseen variants, and their digest."""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int64, Num
from torch import Tensor

from gnc_models.datasets.samples.streamed import Streamed, in_order, read_batches


@dataclass(frozen=True)
class Dataset:
    """Samples sorted by class, labels 0 to classes - 1, all on the CPU; inputs that are too large are `Streamed`.
    Inputs are float32 `[samples, channels, height, width]` images or `[samples, dim]` vectors, or int64
    `[samples, context]` tokens or `[samples, 1]` indices, or uint8 images, which networks see times `input_scale`.
    `unseen_*` are samples of the same classes from a source kept out of training and test, `ood_inputs` samples of
    other classes; each is None where there is none. Test labels are always true; training labels are those trained on."""

    train_inputs: Num[Tensor, " train *input"] | Streamed
    train_labels: Int64[Tensor, " train"]
    test_inputs: Num[Tensor, " test *input"] | Streamed | None
    test_labels: Int64[Tensor, " test"] | None
    unseen_inputs: Num[Tensor, " unseen *input"] | Streamed | None
    unseen_labels: Int64[Tensor, " unseen"] | None
    class_names: tuple[str, ...]
    ood_inputs: Num[Tensor, " ood *input"] | Streamed | None = None
    single_continuation: Bool[Tensor, " train"] | None = None  # text: contexts that one label alone follows
    label_entropy: float | None = None  # text: entropy of the training label given its context, nats
    vocabulary: int | None = None  # text: token ids run from 0 to below this
    input_scale: float | None = None  # of uint8 inputs
    source: str | None = None  # text: what was read, and its version

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all samples, 64 hex digits; streamed ones are read for it, once."""
        names = itertools.product(("train", "test", "unseen"), ("inputs", "labels"))
        parts = (getattr(self, "_".join(name)) for name in names)
        # a later field joins only where it is there, so that sets without it keep the digest they always had
        later = [tensor for tensor in (self.ood_inputs, self.single_continuation) if tensor is not None]
        return digest_tensors([*parts, *later])


def label_samples(
    train: Num[Tensor, "classes train_samples *input"], test: Num[Tensor, "classes test_samples *input"],
    class_names: tuple[str, ...], unseen: Num[Tensor, "classes unseen_samples *input"] | None = None,
) -> Dataset:  # fmt: skip
    """A data set from the samples of each class in turn; `class_names` has one name per class."""
    parts = [(part.flatten(0, 1), [part.shape[1]] * len(part)) for part in (train, test, unseen) if part is not None]
    return label_counted(parts[0], parts[1], class_names, *parts[2:])


# inputs `[samples, *input]`, those of a class together, and how many each class has
Counted = tuple[Tensor | Streamed, list[int]]


def label_counted(
    train: Counted, test: Counted, class_names: tuple[str, ...], unseen: Counted | None = None
) -> Dataset:
    """A data set from samples class after class, of which classes may have different numbers."""
    classes = torch.arange(len(class_names))
    train_labels, test_labels = (classes.repeat_interleave(torch.tensor(counts)) for _, counts in (train, test))
    unseen_labels = None if unseen is None else classes.repeat_interleave(torch.tensor(unseen[1]))
    unseen_inputs = None if unseen is None else unseen[0]
    return Dataset(train[0], train_labels, test[0], test_labels, unseen_inputs, unseen_labels, class_names)


def digest_tensors(tensors: Iterable[Tensor | Streamed | None]) -> str:
    """SHA-256, as 64 hex digits, of the tensors' order, dtypes, shapes and bytes; None counts as a tensor of its own."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none;")
            continue
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
        for part in read_batches(tensor, in_order(len(tensor))):
            digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
