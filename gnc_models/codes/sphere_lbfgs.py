"""Minimising a smooth function of unit rows: L-BFGS on a product of spheres, many starts as one batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from gnc_models.shapes import Float

# Value of each start and its gradient in the surrounding space; points are (starts, rows, dim) with unit rows, and the
# second argument says which starts of the batch they belong to.
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SUFFICIENT_DECREASE = 1e-4
SMALLEST_STEP = 1e-10
MEMORY = 10  # pairs of step and gradient change that are remembered


def minimise_on_spheres(
    objective: Objective, points: Float[Tensor, "starts rows dim"], *, iterations: int, tolerance: float = 1e-12,
    at_once: int | None = None,
) -> tuple[Float[Tensor, "starts rows dim"], Float[Tensor, " starts"]]:  # fmt: skip
    """Local minima near each start, and their values, none above that of its start; starts share only the batch.
    At most `at_once` starts are one batch. A start is done when its gradient's largest row norm is below `tolerance`.
    Source: Liu and Nocedal, Math. Programming 45 (1989), with projection onto the tangent space as transport."""
    parts = torch.arange(len(points)).split(at_once or len(points))
    found = [_minimise(objective, points[part], part, iterations, tolerance) for part in parts]
    return torch.cat([p for p, _ in found]), torch.cat([v for _, v in found])


def _minimise(
    objective: Objective, points: Tensor, starts: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    value, gradient = _tangent(objective, points, starts)
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    for _ in range(iterations):
        active = gradient.norm(dim=-1).amax(-1) > tolerance
        if not active.any():
            break
        direction = _project(_two_loops(gradient, steps, changes), points)
        # where the memory misleads, go straight down instead
        uphill = _inner(direction, gradient) >= 0
        direction = torch.where(uphill[:, None, None], -gradient, direction)
        if not steps:
            direction = direction * (0.1 / direction.norm(dim=-1).amax(-1).clamp_min(0.1))[:, None, None]
        direction = direction * active[:, None, None]
        moved, moved_value, moved_gradient = _line_search(objective, points, starts, value, gradient, direction)
        if not (moved_value < value).any():
            if not steps:
                break
            steps, changes = [], []
            continue
        steps.append(_project(moved - points, moved))
        changes.append(moved_gradient - _project(gradient, moved))
        del steps[:-MEMORY], changes[:-MEMORY]
        points, value, gradient = moved, moved_value, moved_gradient
    return points, value


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1))


def _project(vectors: Tensor, points: Tensor) -> Tensor:
    return vectors - (vectors * points).sum(-1, keepdim=True) * points


def _tangent(objective: Objective, points: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    value, gradient = objective(points, starts)
    return value, _project(gradient, points)


def _two_loops(gradient: Tensor, steps: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The L-BFGS direction of each start; pairs without positive curvature count for nothing."""
    direction = -gradient
    weights = []
    curvatures = [_inner(s, y) for s, y in zip(steps, changes, strict=True)]
    rates = [torch.where(c > 1e-300, 1 / c.clamp_min(1e-300), torch.zeros_like(c)) for c in curvatures]
    for s, y, rate in zip(reversed(steps), reversed(changes), reversed(rates), strict=True):
        weights.append(rate * _inner(s, direction))
        direction = direction - weights[-1][:, None, None] * y
    if steps:
        size = _inner(changes[-1], changes[-1])
        scale = torch.where(curvatures[-1] > 1e-300, curvatures[-1] / size.clamp_min(1e-300), torch.ones_like(size))
        direction = direction * scale[:, None, None]
    for s, y, rate, weight in zip(steps, changes, rates, reversed(weights), strict=True):
        direction = direction + (weight - rate * _inner(y, direction))[:, None, None] * s
    return direction


def _line_search(
    objective: Objective, points: Tensor, starts: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Backtracking per start; a start that finds no decrease stays where it is."""
    slope = _inner(direction, gradient)
    # no row turns by more than about half a radian at once
    step = 0.5 / direction.norm(dim=-1).amax(-1).clamp_min(0.5)
    best = points.clone(), value.clone(), gradient.clone()
    waiting = torch.nonzero(slope < 0).flatten()
    while len(waiting):
        trial = points[waiting] + step[waiting, None, None] * direction[waiting]
        trial = trial / trial.norm(dim=-1, keepdim=True)
        trial_value, trial_gradient = _tangent(objective, trial, starts[waiting])
        allowed = value[waiting] + SUFFICIENT_DECREASE * step[waiting] * slope[waiting]
        good = trial_value <= allowed
        for kept, found in zip(best, (trial, trial_value, trial_gradient), strict=True):
            kept[waiting[good]] = found[good]
        waiting = waiting[~good]
        step[waiting] *= 0.3
        waiting = waiting[step[waiting] > SMALLEST_STEP]
    return best
