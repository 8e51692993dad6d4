"""Accuracy under perturbations of each input coordinate by at most a radius: FGSM and PGD."""

from collections.abc import Callable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Limits = tuple[float, float] | None


def attack_accuracy(
    model_fn: Callable[[Tensor], Tensor], inputs: Shaped[Tensor, "samples ..."], labels: Int[Tensor, " samples"], *,
    radius: float, steps: int = 1, limits: Limits = None, generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> float:  # fmt: skip
    """Share of inputs classified rightly after each was moved within the l-infinity ball to raise cross-entropy.
    Steps of 2.5 radius / steps, each projected onto the ball and the limits: one from the input is FGSM, more are PGD.
    The last iterate counts: an upper bound of the accuracy under the best attack, never a certificate. In `model_fn` a
    sample's logits must not depend on the others'. A generator draws where in the ball to start, else it is the input.
    Source: Goodfellow et al., arXiv 1412.6572 (FGSM); Madry et al., arXiv 1706.06083 (PGD and its random start)."""
    if not len(inputs) or not inputs.is_floating_point():
        got = f"got {len(inputs)} of {inputs.dtype}. Indices and tokens have no neighbours to move to."
        raise ValueError(f"inputs must be at least one floating-point sample, {got}")

    def attack(inputs: Tensor, labels: Tensor) -> Tensor:
        low, high = inputs - radius, inputs + radius
        if limits is not None:
            low, high = low.clamp_min(limits[0]), high.clamp_max(limits[1])
        moved = inputs
        if generator is not None:
            start = torch.rand(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
            moved = (inputs + radius * (2 * start - 1)).clamp(low, high)
        size = 2.5 * radius / steps  # one step alone is cut to the radius, FGSM's
        for _ in range(steps):
            moved = (moved + size * _direction(model_fn, moved, labels).sign()).clamp(low, high)
        return moved

    right = 0
    for batch, own in zip(inputs.detach().split(batch_size), labels.split(batch_size), strict=True):
        moved = attack(batch, own) if radius else batch
        with torch.no_grad():
            right += int((model_fn(moved).argmax(1) == own).sum())
    return right / len(labels)


def _direction(model_fn: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of L = log sum_{j != y} exp(z_j - z_y): cross-entropy's but for sigmoid(L), lost in float32."""
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_(True)
        logits = model_fn(inputs)
        own = labels.unsqueeze(1)
        others = logits.scatter(1, own, -torch.inf).logsumexp(1)
        (gradient,) = torch.autograd.grad((others - logits.gather(1, own).squeeze(1)).sum(), inputs)
    return gradient
