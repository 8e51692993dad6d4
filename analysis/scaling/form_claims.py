"""What the compared forms say of theory's large-K exponent, and of the largest size when they are chosen and fitted without
it. Knows the forms compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.rows import theory
from analysis.rows.measures import MARGIN
from analysis.scaling.cells import select
from analysis.scaling.form_choice import Ends, FormComparison, HeldOut, compare_forms, judge
from analysis.scaling.forms import CORRECTIONS, fit_form
from analysis.scaling.power_law import Exponent, FitRefused
from gnc_models.progress import counted


@dataclass(frozen=True)
class Asymptote:
    """The large-K exponent of a margin beside theory's limit.
    exponent: of the form with a correction, with the ends of all CORRECTIONS together. verdict: whether these hold the
    limit; `cannot tell` where there are none, or where they hold 0. why: the reason then."""

    exponent: Exponent | None
    limit: float
    verdict: Literal["inside", "outside", "cannot tell"]
    why: str = ""


def asymptote(comparison: FormComparison) -> Asymptote | None:
    """What the form with a correction says of theory, whatever form was chosen; None for other measures and d = 1.
    A form without a correction has no say: over the class counts that can be trained, the best codes themselves are
    bent, and its exponent misses theirs. Nor has one correction alone, with many sizes or little scatter: the interval of
    its exponent counts scatter, not how the correction fades."""
    if comparison.measure != MARGIN or comparison.feature_dim < 2:
        return None
    limit = theory.asymptotic_exponent(comparison.feature_dim)
    verdict = next((v for v in comparison.verdicts if v.form == CORRECTIONS[0]), None)
    if verdict is None or verdict.fit is None:
        return Asymptote(None, limit, "cannot tell", (verdict and verdict.refused) or "it was not fitted")
    try:
        others = [fit_form(name, comparison.cells, comparison.feature_dim) for name in CORRECTIONS[1:]]
    except FitRefused as refusal:
        return Asymptote(None, limit, "cannot tell", str(refusal))
    known = [fit.parameters[0] for fit in (verdict.fit, *others)]
    low, high = min(p.low or 0 for p in known), max(p.high or 0 for p in known)
    exponent = replace(known[0], low=low, high=high)
    if exponent.holds(0):
        return Asymptote(exponent, limit, "cannot tell", "its interval holds 0")
    return Asymptote(exponent, limit, "inside" if exponent.holds(limit) else "outside")


@dataclass(frozen=True)
class LargestHeldOut:
    """One measure at one feature_dim: the form and the outcome."""

    measure: str
    feature_dim: int
    form: str
    held: HeldOut


def hold_out_largest(comparisons: Sequence[FormComparison]) -> list[LargestHeldOut]:
    """The largest size predicted by forms that are both chosen and fitted without it, where the smaller sizes suffice.
    A form chosen by its error on the largest sizes has seen them, so its error there is no prediction error."""
    found = []
    for comparison in counted(comparisons, "largest sizes kept out", len(comparisons)):
        cells, dim, measure = comparison.cells, comparison.feature_dim, comparison.measure
        out = cells.log_predictors[:, 0] == cells.log_predictors[:, 0].max()
        if len(np.unique(cells.log_predictors[~out])) < 2:
            continue
        rest = compare_forms(select(cells, ~out), dim, measure, comparison.within)
        for inner in rest.series or (rest,):
            known = set(inner.weighted[0][0].levels) if inner.chosen else set()
            if inner.chosen and (held := judge(select(cells, out), known, _by_size(inner))):
                found.append(LargestHeldOut(measure, dim, inner.chosen, held))
    return found


def _by_size(comparison: FormComparison) -> Callable[[np.ndarray, str], Ends]:
    return lambda predictors, group: comparison.expected(predictors[:, 0], group)


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
