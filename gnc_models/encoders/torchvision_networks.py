"""torchvision's convolutional networks with stems that keep the resolution, so that the side shrinks by 8, not 32.
Weights start as torchvision starts them, replaced convolutions by the same rule, and there is no dropout."""

from collections.abc import Callable

import torchvision
from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from gnc_models.encoders.building_blocks import MAP_NORMS, exchange_layers, image_shape, initialise_plain

# Expansion, channels, blocks, stride of each stage: torchvision's own but for stride 1 in the second stage.
MOBILENET = ([1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1])


def make_resnet(name: str, build: Callable[..., ResNet]) -> Callable[..., ResNet]:
    """The constructor of encoder `name` from torchvision's constructor of a residual network."""

    def make(input_shape: tuple[int, ...], feature_dim: int, *, norm_layer: str) -> ResNet:
        channels, _, _ = image_shape(name, input_shape)
        network = build(weights=None, num_classes=feature_dim, norm_layer=MAP_NORMS[norm_layer])
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        return _with_start_values(network, norm_layer)

    return make


make_resnet18 = make_resnet("resnet18", torchvision.models.resnet18)
make_resnet34 = make_resnet("resnet34", torchvision.models.resnet34)
make_resnet50 = make_resnet("resnet50", torchvision.models.resnet50)
make_resnext50 = make_resnet("resnext50", torchvision.models.resnext50_32x4d)


def make_densenet121(input_shape: tuple[int, ...], feature_dim: int, *, norm_layer: str) -> DenseNet:
    """DenseNet121. torchvision gives it no choice of normalization, so its layers are exchanged."""
    channels, _, _ = image_shape("densenet121", input_shape)
    network = torchvision.models.densenet121(weights=None, num_classes=feature_dim)
    network.features.conv0 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.features.conv0.weight)
    network.features.pool0 = nn.Identity()
    if norm_layer != "batch":
        exchange_layers(network, nn.BatchNorm2d, lambda layer: MAP_NORMS[norm_layer](layer.num_features))
    return _with_start_values(network, norm_layer)


def make_mobilenet_v2(input_shape: tuple[int, ...], feature_dim: int, *, norm_layer: str) -> MobileNetV2:
    """MobileNetV2 with stride 1 in the stem and in the second stage."""
    channels, _, _ = image_shape("mobilenet_v2", input_shape)
    norm = MAP_NORMS[norm_layer]
    network = MobileNetV2(feature_dim, inverted_residual_setting=MOBILENET, norm_layer=norm, dropout=0.0)
    network.features[0][0] = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")
    return _with_start_values(network, norm_layer)


def _with_start_values(network: nn.Module, norm_layer: str) -> nn.Module:
    if norm_layer == "none":
        blocks = list(network.modules())
        ends = [block.conv2 for block in blocks if isinstance(block, BasicBlock)]
        ends += [block.conv3 for block in blocks if isinstance(block, Bottleneck)]
        # the last entry is the normalization
        ends += [b.conv[-2] for b in blocks if isinstance(b, InvertedResidual) and b.use_res_connect]
        initialise_plain([layer for layer in blocks if isinstance(layer, nn.Conv2d)], ends)
    return network
