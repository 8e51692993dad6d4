"""What explains a measure: planted effects get their share, seeds theirs, and too few trials none."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects.shares import Spread, explain, spread_of
from analysis.rows.frames import final_rows, values


@pytest.fixture
def final(make_store):
    grid = [(d, k, t, "both", s) for d in (2, 3) for k in (12, 24, 48) for t in (0.1, 0.3) for s in (0, 1)]
    return final_rows(make_store(grid))


def with_margin(final: pa.Table, logs: np.ndarray) -> pa.Table:
    index = final.schema.get_field_index("margin_min_lower")
    return final.set_column(index, final.schema.field(index), pa.array(np.exp(logs)))


def test_a_measure_that_follows_one_setting_is_explained_by_it_alone(final):
    found = explain(with_margin(final, -values(final, "temperature")), "margin_min_lower")
    assert found.shares[0].setting == "temperature"
    assert found.shares[0].share == pytest.approx(1)
    assert all(s.share == pytest.approx(0, abs=1e-12) for s in found.shares[1:])
    assert found.together == pytest.approx(1)
    assert found.spread.seed_share == pytest.approx(0, abs=1e-12)
    assert found.trials == 24


def test_two_balanced_effects_share_the_variance_as_their_squares(final):
    cold, planar = values(final, "temperature") > 0.2, values(final, "feature_dim") == 2
    found = explain(with_margin(final, 1.0 * cold + 2.0 * planar), "margin_min_lower")
    shares = {s.setting: s.share for s in found.shares}
    assert shares["feature_dim"] == pytest.approx(0.8)
    assert shares["temperature"] == pytest.approx(0.2)


def test_noise_between_seeds_is_the_seeds(final):
    seed = values(final, "seed")
    found = explain(with_margin(final, seed - 0.5), "margin_min_lower")
    assert found.together == pytest.approx(0, abs=1e-12)
    assert found.spread == Spread(settings=0, seeds=pytest.approx(np.sqrt(0.5)))  # two seeds 1 apart: variance 1/2
    assert found.spread.seed_share == 1


def test_division_by_the_best_known_margin_takes_geometry_out(final):
    reference = values(final, "reference_margin_lower")
    found = explain(
        with_margin(final, np.log(reference) - values(final, "temperature")),
        "margin_min_lower",
        relative_to="reference_margin_lower",
    )
    assert found.shares[0].setting == "temperature"
    assert found.shares[0].share == pytest.approx(1)


def test_few_trials_and_no_spread_are_not_explained(final):
    assert explain(final.slice(0, 7), "margin_min_lower") is None
    assert explain(with_margin(final, np.zeros(final.num_rows)), "margin_min_lower") is None


@pytest.mark.parametrize(("settings", "seeds"), [(0.3, 0.1), (0.1, 0.2), (0.2, 0.2)])
def test_planted_spreads_of_settings_and_seeds_are_recovered_apart(settings, seeds):
    rng = np.random.default_rng(5)
    found = []
    for _ in range(100):
        counts = rng.integers(1, 6, size=200)  # some cells with one seed, some with five
        cell = np.repeat(np.arange(200), counts)
        logs = (settings * rng.normal(size=200))[cell] + seeds * rng.normal(size=len(cell))
        spread = spread_of(logs, cell)
        found.append((spread.settings**2, spread.seeds**2))
    # right on average in the variances, to four standard errors of a hundred studies
    found = np.array(found)
    errors = found.std(axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - [settings**2, seeds**2]) < 4 * errors)
    assert np.all(errors < 0.05 * np.array([settings**2, seeds**2]))


def test_averages_over_noisy_seeds_alone_are_no_effect_of_settings():
    rng = np.random.default_rng(6)
    cell = np.repeat(np.arange(200), 2)
    logs = 0.2 * rng.normal(size=400)
    averages = logs.reshape(200, 2).mean(axis=1).std()
    assert averages > 0.12  # what cells seem to differ by
    assert spread_of(logs, cell).settings < 0.6 * averages


def test_one_cell_or_one_seed_each_cannot_be_taken_apart():
    assert spread_of(np.array([1.0, 2.0]), ["a", "a"]) is None
    assert spread_of(np.array([1.0, 2.0]), ["a", "b"]) is None
