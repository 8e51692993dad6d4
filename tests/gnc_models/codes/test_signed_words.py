"""Signed words keep the cosine they promise, and find E8 and the kissing arrangements of Construction A."""

import numpy as np
import pytest

from gnc_models.constructions.words import signed_words
from gnc_models.references.margin import levenshtein_margin_bound
from gnc_models.references.tables import read_table

SHAPES = [(d, w, o) for d in (4, 7, 8, 9, 11) for w, o in ((2, 1), (3, 1), (3, 2), (4, 2), (5, 2), (5, 3), (6, 2))]


@pytest.mark.parametrize(("length", "weight", "overlap"), [s for s in SHAPES if s[1] <= s[0]])
def test_cosine_is_at_most_overlap_over_weight(length: int, weight: int, overlap: int):
    rows = signed_words(length, weight, overlap, tries=2)
    cosines = rows @ rows.T
    assert np.allclose(np.diag(cosines), 1)
    np.fill_diagonal(cosines, -1)
    assert cosines.max() <= overlap / weight + 1e-12
    assert 1 - overlap / weight <= levenshtein_margin_bound(len(rows), length) + 1e-9


@pytest.mark.parametrize(("length", "size"), [(8, 240), (9, 306), (10, 500), (12, 840)])
def test_kissing_arrangements_are_found(length: int, size: int):
    # 2 d axes and 16 signs on each of A(d, 4, 4) supports: 14, 18, 30 and 51
    assert len(signed_words(length, 4, 2)) == size


def test_same_seed_gives_the_same_rows():
    assert np.array_equal(signed_words(9, 5, 3, seed=1), signed_words(9, 5, 3, seed=1))


FOUND = [row for row in read_table("found_codes.csv") if row["method"].startswith("signed_words")]


@pytest.mark.parametrize("row", [row for row in FOUND if int(row["feature_dim"]) <= 9], ids=lambda row: row["method"])
def test_stored_codes_are_made_again_by_their_recipe(row: dict[str, str]):
    shape = [int(part) for part in row["method"].removeprefix("signed_words(").removesuffix(")").split(";")]
    rows = signed_words(*shape, tries=int(row["starts"]), seed=int(row["seed"]))
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -1)
    assert rows.shape == (int(row["num_classes"]), int(row["feature_dim"]))
    assert float(row["margin"]) == pytest.approx(1 - cosines.max(), abs=2e-12)
