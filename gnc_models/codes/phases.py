"""The optimum of free features where it is known: in closed form, from a table, or from the arrangement that a search found
to be lowest at its temperature. One function for all who compare with it. Torch is loaded only where rows are moved."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from gnc_models.references import tables
from gnc_models.references.tables import NO_OPTIMA, OwnOptima, UnconstrainedOptimum
from gnc_models.shapes import Float

Phase = dict[str, str]  # a row of phases.csv


def unconstrained_optimum(
    num_classes: int, feature_dim: int, temperature: float, own: OwnOptima = NO_OPTIMA
) -> UnconstrainedOptimum | None:
    """The finite-temperature optimum of free unit rows W and H, or None where it is not known.
    Args:
        num_classes, feature_dim: K and d.
        temperature: tau, above 0. Tables of single temperatures match it to six digits, phases hold all in between.
        own: optima of a results folder; one of them counts where nothing shipped has a lower loss.
    Returns:
        The best loss found and the margin of W there, with its range over minima near it. Up to d + 1 classes the
        simplex, in closed form. With source "phases" it is an `unconstrained_features.Optimum`, which has the rows."""
    known = tables.tabulated_optimum(num_classes, feature_dim, temperature, own)
    if known is not None and known.source != "results":
        return known
    moved = phase_optimum(num_classes, feature_dim, float(temperature))
    return min((optimum for optimum in (known, moved) if optimum), key=lambda optimum: optimum.loss, default=None)


@functools.lru_cache(maxsize=4096)
def phase_optimum(num_classes: int, feature_dim: int, temperature: float) -> UnconstrainedOptimum | None:
    """The optimum from the table of phases: stored rows of the phase and of its neighbours, moved to this temperature.
    `starts` and `found` are those of the search in the phase: random starts at its temperatures, and how many of them
    ended at its arrangement. None where the table has no such size or the temperature is not between 2 and 0.02."""
    phases, points = _cell(num_classes, feature_dim)
    inside = [i for i, phase in enumerate(phases) if float(phase["cold"]) <= temperature <= float(phase["hot"])]
    if not inside:
        return None
    import torch

    from gnc_models.codes.unconstrained_features import lowest_from

    # near a switch both sides count, as minima near the lowest
    first, last = max(0, inside[0] - 1), inside[-1] + 2
    near = [points[first][-1:]] * (first < inside[0]) + points[inside[0] : inside[-1] + 1]
    near += [part[:1] for part in points[inside[-1] + 1 : last]]
    rows = torch.from_numpy(np.concatenate(near).astype(np.float64))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    phase = phases[inside[0]]
    found = lowest_from(rows, temperature)
    # digits in which machines may differ are left out: sealed rows hold these numbers
    known: dict[str, Any] = {n: round(getattr(found, n), 7) for n in ("margin", "margin_low", "margin_high")}
    known |= {"loss": float(f"{found.loss:.10g}"), "starts": int(phase["starts"]), "found": int(phase["found"])}
    return replace(found, **known, source="phases")


def _cell(num_classes: int, feature_dim: int) -> tuple[list[Phase], list[Float[np.ndarray, "points rows dim"]]]:
    """The phases of a size from hot to cold, and the stored points of each, W above H."""
    phases = _phases().get((num_classes, feature_dim), [])
    if not phases:
        return [], []
    ends = itertools.accumulate(int(phase["points"]) for phase in phases)
    with np.load(tables.data_file("phases.npz")) as stored:
        return phases, np.split(stored[f"{num_classes},{feature_dim}"], list(ends)[:-1])


@functools.cache
def _phases() -> dict[tuple[int, int], list[Phase]]:
    cells: dict[tuple[int, int], list[Phase]] = {}
    for row in tables.read_table("phases.csv"):
        cells.setdefault((int(row["num_classes"]), int(row["feature_dim"])), []).append(row)
    return cells
