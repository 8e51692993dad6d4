"""Batch normalization over a batch that several processes share, on any device: torch's own refuses CPU tensors.
It takes the statistics of all shares, uneven ones too, and gives every process the same running ones."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from gnc_models.encoders.building_blocks import exchange_layers


class SynchronisedBatchNorm(_BatchNorm):
    """A BatchNorm layer whose batch is that of all processes of a group; parameters and buffers are the layer's own."""

    def __init__(self, layer: _BatchNorm, group: distributed.ProcessGroup | None = None) -> None:
        """Takes over an affine layer that tracks running statistics by a momentum; group None: the default group."""
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self._group = group
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:  # the base class asks for it; channels are the second axis
        return

    def forward(self, input: Float[Tensor, "batch channels *map"]) -> Float[Tensor, "batch channels *map"]:
        if not self.training:
            return super().forward(input)
        values = input.to(self.weight.dtype)
        normalised, mean, variance, count = _Normalise.apply(values, self.weight, self.bias, self.eps, self._group)
        layer: Any = self
        with torch.no_grad():
            layer.num_batches_tracked += 1
            layer.running_mean.lerp_(mean, layer.momentum)
            layer.running_var.lerp_(variance * (count / (count - 1)), layer.momentum)
        return normalised.to(input.dtype)


class _Normalise(torch.autograd.Function):
    """The normalised share, and mean, biased variance and values a channel of the whole batch."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float, group: distributed.ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        others = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, others, correction=0)
        own = torch.cat([mean, variance, mean.new_tensor([values.numel() / len(mean)])])
        shares = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(shares, own, group=group)  # all processes get the same bits
        means, variances, counts = torch.stack(shares).split([len(mean), len(mean), 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        # Chan's update: squared deviations from each share's own mean, and the spread of these means
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        inverse = (variance + eps).rsqrt()
        along = [1, -1, *[1] * (values.ndim - 2)]
        normalised = (values - mean.view(along)) * (inverse * weight).view(along) + bias.view(along)
        ctx.save_for_backward(values, weight, mean, inverse, count)
        ctx.group, ctx.others, ctx.along = group, others, along
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of the sum of all processes' losses; those of weight and bias are the share's part."""
        values, weight, mean, inverse, count = ctx.saved_tensors
        unit = (values - mean.view(ctx.along)) * inverse.view(ctx.along)
        slope_bias, slope_weight = slope.sum(ctx.others), (slope * unit).sum(ctx.others)
        sums = torch.stack([slope_bias, slope_weight])
        distributed.all_reduce(sums, group=ctx.group)
        by_mean, by_scale = (sums / count).unbind()
        centred = slope - by_mean.view(ctx.along) - unit * by_scale.view(ctx.along)
        return centred * (weight * inverse).view(ctx.along), slope_weight, slope_bias, None, None


def synchronise_batch_norms(network: nn.Module, group: distributed.ProcessGroup | None = None) -> None:
    """Exchange every BatchNorm below a network for a SynchronisedBatchNorm with the same parameters and names."""
    exchange_layers(network, _BatchNorm, lambda layer: SynchronisedBatchNorm(layer, group))
