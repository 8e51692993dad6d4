"""Random changes of a training batch, made on the batch's own device, with no work per sample in Python."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def _shift(inputs: Tensor, generator: torch.Generator) -> Tensor:
    if inputs.ndim != 4:
        raise ValueError(
            f"augmentation must be none for inputs that are not images, got 'shift' for shape {tuple(inputs.shape)}."
        )
    samples, _, height, width = inputs.shape
    # new margins are 0: the background of the images, so a shifted image looks like one drawn there
    windows = functional.pad(inputs, (1, 1, 1, 1)).unfold(2, height, 1).unfold(3, width, 1)
    offsets = torch.randint(0, 3, (2, samples), generator=generator, device=generator.device).to(inputs.device)
    return windows[torch.arange(samples, device=inputs.device), :, offsets[0], offsets[1]]


AUGMENTATIONS = {"none": lambda inputs, generator: inputs, "shift": _shift}


def augment(
    inputs: Float[Tensor, "batch *input"], augmentation: str | None, generator: torch.Generator
) -> Float[Tensor, "batch *input"]:
    """One batch, changed at random.

    Args:
        inputs: images `[batch, channels, height, width]` with background 0; vectors too where nothing is changed.
        augmentation: None or "none": the batch itself; "shift": each image moved by -1, 0 or 1 pixels each way,
            independently and with equal chances, 0 where it came from outside.
        generator: the source of chance, on any device; left untouched where nothing is changed.
    Raises:
        ValueError: an unknown augmentation, or "shift" for inputs that are not images.
    """
    if augmentation is None:
        return inputs
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation must be one of {sorted(AUGMENTATIONS)}, got {augmentation!r}.")
    return AUGMENTATIONS[augmentation](inputs, generator)
