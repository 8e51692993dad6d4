"""Learning rate and temperature by the share of the budget that is spent.

Knows the settings; does not know torch, epochs or how a step is taken.
"""

import math
from dataclasses import dataclass

from study.design.config import TrialConfig

ANNEALED = 0.8  # share of the budget over which an annealed temperature falls; the rest is at its end
WARM_UP = 0.3  # share of the budget over which one_cycle rises to the peak
WARM_UP_START = 0.04  # learning rate at its first step, as a share of the peak


@dataclass(frozen=True)
class Pace:
    """What one optimiser step is taken with."""

    learning_rate: float
    temperature: float


def learning_rate_share(schedule: str, progress: float) -> float:
    """Learning rate over its peak at a share of the budget in [0, 1].

    cosine falls from 1 to 0; one_cycle rises from 0.04 to 1 over the first 30 % and falls to 0 by cosine.
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if progress < WARM_UP:
        return WARM_UP_START + (1 - WARM_UP_START) * 0.5 * (1 - math.cos(math.pi * progress / WARM_UP))
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def temperature_at(config: TrialConfig, progress: float) -> float:
    """Temperature at a share of the budget in [0, 1]: constant, or falling geometrically until 0.8; 1 where none is."""
    if config.temperature is None:
        return 1.0
    if config.temperature_start is None:
        return config.temperature
    ratio = config.temperature / config.temperature_start
    return float(config.temperature_start * ratio ** min(1.0, progress / ANNEALED))
