"""The largest size predicted by forms that are both chosen and fitted without it. Knows the forms compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.scaling.cells import select
from analysis.scaling.form_choice import FormComparison, HeldOut, compare_forms, judge


@dataclass(frozen=True)
class LargestHeldOut:
    """One measure at one feature_dim: the form and the outcome."""

    measure: str
    feature_dim: int
    form: str
    held: HeldOut


def hold_out_largest(comparisons: Sequence[FormComparison]) -> list[LargestHeldOut]:
    """The largest size predicted by forms that are both chosen and fitted without it.

    A form chosen by its error on the largest sizes has seen them, so its error there is no prediction error. Comparisons
    whose smaller sizes do not suffice for any form are left out.
    """
    return [one for comparison in comparisons for one in _hold_out_largest(comparison)]


def _hold_out_largest(comparison: FormComparison) -> list[LargestHeldOut]:
    cells, dim = comparison.cells, comparison.feature_dim
    out = cells.log_predictors[:, 0] == cells.log_predictors[:, 0].max()
    if len(np.unique(cells.log_predictors[~out])) < 2:
        return []
    rest = compare_forms(select(cells, ~out), dim, comparison.measure, comparison.within)
    found = []
    for inner in rest.series or (rest,):
        known = set(inner.weighted[0][0].levels) if inner.chosen else set()
        if inner.chosen and (held := judge(select(cells, out), known, inner.expected)):
            found.append(LargestHeldOut(comparison.measure, dim, inner.chosen, held))
    return found


def summarise_by_measure(found: Sequence[LargestHeldOut]) -> dict[str, HeldOut]:
    """By measure, the outcomes of all its dimensions as one."""
    summaries = {}
    for measure in dict.fromkeys(one.measure for one in found):
        own = [one.held for one in found if one.measure == measure]
        errors, cells = [e for held in own for e in held.errors], sum(held.cells for held in own)
        covered = sum(held.covered * held.cells for held in own) / cells
        sizes = tuple(sorted({size for held in own for size in held.sizes}))
        summaries[measure] = HeldOut(float(np.median(errors)), covered, cells, sizes, tuple(errors))
    return summaries
