"""Codes in layers: as many rows as are counted, none nearer than is said, falling in K and rising in d."""

import numpy as np
import pytest
import torch

from gnc_models.geometry.pairwise import max_cosine
from gnc_models.references.closed_forms import levenshtein_margin_bound
from gnc_models.references.layered_codes import MOST_DIMS, layered_margin, layered_points
from gnc_models.references.margin import reference_margin


@pytest.mark.parametrize(
    ("num_classes", "feature_dim"),
    [
        (7, 3),
        (13, 3),
        (500, 3),
        (4000, 3),
        (24, 4),
        (1000, 4),
        (333, 5),
        (90, 6),
        (2000, 6),
        (300, 8),
        (700, 12),
        (100, 15),
    ],
)
def test_rows_are_unit_and_as_far_apart_as_is_said(num_classes: int, feature_dim: int):
    rows = layered_points(num_classes, feature_dim)
    assert rows.shape == (num_classes, feature_dim)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-14)
    margin = 1 - max_cosine(torch.from_numpy(rows))
    said = layered_margin(num_classes, feature_dim)
    assert said <= margin  # above it where the rows that were left out were the nearest
    assert 0 < said < levenshtein_margin_bound(num_classes, feature_dim) + 1e-12


def test_margins_fall_in_classes_and_rise_in_dimensions():
    sizes = [*range(20, 120), 500, 1000, 3000, 10_000]
    margins = np.array([[layered_margin(k, d) for k in sizes] for d in (3, 4, 5, 7, 9, MOST_DIMS, MOST_DIMS + 5)])
    assert (np.diff(margins, axis=1) <= 0).all()
    assert (np.diff(margins, axis=0) >= 0).all()


def test_rows_that_crowd_few_dimensions_have_a_reference_worth_the_name():
    for feature_dim, least in ((3, 0.8), (4, 0.7), (5, 0.63), (6, 0.57), (8, 0.5), (10, 0.44)):
        for num_classes in (300, 1000, 5000, 30_000):
            found = reference_margin(num_classes, feature_dim)
            assert found.lower > least * found.upper, (num_classes, feature_dim, found)
