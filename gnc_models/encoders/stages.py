"""The layers of an encoder at which collapse can be measured. Knows the encoders; no measure."""

from collections.abc import Callable, Iterable

from torch import nn
from torchvision.models import DenseNet, MobileNetV2, ResNet, VisionTransformer

from gnc_models.encoders.small import BasicBlock, Mlp, SmallResNet
from gnc_models.encoders.torchvision_networks import MOBILENET_STAGES
from gnc_models.encoders.transformers import CausalTransformer

Stages = list[tuple[str, nn.Module]]


def feature_stages(encoder: nn.Module) -> Stages:
    """Named modules of an encoder, from input to output, whose outputs are its successive representations.

    An output is `[batch, channels, height, width]` in networks on images, `[batch, tokens, width]` in transformers
    (the class token is the first one in vit, which has it from its blocks on; the last position is what the causal
    transformer reads out) and `[batch, units]` in mlp. The last stage, named "features", is the encoder's own output.

    Args:
        encoder: what `make_encoder` returned, but for unconstrained.
    Returns:
        (name, module) in the order in which a forward pass calls them, each once.
    Raises:
        ValueError: an encoder without layers, or none of this package's.
    """
    for kind, stages in _STAGES.items():
        if isinstance(encoder, kind):
            return stages(encoder)
    raise ValueError(
        f"encoder must be a network that make_encoder built, got {type(encoder).__name__}. Free features have no layers."
    )


def _numbered(name: str, modules: Iterable[nn.Module]) -> Stages:
    return [(f"{name}{number}", module) for number, module in enumerate(modules, start=1)]


def _small_resnet(encoder: SmallResNet) -> Stages:
    blocks = [layer for layer in encoder if isinstance(layer, BasicBlock)]
    return [("stem", encoder[3]), *_numbered("block", blocks), ("features", encoder[-1])]


def _mlp(encoder: Mlp) -> Stages:
    hidden = [layer for layer in encoder if isinstance(layer, nn.ReLU)]
    return [*_numbered("hidden", hidden), ("features", encoder[-1])]


def _resnet(encoder: ResNet) -> Stages:
    layers = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
    # The pooling that became an identity: what it passes on has been through the stem's ReLU.
    return [("stem", encoder.maxpool), *_numbered("layer", layers), ("features", encoder.fc)]


def _densenet(encoder: DenseNet) -> Stages:
    blocks = [getattr(encoder.features, f"denseblock{number}") for number in range(1, 5)]
    return [("stem", encoder.features.pool0), *_numbered("block", blocks), ("features", encoder.classifier)]


def _mobilenet(encoder: MobileNetV2) -> Stages:
    ends, last = [], 0
    for _, _, blocks, _ in MOBILENET_STAGES:
        last += blocks
        ends.append(encoder.features[last])
    return [
        ("stem", encoder.features[0]),
        *_numbered("stage", ends),
        ("expansion", encoder.features[-1]),
        ("features", encoder.classifier),
    ]


def _vit(encoder: VisionTransformer) -> Stages:
    blocks = _numbered("block", encoder.encoder.layers)
    return [("patches", encoder.conv_proj), *blocks, ("norm", encoder.encoder.ln), ("features", encoder.heads)]


def _transformer(encoder: CausalTransformer) -> Stages:
    blocks = _numbered("block", encoder.blocks)
    return [("tokens", encoder.tokens), *blocks, ("norm", encoder.norm), ("features", encoder.to_features)]


_STAGES: dict[type[nn.Module], Callable[..., Stages]] = {
    SmallResNet: _small_resnet,
    Mlp: _mlp,
    ResNet: _resnet,
    DenseNet: _densenet,
    MobileNetV2: _mobilenet,
    VisionTransformer: _vit,
    CausalTransformer: _transformer,
}
