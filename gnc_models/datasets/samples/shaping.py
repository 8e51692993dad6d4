"""What turns a balanced set with true labels into the one trained on: classes kept out, a long tail, label noise, and random
changes of each training batch, made on the batch's device without a loop over samples in Python."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor
from torch.nn import functional

from gnc_models.datasets.samples.dataset import Dataset

# Streams of random numbers, far from those of the sets themselves; a stream's number never changes.
_KEYS, _OFFSETS = 1000, 1001


def keep_out_classes(dataset: Dataset, num_classes: int) -> Dataset:
    """The first `num_classes` classes; the test samples of the others become `ood_inputs`."""
    if dataset.test_inputs is None or dataset.test_labels is None:
        raise ValueError("ood_classes must be left out for a set without test samples.")
    changed: dict[str, Any] = {"ood_inputs": dataset.test_inputs[dataset.test_labels >= num_classes]}
    for part in ("train", "test", "unseen"):
        inputs, labels = getattr(dataset, f"{part}_inputs"), getattr(dataset, f"{part}_labels")
        if labels is not None:
            kept = labels < num_classes
            changed |= {f"{part}_inputs": inputs[kept], f"{part}_labels": labels[kept]}
    return replace(dataset, class_names=dataset.class_names[:num_classes], **changed)


def keep_counts(dataset: Dataset, counts: tuple[int, ...]) -> Dataset:
    """The first `counts[k]` training samples of each class k; test samples stay as they are."""
    held = torch.bincount(dataset.train_labels, minlength=len(counts))
    starts = (held.cumsum(0) - held).tolist()
    kept = torch.cat([torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)])
    return replace(dataset, train_inputs=dataset.train_inputs[kept], train_labels=dataset.train_labels[kept])


def add_label_noise(dataset: Dataset, label_noise: float, data_seed: int) -> Dataset:
    """Training samples under labels of which a share is wrong, sorted by the labels they now have.
    Below 1 exactly that share, rounded half up, get another label than their own, all others with equal chances. More
    noise wrongs the same samples in the same way and others beside them. At 1 the labels are shuffled over all samples.
    ValueError: a class left without a sample."""
    if label_noise == 0:
        return dataset
    labels = noisy_labels(dataset.train_labels, label_noise, data_seed)
    if len(empty := (torch.bincount(labels, minlength=len(dataset.class_names)) == 0).nonzero()):
        got = f"got {label_noise!r} and none for {len(empty)} classes. Raise samples_per_class."
        raise ValueError(f"label_noise must leave every class a sample, {got}")
    order = labels.argsort(stable=True)
    changed = replace(dataset, train_inputs=dataset.train_inputs[order], train_labels=labels[order])
    if dataset.single_continuation is not None:
        assert isinstance(changed.train_inputs, Tensor)  # text is held
        single, entropy = mark_contexts(changed.train_inputs, changed.train_labels)
        changed = replace(changed, single_continuation=single, label_entropy=entropy)
    return changed


def noisy_labels(labels: Int64[Tensor, " samples"], label_noise: float, data_seed: int) -> Int64[Tensor, " samples"]:
    """The labels, sorted on entry, after noise as `add_label_noise` describes it."""
    counts = torch.bincount(labels).tolist()
    # one stream per class, so that a class's chances do not depend on which others there are
    keys = np.concatenate([np.random.default_rng([data_seed, _KEYS, k]).random(n) for k, n in enumerate(counts)])
    order = torch.from_numpy(np.argsort(keys, kind="stable"))
    if label_noise == 1:
        return labels[order]
    chances = np.concatenate([np.random.default_rng([data_seed, _OFFSETS, k]).random(n) for k, n in enumerate(counts)])
    offsets = torch.from_numpy(1 + np.floor(chances * (len(counts) - 1)).astype(np.int64))
    wrong = order[: int(np.floor(label_noise * len(labels) + 0.5))]
    noisy = labels.clone()
    noisy[wrong] = (labels[wrong] + offsets[wrong]) % len(counts)
    return noisy


def mark_contexts(
    contexts: Int64[Tensor, "samples context"], labels: Int64[Tensor, " samples"]
) -> tuple[Bool[Tensor, " samples"], float]:
    """Which samples have a context that one label alone follows, and the label's entropy given the context.
    It is the empirical `-sum_{c,y} p(c, y) log p(y | c)` in nats: no function of the context has a lower cross-entropy."""
    # a row's bytes as one value: rows are equal exactly where these are
    rows = np.ascontiguousarray(contexts.numpy()).view(np.dtype((np.void, contexts.shape[1] * 8)))[:, 0]
    _, group = np.unique(rows, return_inverse=True)
    wide = int(labels.max()) + 1
    pairs, counts = np.unique(group * wide + labels.numpy(), return_counts=True)
    owner = pairs // wide
    share = counts / np.bincount(owner, weights=counts)[owner]
    entropy = float(-(counts * np.log(share)).sum() / len(rows))
    return torch.from_numpy(np.bincount(owner)[group] == 1), entropy + 0.0  # never -0.0


Throw = Callable[..., Tensor]  # draw(below, *rows): random whole numbers in 0..below-1, `[*rows, samples]`


def _crop_flip(inputs: Tensor, draw: Throw) -> Tensor:
    moved = _move(inputs, -(-max(inputs.shape[2:]) // 8), draw)
    return torch.where(draw(2).view(-1, 1, 1, 1) == 1, moved.flip(3), moved)


def _move(inputs: Tensor, margin: int, draw: Throw) -> Tensor:
    samples, _, height, width = inputs.shape
    # new margins are 0: the background of the images, so a shifted image looks like one drawn there
    windows = functional.pad(inputs, (margin,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    offsets = draw(2 * margin + 1, 2)
    return windows[torch.arange(samples, device=inputs.device), :, offsets[0], offsets[1]]


AUGMENTATIONS: dict[str, Callable[[Tensor, Throw], Tensor]] = {
    "none": lambda inputs, draw: inputs,
    "shift": lambda inputs, draw: _move(inputs, 1, draw),
    "crop_flip": _crop_flip,
}


def augment(
    inputs: Shaped[Tensor, " batch *input"], augmentation: str | None, generator: torch.Generator, *, start: int = 0,
    batch_size: int | None = None,
) -> Shaped[Tensor, " batch *input"]:  # fmt: skip
    """One batch, or a part of one, changed at random: a sample changes in the same way in any part of the batch.
    Args:
        inputs: images `[batch, channels, height, width]` with background 0; anything where nothing is changed.
        augmentation: None or "none": the batch itself; "shift": each image moved by -1, 0 or 1 pixels each way, 0 where
            it came from outside; "crop_flip": by up to an eighth of the longer side, then mirrored or not.
        generator: on any device; left untouched where nothing is changed.
        start, batch_size: the place of the first input in its batch, and the batch's samples; None: the inputs are all."""
    if augmentation is None:
        return inputs
    if augmentation != "none" and inputs.ndim != 4:
        got = f"got {augmentation!r} for shape {tuple(inputs.shape)}"
        raise ValueError(f"augmentation must be none for inputs that are not images, {got}.")
    end = start + len(inputs)

    def draw(below: int, *rows: int) -> Tensor:
        # for the whole batch, so that every part of it sees the same numbers
        shape = (*rows, end if batch_size is None else batch_size)
        drawn = torch.randint(0, below, shape, generator=generator, device=generator.device)
        return drawn[..., start:end].to(inputs.device)

    return AUGMENTATIONS[augmentation](inputs, draw)
