"""Data of one's own from a `torch.utils.data.Dataset`: stripes of as many directions as there are classes."""

import math

import torch
from torch.utils.data import Dataset


class Gratings(Dataset):
    """Images [1, pixels, pixels] of stripes; the class is their direction, the phase and the noise differ."""

    def __init__(self, classes, samples, pixels, noise, seed):
        self.classes, self.length, self.pixels, self.noise, self.seed = classes, classes * samples, pixels, noise, seed

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(self.seed * self.length + index)  # the same image whenever it is asked for
        label = index % self.classes
        angle, phase = math.pi * label / self.classes, 2 * math.pi * torch.rand((), generator=draw)
        across, down = torch.meshgrid(*[torch.linspace(-1, 1, self.pixels)] * 2, indexing="xy")
        stripes = torch.sin(8 * (across * math.cos(angle) + down * math.sin(angle)) + phase)
        return (stripes + self.noise * torch.randn(stripes.shape, generator=draw))[None], label


def make_gratings(classes=12, samples=32, pixels=16, noise=0.3):
    """Training and test data."""
    return tuple(Gratings(classes, samples, pixels, noise, seed) for seed in (1, 2))
