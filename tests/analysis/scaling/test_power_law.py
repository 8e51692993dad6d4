"""Power laws: planted exponents come back, intervals cover, and refusals carry the estimate."""

import numpy as np
import pytest

from analysis.scaling.power_law import FitRefused, expect, fit_power_law
from analysis.statistics.huber import fit_linear

SIZES = np.array([12.0, 24, 48, 96, 192, 384])


def simulated(num_cells, seeds, noise, rng, exponent=-0.97, seed_noise=0.02):
    """Sizes, values and cell names of a study with a known exponent; cells and seeds each have their own noise."""
    sizes = np.resize(SIZES, num_cells)
    logs = 0.3 + exponent * np.log(sizes) + noise * rng.normal(size=num_cells)
    measure = np.exp(np.repeat(logs, seeds) + seed_noise * rng.normal(size=num_cells * seeds))
    return np.repeat(sizes, seeds), measure, [f"cell {i}" for i in range(num_cells) for _ in range(seeds)]


def test_a_planted_exponent_is_recovered_exactly_without_noise():
    fit = fit_power_law(3 * SIZES**-1.25, SIZES, cell=[str(s) for s in SIZES])
    exponent = fit.exponent
    assert exponent.estimate == pytest.approx(-1.25, abs=1e-9)
    assert exponent.low <= -1.25 + 1e-9
    assert exponent.high >= -1.25 - 1e-9
    assert np.exp(fit.levels[""]) == pytest.approx(3, rel=1e-8)
    assert (fit.cells, fit.trials, fit.sizes) == (6, 6, 6)


def test_beyond_the_sizes_a_straight_line_expects_what_the_textbook_does():
    x, noise = np.array([-3.0, -1.0, 1.0, 3.0]), 0.1 * np.array([1.0, -1.0, -1.0, 1.0])  # orthogonal to the line
    line, ahead = (lambda at: np.stack([at, np.ones(len(at))], axis=1)), np.array([5.0, 0.0])
    fit = fit_linear(line(x), 0.5 * x + 2 + noise)
    found = expect(line(ahead) @ fit.coefficients, line(ahead), fit, 0.03, 6)
    variance = 4 * 0.1**2 / 2
    assert found.middle == pytest.approx([4.5, 2.0])
    assert found.spread**2 == pytest.approx(variance * (1 + 1 / 4 + ahead**2 / 20) + 0.03)
    of_line = found.spread**2 - 0.03
    assert found.degrees == pytest.approx(found.spread**4 / (of_line**2 / 2 + 0.03**2 / 6))
    alone = expect(line(ahead) @ fit.coefficients, line(ahead), fit, 0.0, 0)
    assert alone.degrees == pytest.approx(2)
    exact = fit_linear(line(x), 0.5 * x + 2)
    assert np.isfinite(expect(line(ahead) @ exact.coefficients, line(ahead), exact, 0.0, 0).degrees).all()


def test_the_prefactors_of_groups_are_recovered():
    sizes, group = np.tile(SIZES, 2), ["cold"] * 6 + ["hot"] * 6
    measure = sizes**-0.8 * np.where(np.arange(12) < 6, 2.0, 0.5)
    fit = fit_power_law(measure, sizes, cell=list(map(str, range(12))), group=group)
    assert fit.exponent.estimate == pytest.approx(-0.8, abs=1e-8)
    assert {name: np.exp(level) for name, level in fit.levels.items()} == pytest.approx({"cold": 2.0, "hot": 0.5})


def test_one_bad_cell_moves_the_exponent_less_than_least_squares():
    sizes = np.repeat(SIZES, 2)
    measure = sizes**-1.0 * np.exp(0.02 * np.random.default_rng(0).normal(size=12))
    measure[-1] *= 0.2
    robust = fit_power_law(measure, sizes, cell=list(map(str, range(12)))).exponent.estimate
    squares = np.polyfit(np.log(sizes), np.log(measure), 1)[0]
    assert abs(robust + 1) < 0.03
    assert abs(squares + 1) > 0.1


def test_seeds_are_averaged_and_do_not_narrow_the_interval_by_their_number():
    sizes, measure, cells = simulated(12, 1, 0.1, np.random.default_rng(3))
    once = fit_power_law(measure, sizes, cell=cells)
    many = fit_power_law(np.repeat(measure, 50), np.repeat(sizes, 50), cell=np.repeat(cells, 50).tolist())
    assert (many.cells, many.trials, many.seeds) == (12, 600, (50, 50))
    assert many.exponent.low == pytest.approx(once.exponent.low)
    assert many.exponent.high == pytest.approx(once.exponent.high)


def test_series_that_share_the_deviation_of_a_size_do_not_narrow_the_interval_by_their_number():
    measure = SIZES**-0.5 * np.exp(0.05 * np.random.default_rng(3).normal(size=6))
    once = fit_power_law(measure, SIZES, cell=list("abcdef"))
    levels = np.exp(np.arange(20.0))[:, None]
    group = [str(i // 6) for i in range(120)]
    many = fit_power_law((levels * measure).ravel(), np.tile(SIZES, 20), cell=[str(i) for i in range(120)], group=group)
    assert (many.cells, many.sizes) == (120, 6)
    assert (many.exponent.low, many.exponent.high) == pytest.approx((once.exponent.low, once.exponent.high), rel=1e-6)


def test_a_balanced_pooled_fit_is_the_fit_to_the_means_over_series():
    rng = np.random.default_rng(9)
    logs = -0.5 * np.log(SIZES) + rng.normal(size=(4, 1)) + 1e-4 * rng.normal(size=(4, 6)) + 0.03 * rng.normal(size=6)
    group = [str(i // 6) for i in range(24)]
    pooled = fit_power_law(np.exp(logs.ravel()), np.tile(SIZES, 4), cell=[str(i) for i in range(24)], group=group)
    means = fit_power_law(np.exp(logs.mean(axis=0)), SIZES, cell=list("abcdef"))
    assert pooled.exponent.estimate == pytest.approx(means.exponent.estimate, abs=1e-4)
    assert pooled.exponent.high == pytest.approx(means.exponent.high, abs=1e-3)


def test_series_that_share_no_size_are_not_pooled():
    sizes = np.geomspace(12, 384, 12)
    measure = np.where(np.arange(12) < 7, 2, 9) * sizes**-0.7
    with pytest.raises(FitRefused, match="5 cells without a size in common") as refusal:
        fit_power_law(measure, sizes, cell=list(map(str, range(12))), group=["low"] * 7 + ["high"] * 5)
    assert refusal.value.estimate.exponent.estimate == pytest.approx(-0.7, abs=1e-8)
    assert {name: np.exp(level) for name, level in refusal.value.estimate.levels.items()} == pytest.approx({"low": 2})


def test_series_with_unequal_exponents_are_refused_and_the_test_holds_its_level():
    rng, sizes = np.random.default_rng(4), np.geomspace(12, 384, 12)
    x = np.stack([sizes[:6]] * 2)
    group, cell = ["cold"] * 6 + ["hot"] * 6, [str(i) for i in range(12)]
    shared = 0.05 * rng.normal(size=6)  # a deviation that both series have is no difference

    def fitted(gap):
        logs = -(0.5 + np.array([[0.0], [gap]])) * np.log(x) + shared + 0.01 * rng.normal(size=(2, 6))
        return fit_power_law(np.exp(logs.ravel()), x.ravel(), cell=cell, group=group)

    with pytest.raises(FitRefused, match="exponents of the 2 series differ") as refusal:
        fitted(0.3)
    assert refusal.value.estimate.slopes_differ
    assert refusal.value.estimate.exponent.low is None
    rejected = 0
    for _ in range(100):
        try:
            fitted(0.0)
        except FitRefused:
            rejected += 1
    assert rejected <= 14  # of 100 at a level of 5 %: four standard errors


@pytest.mark.parametrize("series", [1, 5])
def test_a_nominal_95_percent_interval_covers_near_95_percent(series):
    rng, covered, studies = np.random.default_rng(series), 0, 150
    group = [str(i // 6) for i in range(6 * series)]
    cell = [str(i) for i in range(6 * series)]
    for _ in range(studies):
        shared = 0.1 * rng.normal(size=6)
        logs = -0.97 * np.log(SIZES) + shared + 0.02 * rng.normal(size=(series, 6))
        try:
            fit = fit_power_law(np.exp(logs.ravel()), np.tile(SIZES, series), cell=cell, group=group)
        except FitRefused:  # one in twenty is said to have unequal slopes
            studies -= 1
            continue
        covered += fit.exponent.low <= -0.97 <= fit.exponent.high
    # four standard errors below 95 %: with cells for independent ones five series cover 60 %
    assert studies > 120
    assert covered / studies > 0.95 - 4 * np.sqrt(0.95 * 0.05 / studies)
    assert covered < studies


@pytest.mark.parametrize("series", [1, 5])
def test_under_five_sizes_the_refusal_carries_the_estimate(series):
    sizes = np.tile(SIZES[:4], series)
    group, cell = [str(i // 4) for i in range(4 * series)], [str(i) for i in range(4 * series)]
    with pytest.raises(FitRefused, match="4 values of num_classes, at least 5") as refusal:
        fit_power_law(sizes**-0.5, sizes, cell=cell, group=group)
    exponent = refusal.value.estimate.exponent
    assert exponent.estimate == pytest.approx(-0.5)
    assert (exponent.low, exponent.high) == (None, None)


def test_two_sizes_are_refused_whatever_the_number_of_cells():
    sizes = np.repeat([8.0, 12.0], 5)
    with pytest.raises(FitRefused, match="2 values of num_classes, at least 5") as refusal:
        fit_power_law(sizes**-2.0, sizes, cell=list(map(str, range(10))))
    assert refusal.value.estimate.exponent.estimate == pytest.approx(-2.0)


def test_one_size_has_no_estimate_at_all():
    with pytest.raises(FitRefused, match="1 value of num_classes") as refusal:
        fit_power_law(np.ones(6), np.full(6, 8.0), cell=list(map(str, range(6))))
    assert refusal.value.estimate is None


def test_equal_values_are_refused_and_not_given_an_interval_without_width():
    with pytest.raises(FitRefused, match="the values of all sizes are equal") as refusal:
        fit_power_law(np.full(6, 0.4), SIZES, cell=list("abcdef"))
    assert refusal.value.estimate.exponent.estimate == pytest.approx(0, abs=1e-12)
    assert refusal.value.estimate.exponent.low is None


def test_groups_of_one_cell_do_not_count_as_cells():
    with pytest.raises(FitRefused, match="no two cells differ"):
        fit_power_law(SIZES, SIZES, cell=list("abcdef"), group=list("abcdef"))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_measure_that_is_not_positive_is_refused(bad):
    measure = SIZES.copy()
    measure[2] = bad
    with pytest.raises(ValueError, match="measure must be positive and finite"):
        fit_power_law(measure, SIZES, cell=list("abcdef"))


def test_the_huber_fit_is_a_stationary_point_of_the_summed_loss():
    rng = np.random.default_rng(9)
    design = np.stack([np.ones(40), rng.normal(size=40)], axis=1)
    fit = fit_linear(design, design @ [1.0, 2.0] + rng.standard_t(2, size=40))
    slope = np.clip(fit.residuals, -fit.threshold, fit.threshold)
    assert np.abs(design.T @ slope).max() < 1e-8
    assert (np.abs(fit.residuals) > fit.threshold).any()
