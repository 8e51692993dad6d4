"""The layers of each encoder at which collapse can be measured; the catalog says which function is whose."""

from collections.abc import Iterable

from torch import nn
from torchvision.models import DenseNet, MobileNetV2, ResNet, VisionTransformer

from gnc_models.encoders.small import BasicBlock, Mlp, SmallResNet
from gnc_models.encoders.torchvision_networks import MOBILENET_STAGES
from gnc_models.encoders.transformers import CausalTransformer

Stages = list[tuple[str, nn.Module]]


def _numbered(name: str, modules: Iterable[nn.Module]) -> Stages:
    return [(f"{name}{number}", module) for number, module in enumerate(modules, start=1)]


def small_resnet(encoder: SmallResNet) -> Stages:
    blocks = [layer for layer in encoder if isinstance(layer, BasicBlock)]
    return [("stem", encoder[3]), *_numbered("block", blocks), ("features", encoder[-1])]


def mlp(encoder: Mlp) -> Stages:
    hidden = [layer for layer in encoder if isinstance(layer, nn.ReLU)]
    return [*_numbered("hidden", hidden), ("features", encoder[-1])]


def resnet(encoder: ResNet) -> Stages:
    layers = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
    # The pooling that became an identity: what it passes on has been through the stem's ReLU.
    return [("stem", encoder.maxpool), *_numbered("layer", layers), ("features", encoder.fc)]


def densenet(encoder: DenseNet) -> Stages:
    blocks = [getattr(encoder.features, f"denseblock{number}") for number in range(1, 5)]
    return [("stem", encoder.features.pool0), *_numbered("block", blocks), ("features", encoder.classifier)]


def mobilenet(encoder: MobileNetV2) -> Stages:
    ends, last = [], 0
    for _, _, blocks, _ in MOBILENET_STAGES:
        last += blocks
        ends.append(encoder.features[last])
    stages = [("stem", encoder.features[0]), *_numbered("stage", ends), ("expansion", encoder.features[-1])]
    return [*stages, ("features", encoder.classifier)]


def vit(encoder: VisionTransformer) -> Stages:
    blocks = _numbered("block", encoder.encoder.layers)
    return [("patches", encoder.conv_proj), *blocks, ("norm", encoder.encoder.ln), ("features", encoder.heads)]


def transformer(encoder: CausalTransformer) -> Stages:
    blocks = _numbered("block", encoder.blocks)
    return [("tokens", encoder.tokens), *blocks, ("norm", encoder.norm), ("features", encoder.to_features)]
