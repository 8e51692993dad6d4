"""Learning rate, temperature and length of training, and when training has come to rest: when loss and smallest margin
differ little between the last two quarters. Why quarters of all steps so far, and means over them: docs/decisions/0009.
Knows settings and numbers; does not know torch, data or how a step is taken."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from study.design.config import TrialConfig

ANNEALED = 0.8  # share of the budget over which an annealed temperature falls; the rest is at its end
WARM_UP = 0.3  # share of the budget over which one_cycle rises to the peak
WARM_UP_START = 0.04  # learning rate at its first step, as a share of the peak
CHECKS = 16  # in each doubling of the epochs, from epoch 16 on
LEAST_IN_QUARTER = 4


@dataclass(frozen=True)
class Pace:
    learning_rate: float
    temperature: float


def awaited_course(config: TrialConfig, steps_per_epoch: int, begun: int | None) -> tuple[int, int]:
    """Steps at the peak rate, and steps over which it falls, of a budget that waits for an event: terminal, stationary.
    begun: the step at which the event was seen; None while it is awaited: then the longest that the cap allows."""
    is_terminal, most = config.budget == "terminal", config.max_steps or 0
    falling = (config.terminal_epochs or 0) * steps_per_epoch
    latest = (config.max_epochs or 0) * steps_per_epoch - falling if is_terminal else math.ceil(2 * most / 3)
    held = latest if begun is None else min(begun, latest)
    return held, falling if is_terminal else min(math.ceil(held / 2), most - held)


def warm_up_steps(config: TrialConfig, steps_per_epoch: int) -> float:
    """Steps over which one_cycle rises, of a budget that waits for an event; 0 for cosine."""
    return WARM_UP * awaited_course(config, steps_per_epoch, None)[1] if config.schedule == "one_cycle" else 0.0


def awaited_rate_share(config: TrialConfig, steps_per_epoch: int, begun: int | None, step: int) -> float:
    """Learning rate over its peak where the end is unknown until an event: the peak until then, and then a cosine.
    one_cycle's warm-up lies under both, so that an early end of the wait makes no leap."""
    (held, falling), (_, longest) = (awaited_course(config, steps_per_epoch, at) for at in (begun, None))
    share = learning_rate_share("cosine", max(0, step - held) / falling)
    if step < warm_up_steps(config, steps_per_epoch):
        share = min(share, learning_rate_share("one_cycle", step / longest))
    return share


def learning_rate_share(schedule: str, progress: float) -> float:
    """Learning rate over its peak at a share of the budget in [0, 1].
    cosine falls from 1 to 0; one_cycle rises from 0.04 to 1 over the first 30 % and falls to 0 by cosine."""
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


@dataclass(frozen=True)
class Check:
    """Mean cross-entropy in nats and smallest one-vs-rest margin of the rows after so many steps.
    is_level: whether the last quarter of the steps until then differed little from the quarter before."""

    step: int
    loss: float
    margin: float
    is_level: bool = False


def is_check_epoch(epoch: int) -> bool:
    """Whether stationarity is looked at: each of the first 31 epochs, then 16 times in each doubling."""
    return epoch > 0 and epoch % max(1, (1 << (epoch.bit_length() - 1)) // CHECKS) == 0


def with_check(
    checks: Sequence[Check], new: Check, *, tolerance: float, temperature: float, warm_up: float
) -> list[Check]:
    """The checks of the second half of training, which later decisions can ask for, the new one judged.
    Args:
        checks: in the order of steps. new: after the last of them.
        tolerance: most change of the mean margin, as a share of it; a fall of the loss counts in the margin's unit, as
            temperature x log(loss). A loss that rises does not count: at a constant rate it leaps up and comes back.
        temperature: of the head, 1 where it has none.
        warm_up: steps over which the learning rate rose; both quarters must lie after them."""
    kept = [check for check in (*checks, new) if 2 * check.step > new.step]
    older, newer = ([c for c in kept if (4 * c.step > 3 * new.step) == is_newer] for is_newer in (False, True))
    if min(len(older), len(newer)) >= LEAST_IN_QUARTER and new.step >= 2 * warm_up:
        before, after = (sum(check.margin for check in quarter) / len(quarter) for quarter in (older, newer))
        fall = temperature * (_mean_log(older) - _mean_log(newer))
        kept[-1] = replace(new, is_level=abs(after - before) <= tolerance * after and fall <= tolerance * after)
    return kept


def is_stationary(checks: Sequence[Check]) -> bool:
    """Whether all checks of the last quarter were level: one alone can be so by chance."""
    newer = [check.is_level for check in checks if 4 * check.step > 3 * checks[-1].step]
    return len(newer) >= LEAST_IN_QUARTER and all(newer)


def _mean_log(checks: Sequence[Check]) -> float:  # a loss of 0 has no logarithm
    return sum(math.log(max(check.loss, 1e-300)) for check in checks) / len(checks)
