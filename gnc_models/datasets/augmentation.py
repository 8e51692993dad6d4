"""Random changes of a training batch, made on the batch's own device, with no work per sample in Python."""

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional


def _shift(inputs: Tensor, generator: torch.Generator) -> Tensor:
    _check_images(inputs, "shift")
    return _move(inputs, 1, generator)


def _crop_flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    _check_images(inputs, "crop_flip")
    moved = _move(inputs, -(-max(inputs.shape[2:]) // 8), generator)
    flips = torch.randint(0, 2, (len(inputs), 1, 1, 1), generator=generator, device=generator.device).to(inputs.device)
    return torch.where(flips == 1, moved.flip(3), moved)


def _check_images(inputs: Tensor, augmentation: str) -> None:
    if inputs.ndim != 4:
        raise ValueError(
            f"augmentation must be none for inputs that are not images, got {augmentation!r} for shape "
            f"{tuple(inputs.shape)}."
        )


def _move(inputs: Tensor, margin: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `margin` pixels each way."""
    samples, _, height, width = inputs.shape
    # new margins are 0: the background of the images, so a shifted image looks like one drawn there
    windows = functional.pad(inputs, (margin,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    places = 2 * margin + 1
    offsets = torch.randint(0, places, (2, samples), generator=generator, device=generator.device).to(inputs.device)
    return windows[torch.arange(samples, device=inputs.device), :, offsets[0], offsets[1]]


AUGMENTATIONS = {"none": lambda inputs, generator: inputs, "shift": _shift, "crop_flip": _crop_flip}


def augment(
    inputs: Shaped[Tensor, "batch *input"], augmentation: str | None, generator: torch.Generator
) -> Shaped[Tensor, "batch *input"]:
    """One batch, changed at random.

    Args:
        inputs: images `[batch, channels, height, width]` with background 0; anything where nothing is changed.
        augmentation: None or "none": the batch itself; "shift": each image moved by -1, 0 or 1 pixels each way,
            independently and with equal chances, 0 where it came from outside; "crop_flip": likewise by up to an
            eighth of the longer side, rounded up (4 pixels of 28 or 32), then mirrored left to right or not.
        generator: the source of chance, on any device; left untouched where nothing is changed.
    Raises:
        ValueError: an unknown augmentation, or a change of inputs that are not images.
    """
    if augmentation is None:
        return inputs
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation must be one of {sorted(AUGMENTATIONS)}, got {augmentation!r}.")
    return AUGMENTATIONS[augmentation](inputs, generator)
