"""GNC2: margins of the classifier rows over classes, by how often a class is seen, and the forms free of scale.

Knows certified margins; does not know features.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnc_models.geometry.margins import Margins, one_vs_rest_margins
from gnc_models.geometry.pairwise import EPS, unit
from gnc_models.metrics.feature_views import Values

SHARES = {"margin_share_1": 0.01, "margin_share_5": 0.05, "margin_share_20": 0.20}


def margin_columns(margins: Margins) -> Values:
    """The interval of the smallest margin, and how the others are spread above it."""
    middle = _middle(margins)
    low, median, high = torch.quantile(middle, middle.new_tensor([0.05, 0.5, 0.95])).tolist()
    smallest = margins.minimum[1]
    return {
        "margin_min_lower": margins.minimum[0],
        "margin_min_upper": smallest,
        "margin_mean": float(middle.mean()),
        "margin_q05": low,
        "margin_q50": median,
        "margin_q95": high,
        # certified: what a class surely has, against the most that the minimum can be
        **{name: float((margins.lower > (1 + eps) * smallest).double().mean()) for name, eps in SHARES.items()},
    }


def scale_free_columns(
    rows: Float[Tensor, "classes dim"], unit_weights: bool, tolerance: float, start: Margins
) -> Values:
    """Margins that a common shift of all rows does not change; None where the head normalises its rows."""
    names = ("hull_margin_min_lower", "hull_margin_min_upper", "centred_margin_min_lower", "centred_margin_min_upper")
    centred = rows - rows.mean(0)
    scale = float(centred.square().sum(1).mean().sqrt())
    if unit_weights or not scale:
        return dict.fromkeys(names)
    hull = one_vs_rest_margins(centred, tolerance=tolerance, warm_start=start).minimum
    angular = one_vs_rest_margins(unit(centred), tolerance=tolerance, warm_start=start).minimum
    rounding = 4 * EPS  # of the scale and of the division by it
    found = (hull[0] / scale * (1 - rounding), hull[1] / scale * (1 + rounding), *angular)
    return dict(zip(names, found, strict=True))


# --- by class count ----------------------------------------------------------------------------------------------


def count_columns(margins: Margins, unit_rows: Float[Tensor, "classes dim"], counts: Int[Tensor, " classes"]) -> Values:
    """Margins and mean cosine of the rarest and the most frequent third of the classes; None if counts are equal.

    Source: Fang et al., PNAS 118 (2021): under imbalance the rows of minority classes fall into one direction.
    """
    values: Values = {}
    thirds = rare_and_frequent(counts)
    for name, members in zip(("rare", "frequent"), thirds or (None, None), strict=True):
        values |= _group_columns(name, members, margins, unit_rows)
    return values | {"margin_count_correlation": _count_correlation(margins, counts)}


def rare_and_frequent(
    counts: Int[Tensor, " classes"],
) -> tuple[Bool[Tensor, " classes"], Bool[Tensor, " classes"]] | None:
    """Which classes are the rarest and which the most frequent third; None where the two cannot be told apart.

    A class as frequent as the last of its third belongs to it, so that the order of the classes does not decide.
    """
    ordered = counts.sort().values
    third = len(ordered) // 3
    if not third or ordered[third - 1] == ordered[-third]:
        return None
    return counts <= ordered[third - 1], counts >= ordered[-third]


def _group_columns(name: str, members: Tensor | None, margins: Margins, unit_rows: Tensor) -> Values:
    names = (f"margin_{name}_min_lower", f"margin_{name}_min_upper", f"margin_{name}_q50", f"weight_{name}_cosine")
    if members is None:
        return dict.fromkeys(names)
    size = int(members.sum())
    total = float(unit_rows[members].sum(0).square().sum())  # of all ordered pairs, each row with itself as well
    cosine = (total - size) / (size * (size - 1)) if size > 1 else None
    low, high = float(margins.lower[members].min()), float(margins.upper[members].min())
    return dict(zip(names, (low, high, float(_middle(margins)[members].quantile(0.5)), cosine), strict=True))


def _count_correlation(margins: Margins, counts: Tensor) -> float | None:
    """Spearman's correlation; None if counts are equal, or margins may all be (rounding has no rank)."""
    if bool((counts == counts[0]).all()) or float(margins.lower.max()) <= float(margins.upper.min()):
        return None
    ranks = torch.stack([_ranks(_middle(margins)), _ranks(counts)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Float[Tensor, " values"]:
    """Ranks from the smallest, equal values sharing the mean of theirs."""
    _, place, repeats = values.unique(return_inverse=True, return_counts=True)
    return (repeats.cumsum(0) - (repeats - 1).to(torch.float64) / 2)[place]


def _middle(margins: Margins) -> Float[Tensor, " classes"]:
    return (margins.lower + margins.upper) / 2
