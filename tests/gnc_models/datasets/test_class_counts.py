"""Long tails: exact counts, at the extremes too, and the refusals."""

from fractions import Fraction

import pytest

from gnc_models.catalog.settings import class_counts


def counts(classes, samples, kind, ratio):
    return class_counts(classes, samples, imbalance=kind, imbalance_ratio=None if ratio is None else float(ratio))


def test_exponential_counts_written_out():
    # 100 * 100^(-k/4): 100, 31.62, 10, 3.16, 1
    assert counts(5, 100, "exponential", 100) == (100, 32, 10, 3, 1)
    assert counts(3, 8, "exponential", 4.0) == (8, 4, 2)
    assert counts(2, 500, "exponential", 10) == (500, 50)
    # CIFAR10 at ratio 100 as Cui et al. count it, but rounded where they cut off
    assert counts(10, 5000, "exponential", 100) == (5000, 2997, 1797, 1077, 646, 387, 232, 139, 83, 50)


def test_step_counts_written_out():
    assert counts(4, 10, "step", 5) == (10, 10, 2, 2)
    assert counts(5, 10, "step", 5) == (10, 10, 10, 2, 2)
    assert counts(2, 7, "step", 2) == (7, 4)  # 3.5 is rounded up
    assert counts(3, 16, "step", 1000) == (16, 16, 1)


def test_no_imbalance_and_ratio_1_keep_all_samples():
    assert class_counts(3, 5) == counts(3, 5, "exponential", 1) == counts(3, 5, "step", 1.0) == (5, 5, 5)


def ref_exponential(classes: int, samples: int, ratio: int, k: int) -> int:
    """Rounded half up with whole numbers alone: the largest c with c - 1/2 <= n r^(-k/(K-1)), and at least 1."""
    power, count = classes - 1, 0
    while Fraction(2 * count + 1, 2) ** power * ratio**k <= Fraction(samples) ** power:
        count += 1
    return max(1, count)


@pytest.mark.parametrize(
    ("classes", "samples", "ratio"),
    [(7, 50, 3), (9, 64, 64), (5, 40, 10_000), (12, 1, 5), (4, 5, 8), (6, 10, 32), (6, 40, 32)],
)
def test_exponential_counts_agree_with_exact_arithmetic(classes, samples, ratio):
    expected = tuple(ref_exponential(classes, samples, ratio, k) for k in range(classes))
    assert counts(classes, samples, "exponential", ratio) == expected


@pytest.mark.parametrize("ratio", [1, 2.5, 100, 1e9, 1e300])
@pytest.mark.parametrize("kind", ["exponential", "step"])
def test_counts_fall_from_the_most_to_at_least_one(kind, ratio):
    for classes in (2, 3, 10, 1000):
        for samples in (1, 2, 500):
            got = counts(classes, samples, kind, ratio)
            assert len(got) == classes
            assert got[0] == samples
            assert got[-1] == max(1, int(samples / ratio + 0.5))
            assert list(got) == sorted(got, reverse=True)


@pytest.mark.parametrize("kind", ["exponential", "step"])
def test_counts_of_fewer_classes_and_samples_lie_inside_those_of_more(kind):
    for classes in range(2, 12):
        small = counts(classes, 40, kind, 20)
        for large in (counts(classes + 1, 40, kind, 20), counts(classes, 41, kind, 20)):
            assert all(a <= b for a, b in zip(small, large, strict=False))
