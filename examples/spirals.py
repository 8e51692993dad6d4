"""Data of one's own from NumPy arrays: points on the arms of a spiral, one class per arm."""

import numpy as np


def make_spirals(arms=8, samples=64, noise=0.02, seed=0):
    """Training and test data, each inputs [arms * samples, 2] and labels [arms * samples]."""
    return tuple(_draw(arms, samples, noise, np.random.default_rng([seed, part])) for part in range(2))


def _draw(arms, samples, noise, draw):
    labels = np.repeat(np.arange(arms), samples)
    along = draw.uniform(0.2, 1, size=len(labels))
    angle = 2 * np.pi * labels / arms + 3 * along
    points = along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points + noise * draw.normal(size=points.shape)).astype(np.float32), labels
