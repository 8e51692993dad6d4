"""Certified one-vs-rest margins: how far each classifier row is from the convex hull of all the others.
A class is solved against few candidate rows; one pass over all rows certifies it or names those that join. O(K x d)."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from gnc_models.catalog.settings import check_at_least, check_kind, check_number, shown
from gnc_models.geometry.margin_search import MarginSearch, Step
from gnc_models.geometry.pairwise import EPS, row_norms, scaled, unit
from gnc_models.progress import under_way
from gnc_models.shapes import Float, Int

# Called after each batch with the classes certified, all classes, and the interval of the smallest margin so far.
# Where it returns True the search ends; the bounds hold at any time.
Progress = Callable[[int, int, tuple[float, float]], bool | None]


@dataclass(frozen=True)
class Margins:
    """One-vs-rest margins as intervals, with their certificate.
    `upper[k]` is `|w_k - sum_j coefficients[k, j] w_j|` over the rows j = support_rows[k], and the direction h of that
    difference (or one found earlier) gives `lower[k] = min_j <w_k - w_j, h> / |h|`, both padded outward for rounding. A
    class that was ruled out in mode "min", or whose hull could not be solved, has no support but a near row's distance."""

    lower: Float[Tensor, " classes"]
    upper: Float[Tensor, " classes"]
    support_rows: Int[Tensor, "classes width"]  # rows that carry the nearest hull point found; -1 where unused
    coefficients: Float[Tensor, "classes width"]  # convex coefficients of these rows; 0 where unused
    rounds: int

    @property
    def minimum(self) -> tuple[float, float]:
        """The interval that holds the smallest margin of all classes."""
        return float(self.lower.min()), float(self.upper.min())

    @cached_property
    def support(self) -> list[list[int]]:
        """The rows that carry each class's nearest hull point."""
        return [[j for j in row if j >= 0] for row in self.support_rows.tolist()]


def one_vs_rest_margins(
    weights: Float[Tensor, "classes dim"], *, tolerance: float = 1e-6, mode: Literal["all", "min"] = "all",
    max_rounds: int = 50, warm_start: Margins | None = None, progress: Progress | None = None,
) -> Margins:  # fmt: skip
    """Distance from each class weight to the convex hull of all the others, as a certified interval.
    Args:
        weights, tolerance, mode, warm_start, progress: as of `gnc.margins`; rows are taken as given, at any scale.
        max_rounds: passes over all rows at most; a class not certified by then keeps a wider interval.
    Returns:
        The intervals with their supports. The margin of a row inside the hull of the others is 0: its lower bound is 0,
        and its upper bound small beside the largest row.
    Source: Jiang et al., arXiv 2310.05351 (definition); bounds by convex duality."""
    _check(weights, tolerance, mode, max_rounds, warm_start)
    weights = weights.detach().to(torch.float64)
    scale = torch.frexp(weights.abs().max())[1]
    near_one = scaled(weights, -scale)
    search = MarginSearch(near_one, tolerance, mode, exact=torch.equal(scaled(near_one, scale), weights))
    # of a graphics processor there is one queue
    workers = torch.get_num_threads() if weights.device.type == "cpu" and len(weights) > search.batch else 1
    steps = search.begin()
    if warm_start is not None:
        steps = search.begin_from(warm_start.support_rows, warm_start.coefficients)
    rounds, pending = 0, torch.arange(len(weights), device=weights.device)
    with under_way("classes certified", len(weights)) as loop:

        def told() -> bool:
            loop.done, count = search.progress()
            return bool(progress and progress(loop.done, count, _minimum(search, scale)))

        while not _ended_early(steps, told, workers):
            pending = search.open(pending)
            if not len(pending) or rounds == max_rounds:
                break
            steps = search.improve_all(pending, round_index=rounds)
            rounds += 1
    return _result(search, rounds, scale)


def margins_of_directions(
    weights: Float[Tensor, "classes dim"], *, tolerance: float = 1e-6, mode: Literal["all", "min"] = "all",
    warm_start: Margins | None = None, errors: Float[Tensor, " classes"] | None = None,
    progress: Progress | None = None,
) -> Margins:  # fmt: skip
    """One-vs-rest margins of the rows divided by their lengths; the intervals hold those of the exact directions.
    errors: how far each row may be from the row that is meant, in the unit of the rows; None: the rows are meant, and
    a row of zeros is refused. A class whose row may have any direction makes the intervals wide: at worst 0 to 2."""
    _check(weights, tolerance, mode, 1, warm_start)
    zero = (~weights.any(1)).nonzero()
    if len(zero) and errors is None:
        raise ValueError(f"weights must have no row of zeros, which has no direction, got row {int(zero[0, 0])}.")
    found = one_vs_rest_margins(unit(weights), tolerance=tolerance, mode=mode, warm_start=warm_start, progress=progress)
    errors = torch.zeros_like(found.lower) if errors is None else errors
    # If each row moves by at most its own m_k, the distance of row k to any point of the hull changes by at most
    # m_k + max_j m_j.
    moved = _turned(weights, errors)
    width = (moved + moved.max()) * (1 + 4 * EPS)
    lower = torch.nextafter(found.lower - width, torch.zeros_like(width)).clamp_min(0.0)
    upper = torch.nextafter(found.upper + width, torch.full_like(width, torch.inf)).clamp_max(2.0)
    return replace(found, lower=lower, upper=upper)


def _turned(weights: Float[Tensor, "classes dim"], errors: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """How far `unit` of each row may be from the direction of the row that is meant."""
    dim = weights.shape[1]
    turned = 2 * errors / (2 * row_norms(weights) * (1 - dim * EPS) - errors).clamp_min(1e-300)
    return (turned * (1 + 8 * EPS) + EPS / 2 * (dim / 2 + 3)).clamp_max(2.0)  # and what `unit` says of itself


def _ended_early(steps: Iterator[Step], told: Callable[[], bool], workers: int) -> bool:
    """Run the steps of a round; whether the caller ended it."""
    if workers == 1:
        return any(told() for step in steps if step() is None)
    # small batched LAPACK calls use one thread whatever torch is given, so batches share the threads instead
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return any(told() for _ in _in_turn(pool, steps, 2 * workers))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(workers)


def _in_turn(pool: ThreadPoolExecutor, steps: Iterator[Step], ahead: int) -> Iterator[None]:
    """What the steps return, in their order, of which so many are under way."""
    running: deque[Future[None]] = deque()
    for step in itertools.chain(steps, itertools.repeat(None, ahead)):
        if step is not None:
            running.append(pool.submit(step))
        if running and (step is None or len(running) > ahead):
            yield running.popleft().result()


def _minimum(search: MarginSearch, scale: Tensor) -> tuple[float, float]:
    return tuple(scaled(torch.stack([search.lower.min(), search.upper.min()]), scale).tolist())


def _result(search: MarginSearch, rounds: int, scale: Tensor) -> Margins:
    """Bounds as they are, supports as narrow as the widest one."""
    unsolved = search.upper.isinf()
    search.support[unsolved], search.coefficients[unsolved] = -1, 0.0  # those of a warm start
    order = (search.support < 0).to(torch.int8).argsort(dim=1, stable=True)
    order = order[:, : max(1, int((search.support >= 0).sum(1).max()))]
    upper = search.upper
    if bool(unsolved.any()):
        # classes ruled out before they were solved have their nearest row as the nearest hull point known
        upper = torch.where(unsolved, search.nearest_distance(), upper)
    bounds = _scaled_outward(search.lower, scale, down=True), _scaled_outward(upper, scale, down=False)
    return Margins(*bounds, search.support.gather(1, order), search.coefficients.gather(1, order), rounds)


def _scaled_outward(bounds: Tensor, scale: Tensor, *, down: bool) -> Float[Tensor, " classes"]:
    """The bounds times 2^scale, rounded outward where that is not exact; an upper bound may overflow to infinity."""
    found = scaled(bounds, scale)
    found = found.clamp_max(torch.finfo(torch.float64).max) if down else found
    moved = torch.nextafter(found, torch.full_like(found, 0.0 if down else torch.inf))
    return torch.where(scaled(found, -scale) == bounds, found, moved)


def _check(weights: Tensor, tolerance: float, mode: str, max_rounds: int, warm_start: Margins | None) -> None:
    if weights.ndim != 2 or weights.shape[1] < 1 or not weights.is_floating_point():
        got = f"got shape {tuple(weights.shape)} of {weights.dtype}"
        raise ValueError(f"weights must be a matrix of floating-point rows, one per class, {got}.")
    if len(weights) < 2:
        raise ValueError(f"weights must have at least 2 rows, got {len(weights)!r}. One class has no margin.")
    broken = (~weights.isfinite().all(1)).nonzero()[:, 0].tolist()
    if broken:
        raise ValueError(f"weights must be finite, got NaN or infinity in {len(broken)} rows: {shown(broken)}.")
    check_tolerance(tolerance)
    if mode not in ("all", "min"):
        raise ValueError(f"mode must be 'all' or 'min', got {mode!r}.")
    check_at_least(1, max_rounds=max_rounds)
    check_kind("warm_start", warm_start, (Margins, type(None)), "the margins of similar rows")
    if warm_start is not None and len(warm_start.lower) != len(weights):
        rule = f"warm_start must have one margin per class ({len(weights)})"
        raise ValueError(f"{rule}, got {len(warm_start.lower)}. Leave it out.")


def check_tolerance(tolerance: float) -> None:
    check_number("tolerance", tolerance)
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be above 0 and below 1, got {tolerance!r}. It is a relative gap.")
