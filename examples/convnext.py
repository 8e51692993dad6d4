"""A network of one's own: ConvNeXt at the size of small images, and any network of timm.

Source: Liu et al., A ConvNet for the 2020s, arXiv 2201.03545 (the block: figure 4; layer scale from 1e-6 is left out, as
the network is shallow). The patches of the stem and the number of stages are smaller, for images of 16 to 32 pixels.
"""

from torch import nn


class Block(nn.Module):
    """Depthwise 7 x 7 convolution, layer normalization over channels, and a pointwise network four times as wide."""

    def __init__(self, width):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, images):
        changed = self.norm(self.spatial(images).permute(0, 2, 3, 1))
        return images + self.channels(changed).permute(0, 3, 1, 2)


def make_convnext(in_shape, feature_dim, width=16, depths=(1, 1), patch=2):
    """[batch, channels, height, width] -> [batch, feature_dim]; the width doubles from stage to stage."""
    stages = [nn.Conv2d(in_shape[0], width, patch, stride=patch)]
    for stage, depth in enumerate(depths):
        here = width * 2**stage
        if stage:
            stages.append(nn.Conv2d(here // 2, here, 2, stride=2))
        stages += [Block(here) for _ in range(depth)]
    last = width * 2 ** (len(depths) - 1)
    return nn.Sequential(
        *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(last), nn.Linear(last, feature_dim)
    )


def make_timm(in_shape, feature_dim, model="convnext_atto", **options):
    """A network of timm by its name, with a last linear map to the features; needs `pip install timm`."""
    import timm

    return timm.create_model(model, in_chans=in_shape[0], num_classes=feature_dim, **options)
