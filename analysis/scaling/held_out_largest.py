"""The largest number of classes held out: fit and choice of the form both do without it.

A form chosen by its error on the largest sizes has seen them; its error there is no prediction error. Here the largest
size is taken away first, the form is chosen among the rest, fitted to the rest, and only then compared. Knows form_choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.scaling.form_choice import FormComparison, HeldOut, compare_forms, predict_out, select


@dataclass(frozen=True)
class LargestHeldOut:
    """One measure at one feature_dim: the form, how it was chosen (held-out sizes of the rest, or AICc), the outcome."""

    measure: str
    feature_dim: int
    form: str
    chosen_by: str
    held: HeldOut


@dataclass(frozen=True)
class LargestSummary:
    """All such predictions of one measure: median relative error and share inside 90 % over the held-out cells."""

    measure: str
    median_error: float
    covered: float
    cells: int


def hold_out_largest(comparisons: Sequence[FormComparison]) -> list[LargestHeldOut]:
    """One outcome per comparison; those whose smaller sizes carry no form are left out."""
    return [found for found in map(_held_out, comparisons) if found is not None]


def _held_out(comparison: FormComparison) -> LargestHeldOut | None:
    log_k = comparison.cells.log_predictors[:, 0]
    rest = select(comparison.cells, log_k < log_k.max())
    if len(np.unique(rest.log_predictors)) < 2:
        return None
    inner = compare_forms(rest, comparison.feature_dim, comparison.measure, comparison.within)
    fits = [v.fit for v in inner.verdicts if v.fit]
    if not fits:
        return None
    by_size = inner.chosen is not None
    form = inner.chosen or min(fits, key=lambda fit: fit.aicc).form
    held = predict_out(form, comparison.cells, comparison.feature_dim, np.array([log_k.max()]))
    if held is None:
        return None
    chosen_by = "its largest sizes" if by_size else "AICc"
    return LargestHeldOut(comparison.measure, comparison.feature_dim, form, chosen_by, held)


def summarise_by_measure(found: Sequence[LargestHeldOut]) -> list[LargestSummary]:
    """The outcomes by measure."""
    summaries = []
    for measure in dict.fromkeys(b.measure for b in found):
        own = [b.held for b in found if b.measure == measure]
        errors = [e for held in own for e in held.errors]
        cells = sum(held.cells for held in own)
        covered = sum(held.covered * held.cells for held in own) / cells
        summaries.append(LargestSummary(measure, float(np.median(errors)), covered, cells))
    return summaries
