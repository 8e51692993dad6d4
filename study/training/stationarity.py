"""When training has come to rest: loss and smallest margin differ little between the last two quarters of training.
Why quarters of all steps so far, and why means over them: docs/decisions/0009-a-trial-ends-at-rest.md. Knows numbers alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

CHECKS = 16  # in each doubling of the epochs, from epoch 16 on
LEAST_IN_QUARTER = 4


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
        warm_up: steps over which the learning rate rose; both quarters must lie after them.
    """
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
