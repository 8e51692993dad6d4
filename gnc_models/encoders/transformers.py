"""Transformers: torchvision's ViT on images, a causal decoder on tokens. Knows torch and torchvision. No dropout."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer

from gnc_models.encoders.building_blocks import even_parts, image_shape, sequence_length

INIT_STD = 0.02  # of embeddings and linear maps, as in GPT-2


def make_vit(input_shape: tuple[int, ...], feature_dim: int, *, width: int, depth: int) -> VisionTransformer:
    """torchvision's ViT with `depth` layers of `width` units on patches of 4 pixels (8 from a side of 64, 16 from 128).
    Attention has one head for every 32 units of a width that they divide, the MLPs 4 times the width. torchvision
    starts the last linear map at zero, where a feature has no direction; here it starts as nn.Linear does."""
    channels, height, side = image_shape("vit", input_shape)
    patch = 4 if side < 64 else 8 if side < 128 else 16
    if height != side or side % patch:
        rule = f"input_shape must be square with a multiple of {patch} pixels per side for vit"
        raise ValueError(f"{rule}, got {input_shape!r}. Choose another resolution.")
    network = VisionTransformer(side, patch, depth, _num_heads(width), hidden_dim=width, mlp_dim=4 * width)
    network.conv_proj = nn.Conv2d(channels, width, patch, stride=patch)
    nn.init.trunc_normal_(network.conv_proj.weight, std=(channels * patch**2) ** -0.5)
    nn.init.zeros_(network.conv_proj.bias)
    network.heads = nn.Linear(width, feature_dim)
    return network


class CausalBlock(nn.Module):
    """Attention to this and earlier positions, then an MLP, each on the layer norm of what it is added to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = _num_heads(width)
        self.norm1 = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, inputs: Float[Tensor, "batch context width"]) -> Float[Tensor, "batch context width"]:
        heads = self.attention_in(self.norm1(inputs)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        hidden = inputs + self.attention_out(attended.transpose(1, 2).flatten(2))
        return hidden + self.mlp_out(functional.gelu(self.mlp_in(self.norm2(hidden))))


class CausalTransformer(nn.Module):
    """Token and position embeddings, causal blocks, a last layer norm; the last position is the feature (GPT-2)."""

    def __init__(self, context: int, vocabulary: int, width: int, depth: int, feature_dim: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(context, width) * INIT_STD)
        self.blocks = nn.ModuleList(CausalBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.to_features = nn.Linear(width, feature_dim)
        nn.init.normal_(self.tokens.weight, std=INIT_STD)
        for block in self.blocks:
            for name, layer in block.named_children():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=INIT_STD / (2 * depth) ** (0.5 * name.endswith("_out")))
                    nn.init.zeros_(layer.bias)

    def hidden(self, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch context width"]:
        """Every position's state after the last layer norm; no state depends on a later token."""
        state = self.tokens(tokens) + self.positions
        for block in self.blocks:
            state = block(state)
        return self.norm(state)

    def forward(self, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch dim"]:
        return self.to_features(self.hidden(tokens)[:, -1])


def make_transformer(
    input_shape: tuple[int, ...], feature_dim: int, *, width: int, depth: int, vocabulary: int
) -> CausalTransformer:
    """A decoder of `depth` blocks with `width` units; heads and MLPs as in `make_vit`."""
    return CausalTransformer(sequence_length("transformer", input_shape), vocabulary, width, depth, feature_dim)


def _num_heads(width: int) -> int:
    return even_parts(width, least=32, most=width)
