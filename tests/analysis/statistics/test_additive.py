"""Additive layouts and clustered errors against closed forms and slow twins."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.statistics.additive import added_columns_p, equal_slopes_p, fit_additive, largest_piece
from analysis.statistics.huber import HUBER_SCALES, clustered_covariance, fit_linear


def test_levels_and_effects_come_back_though_pairs_are_missing():
    level, effect = np.array([0.3, -1.0, 2.0]), np.array([0.0, 0.5, -0.2, 1.1])
    pairs = [(g, b) for g in range(3) for b in range(4) if (g, b) not in ((0, 3), (2, 1))]
    target = np.array([level[g] + effect[b] for g, b in pairs])
    fit = fit_additive(target, [str(g) for g, _ in pairs], np.array([float(b) for _, b in pairs]))
    assert fit.effects == pytest.approx(effect, abs=1e-8)
    assert list(fit.levels.values()) == pytest.approx(level, abs=1e-8)
    assert fit.spread == pytest.approx(0, abs=1e-8)


def test_one_outlier_does_not_move_an_effect_as_far_as_a_mean():
    target = np.tile(np.arange(4.0), 9) + 0.01 * np.random.default_rng(0).normal(size=36)
    target[0] += 5
    fit = fit_additive(target, [str(i // 4) for i in range(36)], np.tile(np.arange(4.0), 9))
    assert fit.effects == pytest.approx(np.arange(4.0), abs=0.05)


def test_the_largest_piece_is_what_chains_of_groups_connect():
    group, block = ["a", "a", "b", "b", "c", "c"], np.array([1.0, 2, 2, 3, 7, 8])
    assert largest_piece(group, block).tolist() == [True] * 4 + [False] * 2


def test_the_f_test_holds_its_level_sees_an_effect_and_says_where_it_cannot_be_made():
    rng = np.random.default_rng(1)
    base, extra = np.ones((20, 1)), rng.normal(size=(20, 2))
    p = [added_columns_p(rng.normal(size=20), base, extra) for _ in range(400)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    assert added_columns_p(extra[:, 0] + 0.1 * rng.normal(size=20), base, extra) < 1e-6
    assert added_columns_p(np.ones(20), base, extra) == 1.0
    assert added_columns_p(extra[:, 0].copy(), base, extra) == 0.0
    assert added_columns_p(np.ones(3), np.eye(3), np.ones((3, 1))) is None


def test_the_f_test_of_equal_slopes_holds_its_level_sees_an_effect_and_says_where_it_cannot_be_made():
    rng = np.random.default_rng(1)
    group, block = ["a"] * 10 + ["b"] * 10, np.tile(np.arange(10.0), 2)
    is_b = np.arange(20) >= 10
    p = [equal_slopes_p(rng.normal(size=20) + block**2, group, block, block) for _ in range(400)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    assert equal_slopes_p(is_b * block + 0.1 * rng.normal(size=20), group, block, block) < 1e-6
    assert equal_slopes_p(block**2 + is_b, group, block, block) == 1.0
    assert equal_slopes_p(is_b * block, group, block, block) == 0.0
    assert equal_slopes_p(np.ones(4), ["a", "a", "b", "b"], np.array([0.0, 1, 0, 1]), np.array([0.0, 1, 0, 1])) is None


def layout(seed: int, groups: int, blocks: int):
    """An unbalanced layout of one piece with noise and outliers: target, group, block and the log size of each block."""
    rng = np.random.default_rng(seed)
    pairs = [(g, b) for g in range(groups) for b in range(blocks) if rng.random() < 0.7 or b == g % blocks or b == 0]
    group, block = (np.array(column) for column in zip(*pairs, strict=True))
    target = rng.normal(size=groups)[group] + rng.normal(size=blocks)[block] + 0.1 * rng.standard_t(2, size=len(pairs))
    return target, group, block, np.sort(rng.normal(size=blocks))[block]


def ref_equal_slopes_p(target, group, block, along):
    levels = np.eye(group.max() + 1)[group]
    return added_columns_p(
        target, np.hstack([levels, np.eye(block.max() + 1)[block]]), levels * (along - along.mean())[:, None]
    )


LAYOUTS = [(1, 3, 5), (2, 12, 9), (3, 9, 30), (4, 40, 6), (5, 25, 25)]


@pytest.mark.parametrize(("seed", "groups", "blocks"), LAYOUTS)
def test_the_test_of_equal_slopes_is_that_of_all_columns_together(seed, groups, blocks):
    target, group, block, along = layout(seed, groups, blocks)
    names = [f"{g:03}" for g in group]
    expected = ref_equal_slopes_p(target, group, block, along)
    assert equal_slopes_p(target, names, block.astype(float), along) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("seed", "groups", "blocks"), LAYOUTS)
def test_an_additive_fit_is_a_minimum_of_the_huber_loss(seed, groups, blocks):
    target, group, block, _ = layout(seed, groups, blocks)
    fit = fit_additive(target, [f"{g:03}" for g in group], block.astype(float))
    residuals = target - np.array(list(fit.levels.values()))[group] - fit.effects[block]
    clipped = np.clip(residuals, -HUBER_SCALES * fit.spread, HUBER_SCALES * fit.spread)
    for index in (group, block):
        assert np.bincount(index, clipped) == pytest.approx(0, abs=1e-9 * len(target))


def test_the_clustered_covariance_is_the_jackknife_over_clusters():
    rng = np.random.default_rng(2)
    design = np.stack([np.ones(12), rng.normal(size=12)], axis=1)
    target, cluster = rng.normal(size=12), np.repeat(np.arange(4), 3)
    fit = fit_linear(design, target)
    plain = np.linalg.lstsq(design, target, rcond=None)[0]
    left_out = [np.linalg.lstsq(design[cluster != c], target[cluster != c], rcond=None)[0] for c in range(4)]
    jackknife = sum(np.outer(b - plain, b - plain) for b in left_out)
    squares = replace(
        fit, coefficients=plain, residuals=target - design @ plain, threshold=1e6
    )  # a loss without outliers
    assert clustered_covariance(squares, cluster) == pytest.approx(jackknife)
