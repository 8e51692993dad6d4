"""Censored values, residual diagnostics, laws over time, the ladder's gaps, fronts and maps: known answers."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects.shares import ladder_gaps
from analysis.figures.phase import RATIO, numbers_phase
from analysis.figures.search import DEFAULT, numbers_pareto, objectives_of
from analysis.rows.frames import cell_rows, final_rows
from analysis.rows.measures import FLOAT_FLOOR, SHORTFALL, measured_interval, usable
from analysis.scaling.collapse_rates import fit_time_laws
from analysis.scaling.power_law import FitRefused, fit_power_law
from analysis.statistics.huber import fit_linear
from analysis.statistics.interval_censored import complete
from analysis.statistics.residual_checks import diagnose


def line(cells: int, *, noise: float = 0.1, slope: float = -1.0, seed: int = 0):
    x = np.linspace(0, 5, cells)
    y = 1 + slope * x + noise * np.random.default_rng(seed).normal(size=cells)
    return np.stack([np.ones(cells), x], axis=1), y


def test_a_slope_is_recovered_though_a_third_lies_below_the_floor():
    design, y = line(60, noise=0.3)
    floor = -2.0
    below = y < floor
    assert 0.25 < below.mean() < 0.5
    low, high = np.where(below, -np.inf, y), np.maximum(y, floor)
    found = fit_linear(design, complete(design, low, high)[0]).coefficients
    naive = fit_linear(design, high).coefficients
    assert found[1] == pytest.approx(-1, abs=0.05)
    assert abs(naive[1] + 1) > 0.1


def test_narrow_bounds_change_nothing_and_wide_ones_pull_only_to_their_edge():
    design, y = line(20)
    same, share = complete(design, y, y + 1e-9)
    np.testing.assert_allclose(same, y, atol=1e-8)
    assert share == 0
    wide, share = complete(design, y - 1, y + 1)
    assert share == 1
    assert ((wide >= y - 1) & (wide <= y + 1)).all()
    with pytest.raises(ValueError, match="low must be at most high"):
        complete(design, y + 1, y)


def test_a_power_law_of_intervals_and_the_refusal_where_most_are_open():
    k = np.repeat([8.0, 16, 32, 64, 128, 256], 2)
    cell = [str(x) for x in k]
    noise = np.exp(0.1 * np.random.default_rng(3).normal(size=12))
    low, high = 2 * k**-0.7 * noise * 0.98, 2 * k**-0.7 * noise * 1.02
    fit = fit_power_law(low, k, cell=cell, upper=high)
    assert fit.exponent.estimate == pytest.approx(fit_power_law(low, k, cell=cell).exponent.estimate, abs=1e-2)
    assert fit.open_share == 0
    for lowest in (np.zeros(12), 0.98 * high):  # wider than all scatter: no value is known, however smooth the ends are
        smooth = 2 * k**-0.7
        with pytest.raises(FitRefused, match="100% of the cells are known as intervals only") as refusal:
            fit_power_law(np.minimum(lowest, 0.98 * smooth), k, cell=cell, upper=smooth)
        assert refusal.value.estimate.exponent.low is None


def test_shortfall_is_an_interval_of_margin_and_reference(make_store):
    final = final_rows(make_store([(10, 100, 0.1, "both", 0)]))
    low, high = measured_interval(final, SHORTFALL)
    row = final.to_pylist()[0]
    assert low[0] == pytest.approx(1 - row["margin_min_upper"] / row["reference_margin_lower"])
    assert high[0] == pytest.approx(1 - row["margin_min_lower"] / row["reference_margin_upper"])
    assert low[0] < high[0]
    assert usable(low, high).all()
    assert not usable(np.array([-0.2]), np.array([-0.1]))[0]


def test_diagnostics_see_a_bend_and_nothing_in_a_line():
    design, y = line(30, noise=0.05)
    assert diagnose(fit_linear(design, y), design[:, 1]).warnings() == []
    bent = y + 0.3 * (design[:, 1] - 2.5) ** 2
    assert "residuals bend with size" in diagnose(fit_linear(design, bent), design[:, 1]).warnings()
    fan = y + design[:, 1] ** 2 * 0.1 * np.random.default_rng(1).normal(size=30)
    assert "noise changes with size" in diagnose(fit_linear(design, fan), design[:, 1]).warnings()


@pytest.mark.parametrize(("law", "rate"), [("power", 1.3), ("exponential", 0.4)])
def test_planted_time_laws_are_told_apart_and_their_rates_recovered(make_store, law, rate):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 17, 24, 34, 48)])
    rows = []
    for config in store.results.filter(pa.compute.equal(store.results["epoch"], 0)).to_pylist():
        for epoch in range(13):
            step = 100 * epoch
            since = max(step - 300, 0) / 300
            fall = (1 + since) ** -rate if law == "power" else np.exp(-rate * since)
            spread = 0.1 * fall if step >= 300 else 1.0
            rows.append(config | {"epoch": epoch, "step": step, "terminal": step >= 300, "gnc1_rank": spread})
    store.results = pa.Table.from_pylist(rows, schema=store.results.schema)
    found = next(x for x in fit_time_laws(store.results, final_rows(store)) if x.measure == "gnc1_rank")
    assert (found.law, found.trials, found.cells, found.refused) == (law, 5, 5, None)
    assert found.rate.estimate == pytest.approx(rate, rel=1e-6)
    assert found.best_in == 1


def test_values_at_the_float_floor_do_not_flatten_a_time_law(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 17, 24, 34, 48)])
    rows = []
    for config in store.results.filter(pa.compute.equal(store.results["epoch"], 0)).to_pylist():
        for epoch in range(13):
            spread = max(1e-6 * np.exp(-3.0 * epoch), FLOAT_FLOOR / 3)
            rows.append(config | {"epoch": epoch, "step": 100 + 100 * epoch, "terminal": True, "gnc1_rank": spread})
    store.results = pa.Table.from_pylist(rows, schema=store.results.schema)
    found = next(x for x in fit_time_laws(store.results, final_rows(store)) if x.measure == "gnc1_rank")
    assert found.at_floor == 5 * 7
    assert (found.law, found.rate.estimate) == ("exponential", pytest.approx(3.0, rel=0.02))


def test_gaps_of_the_ladder_add_up_to_what_is_lost(make_store):
    final = final_rows(make_store([(3, k, t, "both", 0) for k in (12, 24, 48) for t in (0.1, 1.0)]))
    found = ladder_gaps(final, "temperature")
    assert [g.value for g in found] == [0.1, 1.0]
    for gaps in found:
        assert sum(mean for mean, _, _ in gaps.gaps.values()) + gaps.kept == pytest.approx(1)
        assert gaps.cells == 3
        assert all(low is None for _, low, _ in gaps.gaps.values())
    assert found[1].gaps["geometry"][0] > found[0].gaps["geometry"][0]


def test_objectives_come_from_the_study_and_fronts_are_of_one_size(make_store):
    text = '[tune]\nmetric = ["gnc1_rank", "test_accuracy"]\nmode = ["min", "max"]'
    assert objectives_of(text) == (("gnc1_rank", "min"), ("test_accuracy", "max"))
    assert objectives_of('[tune]\nmetric = "gnc1_rank"') == objectives_of("not toml [") == DEFAULT
    final = final_rows(make_store([(3, k, 0.1, "both", s) for k in (12, 24) for s in range(3)]))
    found = numbers_pareto(final, objectives_of(text))
    assert [(n.num_classes, len(n.trials)) for n in found] == [(12, 3), (24, 3)]
    best = int(np.argmin(found[0].x))
    assert found[0].front[best]


def test_cells_are_medians_over_seeds(make_store):
    final = final_rows(make_store([(3, 12, 0.1, "both", s) for s in range(3)] + [(3, 24, 0.1, "both", 0)]))
    cells = cell_rows(final, ("margin_min_lower",))
    by_hand = [np.median([r["margin_min_lower"] for r in final.to_pylist() if r["num_classes"] == k]) for k in (12, 24)]
    order = np.argsort(cells["num_classes"])
    np.testing.assert_allclose(cells["margin_min_lower"][order], by_hand)
    assert cells["terminal"].tolist() == [1, 1]


def test_the_phase_map_places_cells_and_leaves_out_those_without_temperature(make_store):
    final = final_rows(make_store([(3, 12, 0.1, "both", 0), (3, 24, None, "none", 0), (10, 100, 1.0, "both", 0)]))
    found = numbers_phase(final, RATIO)
    assert sorted(found.x) == [4, 10]
    assert found.left_out == 1
    row = next(r for r in final.to_pylist() if r["num_classes"] == 12)
    coldness = row["reference_margin_lower"] / (0.1 * np.log(12))
    assert found.y[found.x == 4][0] == pytest.approx(coldness)
    assert found.step[found.x == 4][0] == np.searchsorted(found.edges, row["margin_ratio_upper"])
