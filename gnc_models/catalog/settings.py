"""Which loss, classifier, normalization and sizes go together, checks of single values, and the samples of each class under an
imbalance. Knows no torch, so that a study is refused at once."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, SupportsFloat, SupportsIndex

from gnc_models.catalog.members import LOSSES

LARGEST_FEATURE = 1e100  # up to here squares and their sums over a file stay finite, and those of the inverse


def check_kind(name: str, value: Any, kind: Any, rule: str) -> None:
    """ValueError unless the value is of this kind, or one of these."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {rule}, got {repr(value)[:80]}.")  # noqa: TRY004 - as all wrong input


check_number = partial(check_kind, kind=SupportsFloat, rule="a number")  # tensors of one number are
check_integer = partial(check_kind, kind=SupportsIndex, rule="an integer")


def check_at_least(least: int, **values: Any) -> None:
    """ValueError unless every named value is an integer and at least `least`."""
    for name, value in values.items():
        check_integer(name, value)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}.")


def check_between(name: str, value: float, low: float, high: float, cure: str = "") -> None:
    """ValueError unless low < value < high; NaN is refused."""
    check_number(name, value)
    if not low < value < high:
        bound = f"above {low:g}" if math.isinf(high) and value != high else f"above {low:g} and below {high:g}"
        raise ValueError(f"{name} must be {bound}, got {value!r}.{' ' + cure if cure else ''}")


def shown(items: Sequence[Any]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {sorted(choices)}, got {value!r}.")


def check_pairing(
    *, loss: str, classifier: str, normalization: str, num_classes: int, feature_dim: int, code: str | None = None
) -> None:
    """ValueError unless these settings can be trained together; `code` is that of the classifier "fixed", or None."""
    if classifier == "class_mean" and normalization == "none":
        why = "Its rows have unit length, and long features would weigh more in the means than short ones."
        raise ValueError(f"normalization must not be 'none' for classifier 'class_mean', got 'none'. {why}")
    if classifier == "fixed" and code == "simplex" and num_classes > feature_dim + 1:
        got = f"got 'simplex' with {num_classes} classes in {feature_dim} dimensions"
        cure = "A simplex has at most feature_dim + 1 points: use code 'best'."
        raise ValueError(f"code must fit into feature_dim, {got}. {cure}")
    member = LOSSES[loss]
    if member.only_both and normalization != "both":
        raise ValueError(f"normalization must be 'both' for loss {loss!r}, got {normalization!r}. {member.only_both}")
    if not member.moves_rows and classifier == "linear":
        rule = f"classifier must be 'class_mean' or 'fixed' for loss {loss!r}"
        raise ValueError(f"{rule}, got 'linear'. Its rows would get no gradient and never move.")


def class_counts(
    num_classes: int, samples_per_class: int, *, imbalance: str = "none", imbalance_ratio: float | None = None
) -> tuple[int, ...]:
    """Training samples of each class, most first; no class has fewer than 1.
    With n = `samples_per_class`, r = `imbalance_ratio` and classes k = 0 .. K - 1, rounded half up:
    "none" n for all; "exponential" n r^(-k / (K - 1)); "step" n for the first ceil(K / 2) classes, n / r for the rest.
    A class's count never falls when K or n grows, so the smaller study lies inside the larger one.
    Source: Cui et al., arXiv 1901.05555 (exponential); Buda et al., arXiv 1710.05381 (step)."""
    if imbalance == "none" or imbalance_ratio is None:
        return (samples_per_class,) * num_classes
    if imbalance == "exponential":
        shares = [imbalance_ratio ** (-k / (num_classes - 1)) for k in range(num_classes)]
    else:
        large = math.ceil(num_classes / 2)
        shares = [1.0] * large + [1 / imbalance_ratio] * (num_classes - large)
    # a power that is a half exactly may come out a rounding error below it
    return tuple(max(1, math.floor(samples_per_class * share + 0.5 + 1e-9)) for share in shares)
