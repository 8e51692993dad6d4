"""What a hyperspherical energy is compared with: its mean for uniform points, its least value, the widest spacing."""

import math

from gnc_models.references.closed_forms import check_sizes, levenshtein_margin_bound, simplex_orthoplex_bound


def uniform_log_energy(feature_dim: int) -> float:
    """Expected `log 1/|x-y|` of independent uniform points of the unit sphere, the null of every log energy.
    `-ln 2 + [psi(d-1) - psi((d-1)/2)] / 2`: 0 for d = 2, -0.3426 for d = 64, to -ln(2)/2 as d grows.
    Source: the Beta distribution of (1 - <x, y>) / 2."""
    check_sizes(2, feature_dim, least_dim=2)
    return -math.log(2.0) + (_digamma(feature_dim - 1.0) - _digamma((feature_dim - 1) / 2)) / 2


def uniform_riesz_energy(feature_dim: int) -> float:
    """Expected `1/|x-y|^2` of independent uniform points: (d-2) / (2 (d-3)), infinite for d = 2 and 3."""
    check_sizes(2, feature_dim, least_dim=2)
    return (feature_dim - 2) / (2 * (feature_dim - 3)) if feature_dim > 3 else math.inf


def log_energy_bound(num_classes: int) -> float:
    """Least mean over pairs of `log 1/|x-y|` that K unit points can have: -ln(2K/(K-1)) / 2, attained by the simplex.
    The squared distances of K unit points average at most 2K/(K-1), since their sum is 2 K^2 - 2 |sum x|^2 over
    ordered pairs; the kernel is convex and falls in the squared distance, so Jensen's inequality gives its value there.
    """
    return -math.log(_mean_square_distance(num_classes)) / 2


def riesz_energy_bound(num_classes: int) -> float:
    """Least mean over pairs of `1/|x-y|^2` that K unit points can have: (K-1) / (2K), as in `log_energy_bound`."""
    return 1 / _mean_square_distance(num_classes)


def separation_bound(num_classes: int, feature_dim: int) -> float:
    """Largest minimum distance of K unit points in d dimensions that is not ruled out: `|x-y|^2 = 2 (1 - <x, y>)`."""
    margins = simplex_orthoplex_bound(num_classes, feature_dim), levenshtein_margin_bound(num_classes, feature_dim)
    return math.sqrt(2 * min(margins))


def energy_references(num_classes: int, feature_dim: int) -> dict[str, float | None]:
    """Null and bounds of the energies of K unit points in d dimensions by name; None where they do not exist."""
    check_sizes(num_classes, feature_dim)
    line = feature_dim == 1  # where random points coincide
    riesz = math.inf if line else uniform_riesz_energy(feature_dim)
    return {
        "uniform_log_energy": None if line else uniform_log_energy(feature_dim),
        "uniform_riesz_energy": riesz if math.isfinite(riesz) else None,
        "log_energy_bound": log_energy_bound(num_classes),
        "riesz_energy_bound": riesz_energy_bound(num_classes),
        "separation_bound": None if line else separation_bound(num_classes, feature_dim),
    }


def _mean_square_distance(num_classes: int) -> float:
    check_sizes(num_classes, 1)
    return 2 * num_classes / (num_classes - 1)


def _digamma(x: float) -> float:
    """psi(x) for x > 0, to rounding: recurrence up to 10, then the asymptotic series."""
    shift = 0.0
    while x < 10:
        shift -= 1 / x
        x += 1
    # Bernoulli numbers over 2k; the next term is below 1e-17 at x = 10
    coefficients = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
    series = sum(c / x ** (2 * k) for k, c in enumerate(coefficients, start=1))
    return shift + math.log(x) - 1 / (2 * x) - series
