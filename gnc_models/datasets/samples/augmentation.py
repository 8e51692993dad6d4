"""Random changes of a training batch, made on the batch's device, without a loop over samples in Python."""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional

Draw = Callable[..., Tensor]  # draw(below, *rows): random whole numbers in 0..below-1, `[*rows, samples]`


def _crop_flip(inputs: Tensor, draw: Draw) -> Tensor:
    moved = _move(inputs, -(-max(inputs.shape[2:]) // 8), draw)
    flips = draw(2).view(-1, 1, 1, 1)
    return torch.where(flips == 1, moved.flip(3), moved)


def _move(inputs: Tensor, margin: int, draw: Draw) -> Tensor:
    """Each image moved by up to `margin` pixels each way."""
    samples, _, height, width = inputs.shape
    # new margins are 0: the background of the images, so a shifted image looks like one drawn there
    windows = functional.pad(inputs, (margin,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    offsets = draw(2 * margin + 1, 2)
    return windows[torch.arange(samples, device=inputs.device), :, offsets[0], offsets[1]]


AUGMENTATIONS: dict[str, Callable[[Tensor, Draw], Tensor]] = {
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
        start, batch_size: the place of the first input in its batch, and the batch's samples; None: the inputs are all.
    """
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
