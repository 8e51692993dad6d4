"""Stationarity of planted courses: what is at rest, what drifts, what only fluctuates, what has warmed up."""

import math
import random
from collections.abc import Callable

import pytest

from study.training.schedules import Check, is_check_epoch, is_stationary, with_check

LEAST = 19  # from 15 on each quarter has four checks, and all checks of the last quarter must be level


def first_rest(
    margin: Callable[[int], float],
    loss: Callable[[int], float] = lambda _: 0.1,
    *,
    tolerance: float = 0.01,
    temperature: float = 0.1,
    warm_up: float = 0,
    most: int = 4096,
) -> int | None:
    """The step, one an epoch, at which such a course is first found at rest."""
    checks: list[Check] = []
    for step in filter(is_check_epoch, range(1, most + 1)):
        new = Check(step, loss(step), margin(step))
        checks = with_check(checks, new, tolerance=tolerance, temperature=temperature, warm_up=warm_up)
        if is_stationary(checks):
            return step
    return None


def test_a_constant_course_rests_as_soon_as_each_quarter_holds_four_checks():
    assert first_rest(lambda _: 0.5) == LEAST


def test_an_exponential_approach_rests_once_its_quarters_have_differed_little_for_a_quarter():
    def margin(step: int) -> float:
        return 1 - math.exp(-step / 50)

    step = first_rest(margin)
    assert step is not None

    def gap(at: int) -> float:
        quarters = [[margin(s) for s in range(at * low // 4 + 1, at * (low + 1) // 4 + 1)] for low in (2, 3)]
        older, newer = (sum(quarter) / len(quarter) for quarter in quarters)
        return (newer - older) / newer

    assert gap(int(0.75 * step)) <= 0.012  # level from about here on
    assert gap(int(0.65 * step)) > 0.01


def test_what_moves_by_its_logarithm_never_rests_however_slowly_a_fixed_window_would_see_it():
    assert first_rest(lambda step: 0.5 + 0.1 * math.log2(step)) is None
    assert first_rest(lambda _: 0.5, lambda step: step**-1.0, tolerance=0.01, temperature=0.1) is None


def test_a_fall_of_the_loss_counts_in_the_margins_unit():
    # a power of -1 falls by a factor of about 1.4 from quarter to quarter: temperature x log(1.4) against 0.5 x tolerance
    assert first_rest(lambda _: 0.5, lambda step: step**-1.0, temperature=0.01) == LEAST
    assert first_rest(lambda _: 0.5, lambda step: step**-1.0, temperature=0.02) is None


def test_a_falling_margin_is_no_rest_but_a_rising_loss_does_not_hinder_it():
    assert first_rest(lambda step: step**-0.5) is None
    assert first_rest(lambda _: 0.5, lambda step: 1e-3 * step) == LEAST


def test_fluctuations_are_averaged_over_the_quarters():
    draw = random.Random(0)
    noise = [draw.gauss(0, 0.02) for _ in range(5000)]
    assert first_rest(lambda step: 0.5 + noise[step], tolerance=0.02) is not None


def test_nothing_rests_before_both_quarters_lie_after_the_warm_up():
    assert first_rest(lambda _: 0.5, warm_up=100) == 256  # level from 200 on, for a quarter of the steps


@pytest.mark.parametrize("margin", [0.0, -0.0])
def test_rows_without_a_margin_rest_only_where_they_stay_so(margin):
    assert first_rest(lambda _: margin) == LEAST  # equal rows stay equal: the margin's own column says what rests
    assert first_rest(lambda _: margin, lambda step: step**-1.0) is None


def test_a_loss_of_zero_is_no_error():
    assert first_rest(lambda _: 0.5, lambda _: 0.0) == LEAST


def test_a_doubling_holds_16_checks_and_only_the_second_half_is_kept():
    for start in (16, 100, 1000, 5000):
        assert sum(map(is_check_epoch, range(start + 1, 2 * start + 1))) == pytest.approx(16, abs=1)
    checks: list[Check] = []
    for step in range(1, 65):
        checks = with_check(checks, Check(step, 1.0, 1.0), tolerance=0.1, temperature=1.0, warm_up=0)
    assert [check.step for check in checks] == list(range(33, 65))


def test_a_moment_of_level_quarters_is_no_rest():
    """A course that turns round has level quarters about its turn, and goes on moving after it."""
    assert first_rest(lambda step: 0.5 + 0.2 * math.cos(2 * math.pi * math.log2(step)), most=2000) is None
