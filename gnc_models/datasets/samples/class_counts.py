"""How many training samples each class has under an imbalance. Knows no torch, so that a study is checked at once."""

import math

from gnc_models.catalog.members import IMBALANCES


def class_counts(
    num_classes: int, samples_per_class: int, *, imbalance: str = "none", imbalance_ratio: float | None = None
) -> tuple[int, ...]:
    """Training samples of each class, most first; no class has fewer than 1.
    With n = `samples_per_class`, r = `imbalance_ratio` and classes k = 0 .. K - 1, rounded half up:
    "none" n for all; "exponential" n r^(-k / (K - 1)); "step" n for the first ceil(K / 2) classes, n / r for the rest.
    A class's count never falls when K or n grows, so the smaller study lies inside the larger one.
    Source: Cui et al., arXiv 1901.05555 (exponential); Buda et al., arXiv 1710.05381 (step)."""
    if imbalance not in IMBALANCES:
        raise ValueError(f"imbalance must be one of {list(IMBALANCES)}, got {imbalance!r}.")
    if imbalance == "none":
        if imbalance_ratio is not None:
            rule = "imbalance_ratio must be left out with imbalance 'none'"
            raise ValueError(f"{rule}, got {imbalance_ratio!r}. It has no effect.")
        return (samples_per_class,) * num_classes
    if imbalance_ratio is None or not 1 <= imbalance_ratio < math.inf:
        got = f"got {imbalance_ratio!r}. It is the largest class's samples over the smallest's."
        raise ValueError(f"imbalance_ratio must be a finite number of at least 1, {got}")
    if imbalance == "exponential":
        shares = [imbalance_ratio ** (-k / (num_classes - 1)) for k in range(num_classes)]
    else:
        large = math.ceil(num_classes / 2)
        shares = [1.0] * large + [1 / imbalance_ratio] * (num_classes - large)
    # a power that is a half exactly may come out a rounding error below it
    return tuple(max(1, math.floor(samples_per_class * share + 0.5 + 1e-9)) for share in shares)
