"""Robust lines where columns are nearly alike, and designs of many levels beside a slow twin of all columns."""

import numpy as np
import pytest

from analysis.statistics.huber import HUBER_SCALES, ROUNDS, Design, clustered_covariance, fit_linear


def test_columns_that_are_nearly_alike_are_no_singular_matrix():
    # the offset form's tangent over four class counts of a study, K = 24 to 44
    design = np.array(
        [
            [-0.21188132, 0.3737576, 1],
            [-0.03197915, 0.36869319, 1],
            [0.07687608, 0.36568157, 1],
            [0.17055518, 0.36312065, 1],
        ]
    )
    target = np.array([-0.05923014, 0.25537536, -0.05743061, 0.00091867])
    fit = fit_linear(design, target)
    assert design.T @ np.clip(fit.residuals, -fit.threshold, fit.threshold) == pytest.approx(0, abs=1e-8)  # a minimum


def levelled(seed: int, groups: int, columns: int, *, rows: int = 300) -> tuple[Design, np.ndarray]:
    """An unbalanced design with levels, and a target with far outliers, so that weights lie far apart."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, rows) ** 2 // groups])
    numbers = rng.normal(size=(len(group), columns)) + group[:, None] / groups
    noise = 0.1 * rng.standard_t(1, size=len(group)) + 1e2 * (rng.random(len(group)) < 0.05)
    return Design(numbers, group, groups), numbers.sum(axis=1) + rng.normal(size=groups)[group] + noise


def ref_reweighted(design: np.ndarray, target: np.ndarray, threshold: float) -> np.ndarray:
    """The same rounds by least squares of all columns, weights in the rows."""
    floor, weights = max(threshold, 1e-9 * (1 + np.abs(target).max())), np.ones(len(target))
    for _ in range(ROUNDS):
        roots = np.sqrt(weights)
        found = np.linalg.lstsq(roots[:, None] * design, roots * target, rcond=None)[0]
        weights = floor / np.maximum(np.abs(target - design @ found), floor)
    return found


@pytest.mark.parametrize(("seed", "groups", "columns"), [(1, 17, 1), (2, 40, 0), (3, 40, 3), (4, 90, 12)])
def test_levels_that_are_eliminated_give_what_columns_for_each_level_give(seed, groups, columns):
    design, target = levelled(seed, groups, columns)
    fit, dense = fit_linear(design, target), design.dense
    assert fit.coefficients == pytest.approx(ref_reweighted(dense, target, fit.threshold), abs=1e-9)
    assert fit.residuals == pytest.approx(target - dense @ fit.coefficients, abs=1e-9)
    spread = np.abs(target - dense @ ref_reweighted(dense, target, 0.0))
    scale = np.median(np.sort(spread)[-(len(target) - design.shape[1]) :]) / 0.6745
    assert fit.scale == pytest.approx(scale, rel=1e-4)  # of even groups every median is a minimum
    assert fit.threshold == HUBER_SCALES * fit.scale


def test_a_design_says_whether_its_rows_tell_all_coefficients():
    design, _ = levelled(5, 20, 2)
    assert design.has_full_rank()
    assert not design.select(design.group != 3).has_full_rank()
    by_group = Design(design.group[:, None] * 2.0, design.group, design.levels)  # a column that the levels hold already
    assert not by_group.has_full_rank()


def test_the_clustered_covariance_is_that_of_its_rows_also_where_one_cluster_alone_knows_a_level():
    design, target = levelled(6, 4, 2)
    fit, cluster = fit_linear(design, target), np.arange(len(target)) % 7
    hold, pull = fit.hold_and_pull
    dense, scores = design.dense, []
    inverse = np.linalg.inv(dense.T @ (hold[:, None] * dense))
    for name in range(7):
        own = dense[cluster == name]
        apart = np.eye(len(own)) - own @ inverse @ (own * hold[cluster == name, None]).T
        scores.append(own.T @ np.linalg.lstsq(apart, pull[cluster == name], rcond=1e-9)[0])
    pulls = np.stack(scores) @ inverse
    assert clustered_covariance(fit, cluster) == pytest.approx(pulls.T @ pulls, rel=1e-8)
