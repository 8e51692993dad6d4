"""GNC2: margins of the classifier rows over classes, by how often a class is seen, and the forms free of scale."""

import math
from collections.abc import Callable, Iterator

import torch
from scipy.stats import rankdata
from torch import Tensor

from gnc_models.columns import columns
from gnc_models.geometry.margins import Margins
from gnc_models.geometry.pairwise import EPS, one_vs_rest_scores, row_norms, unit
from gnc_models.metrics.class_statistics import ClassStatistics, MeanResiduals
from gnc_models.shapes import Bool, Float, Int

SHARES = {"margin_share_1": 0.01, "margin_share_5": 0.05, "margin_share_20": 0.20}
Solve = Callable[..., Margins]  # name, rows: certified margins, begun from those found under the name the time before


@columns("minimum", "margin_min_lower", "margin_min_upper")
def minimum_columns(smallest: tuple[float, float]) -> tuple[float, float]:
    return smallest


@columns("margins", "margin_mean", "margin_q05", "margin_q50", "margin_q95", *SHARES, "rattler_count")
def margin_columns(margins: Margins) -> list[float | int]:
    """How the margins are spread above the smallest."""
    middle = _middle(margins)
    quantiles = torch.quantile(middle, middle.new_tensor([0.05, 0.5, 0.95])).tolist()
    # certified: what a class surely has, against the most that the minimum can be
    beyond = [margins.lower > (1 + eps) * margins.minimum[1] for eps in SHARES.values()]
    return [float(middle.mean()), *quantiles, *(float(share.double().mean()) for share in beyond), _rattlers(margins)]


@columns(
    "scale-free",
    *("hull_margin_min_lower", "hull_margin_min_upper", "centred_margin_min_lower", "centred_margin_min_upper"),
)
def scale_free_columns(
    rows: Float[Tensor, "classes dim"], unit_weights: bool, solve: Solve
) -> tuple[float, float, float, float] | None:
    """Margins that a common shift of all rows does not change; None where the head normalises its rows."""
    if unit_weights:
        return None
    centred, shift = _centred(rows)
    lengths = row_norms(centred)
    cut = EPS * lengths  # twice the rounding of the subtraction
    scale, off = math.sqrt(math.fsum((lengths**2).tolist()) / len(rows)), shift + float(cut.max())
    if not scale > off:
        return None
    # A common shift changes no distance, so only `cut` moves these rows; the exact scale is within `off` of this one,
    # the triangle inequality of the root mean square, and its own rounding.
    hull = solve("hull", centred, directions=False).minimum
    rounding = EPS * (rows.shape[1] / 2 + 8)
    least, most = (scale - off) * (1 - rounding), (scale + off) * (1 + rounding)
    low, high = max(0.0, hull[0] - 2 * float(cut.max())), hull[1] + 2 * float(cut.max())
    angular = solve("centred", centred, errors=shift + cut).minimum
    return low / most * (1 - rounding), high / least * (1 + rounding), *angular


def _centred(rows: Float[Tensor, "classes dim"]) -> tuple[Float[Tensor, "classes dim"], float]:
    """The rows minus their mean, and how far that mean may be from the exact one."""
    centre = rows.mean(0, keepdim=True)
    centre = centre + (rows - centre).mean(0)  # keeps the digits of rows with a long common part
    residuals = MeanResiduals(centre)
    residuals.update(rows, torch.zeros(len(rows), dtype=torch.int64, device=rows.device))
    return rows - centre, float(residuals.bound()[0])


def _rattlers(margins: Margins) -> int:
    """Classes whose row can be left out without changing the smallest margin, certified."""
    may_be_least = margins.lower <= margins.minimum[1]
    carries = margins.coefficients[may_be_least] > 0
    if not bool(carries.any(1).all()):  # a nearest point that is not known may need any row
        return 0
    free = ~may_be_least
    free[margins.support_rows[may_be_least][carries]] = False
    return int(free.sum())


@columns("means", "mean_margin_min_lower", "mean_margin_min_upper")
def mean_margin_columns(
    head: ClassStatistics, mean_errors: Float[Tensor, " present"], solve: Solve
) -> tuple[float, float]:
    return solve("means", head.means, errors=mean_errors).minimum


@columns("sphere", "mean_direction_margin_min")
def direction_column(sphere: ClassStatistics, unit_rows: Tensor, classes: Int[Tensor, " present"]) -> float:
    """The least margin of the class means' directions against the rows."""
    return float(one_vs_rest_scores(unit(sphere.means), classes, unit_rows).min())


def _named(third: str) -> tuple[str, str, str, str]:
    return f"margin_{third}_min_lower", f"margin_{third}_min_upper", f"margin_{third}_q50", f"weight_{third}_cosine"


@columns("imbalance", *_named("rare"), *_named("frequent"), "margin_count_correlation")
def count_columns(
    margins: Margins, unit_rows: Float[Tensor, "classes dim"], sample_counts: Int[Tensor, " classes"]
) -> Iterator[float | None]:
    """Margins and mean cosine of the rarest and the most frequent third of the classes (Fang et al., PNAS 2021)."""
    for members in rare_and_frequent(sample_counts) or (None, None):
        yield from _of_third(members, margins, unit_rows)
    yield _count_correlation(margins, sample_counts)


def rare_and_frequent(
    counts: Int[Tensor, " classes"],
) -> tuple[Bool[Tensor, " classes"], Bool[Tensor, " classes"]] | None:
    """Which classes are the rarest and which the most frequent third; None where the two cannot be told apart.
    A class as frequent as the last of its third belongs to it, so that the order of the classes does not decide."""
    ordered = counts.sort().values
    third = len(ordered) // 3
    if not third or ordered[third - 1] == ordered[-third]:
        return None
    return counts <= ordered[third - 1], counts >= ordered[-third]


def _of_third(members: Tensor | None, margins: Margins, unit_rows: Tensor) -> tuple[float | None, ...]:
    if members is None:
        return (None,) * 4
    size = int(members.sum())
    total = float(unit_rows[members].sum(0).square().sum())  # of all ordered pairs, each row with itself as well
    cosine = (total - size) / (size * (size - 1)) if size > 1 else None
    low, high = float(margins.lower[members].min()), float(margins.upper[members].min())
    return low, high, float(_middle(margins)[members].quantile(0.5)), cosine


def _count_correlation(margins: Margins, counts: Tensor) -> float | None:
    """Spearman's correlation; None if counts are equal, or margins may all be (rounding has no rank)."""
    if bool((counts == counts[0]).all()) or float(margins.lower.max()) <= float(margins.upper.min()):
        return None
    ranks = torch.stack([torch.from_numpy(rankdata(values.cpu())) for values in (_middle(margins), counts)])
    return float(torch.corrcoef(ranks)[0, 1])


def _middle(margins: Margins) -> Float[Tensor, " classes"]:
    return (margins.lower + margins.upper) / 2
