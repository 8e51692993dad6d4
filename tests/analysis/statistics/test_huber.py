"""Robust lines where columns are nearly alike."""

import numpy as np
import pytest

from analysis.statistics.huber import fit_linear


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
