"""Cross-entropy over many classes without the matrix of logits or its gradient. Knows torch; nothing of classifiers.
Unlike torch's linear_cross_entropy it holds no normalised rows: half the memory at 100,000 classes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ENTRIES = 1 << 24  # logits held at once: 64 MiB in float32
LEAST_NORM = 1e-12  # as in torch.nn.functional.normalize


def chunked_cross_entropy(
    features: Float[Tensor, "batch dim"], weight: Float[Tensor, "classes dim"], labels: Int[Tensor, " batch"], *,
    temperature: float, normalises_rows: bool, chunk_entries: int = CHUNK_ENTRIES,
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean cross-entropy of `features @ rows.T / temperature` in nats, rows being the weight's or its unit rows.
    `chunk_entries` is the most logits held at once, without influence on the value but for rounding. The gradient is
    taken in the same pass, so that no logit is computed twice; it can be differentiated once."""
    if not torch.is_grad_enabled():  # the function itself cannot see that, and would take gradients for nothing
        features, weight = features.detach(), weight.detach()
    return _ChunkedCrossEntropy.apply(features, weight, labels, temperature, normalises_rows, chunk_entries)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The value and both gradients in one pass over the samples."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, labels: Tensor, temperature: float, unit_rows: bool, entries: int
    ) -> Tensor:
        inverse_norms = 1 / weight.norm(dim=1).clamp_min(LEAST_NORM) if unit_rows else None
        wants_features, wants_weight = ctx.needs_input_grad[:2]
        slope_features = torch.empty_like(features) if wants_features else None
        slope_weight = torch.zeros_like(weight) if wants_weight else None
        total = torch.zeros((), dtype=features.dtype, device=features.device)
        size = min(len(features), max(1, entries // len(weight)))
        buffer = features.new_empty(size, len(weight))
        for start in range(0, len(features), size):
            part = slice(start, start + size)
            scaled = features[part] / temperature
            logits = torch.mm(scaled, weight.T, out=buffer[: len(scaled)])
            if inverse_norms is not None:
                logits *= inverse_norms
            loss, slopes = _losses_and_slopes(logits, labels[part])
            total += loss
            if inverse_norms is not None:
                slopes *= inverse_norms
            slopes /= len(features)
            if slope_features is not None:
                torch.matmul(slopes, weight, out=slope_features[part])
            if slope_weight is not None:
                slope_weight.addmm_(slopes.T, scaled)
        if slope_features is not None:
            slope_features /= temperature
        if slope_weight is not None and inverse_norms is not None:
            _remove_radial(slope_weight, weight, inverse_norms, entries)
        ctx.save_for_backward(*(s for s in (slope_features, slope_weight) if s is not None))
        return total / len(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        slopes = [next(saved) * slope if wanted else None for wanted in ctx.needs_input_grad[:2]]
        return (*slopes, None, None, None, None)


def _losses_and_slopes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the samples' cross-entropies, and its gradient by the logits in their place."""
    samples = torch.arange(len(labels), device=labels.device)
    own = logits[samples, labels]
    largest = logits.amax(1)
    odds = logits.sub_(largest[:, None]).exp_()
    total = odds.sum(1)
    slopes = odds.div_(total[:, None])
    slopes[samples, labels] -= 1
    return (total.log() + largest - own).sum(), slopes


def _remove_radial(slopes: Tensor, weight: Tensor, inverse_norms: Tensor, chunk_entries: int) -> None:
    """In place: a row's gradient through its direction has no part along the row."""
    size = max(1, chunk_entries // weight.shape[1])
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        radial = (slopes[part] * weight[part]).sum(1, keepdim=True) * inverse_norms[part, None].square()
        slopes[part].addcmul_(weight[part], radial, value=-1)
