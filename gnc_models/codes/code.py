"""Unit rows with their certain margin: explicit codes by name, and the spherical code of any W. Knows no search."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnc_models.constructions.explicit import FAMILIES, optimal_points
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.geometry.pairwise import max_cosine, unit
from gnc_models.references.closed_forms import check_sizes
from gnc_models.references.margin import reference_margin
from gnc_models.shapes import Float


@dataclass(frozen=True)
class Code:
    """Unit rows and what is certain about them: their minimum margin is at least 1 - max cosine."""

    points: Float[Tensor, "classes dim"]
    margin_lower: float

    @classmethod
    def of(cls, points: Float[Tensor, "classes dim"]) -> "Code":
        points = unit(points)
        return cls(points, 1.0 - max_cosine(points))


def explicit_code(num_classes: int, feature_dim: int) -> Code | None:
    """The best explicit code with at least K rows in at most d dimensions, cut and padded to (K, d), or None.
    Dropping rows and adding dimensions keeps the margin."""
    check_sizes(num_classes, feature_dim)
    points = optimal_points(num_classes, feature_dim)
    if points is None:
        fitting = [(d, k, make) for d, k, make in FAMILIES.values() if k >= num_classes and d <= feature_dim]
        if not fitting:
            return None
        # the reference knows each family's cosine without building it
        points = max(fitting, key=lambda family: reference_margin(family[1], family[0]).lower)[2]()
    padded = np.zeros((num_classes, feature_dim))
    padded[:, : points.shape[1]] = points[:num_classes]
    return Code.of(torch.from_numpy(padded))


def spherical_code_of(weights: Float[Tensor, "classes dim"]) -> Code:
    """The spherical code u(W) of unit rows: its 1 - max cosine is at least the margin of W (docs/margins.md).
    With h_k the unit direction from the hull of the others to w_k, walk from w_k + h_k along h_k to the sphere of
    radius 2 and halve. ValueError: a row lies within 1e-9 of the hull of the others."""
    rows = weights.to(torch.float64)
    margins = one_vs_rest_margins(rows, tolerance=1e-9)
    if not float(margins.upper.min()) > 1e-9:
        raise ValueError(f"weights must have a positive margin, got {margins.minimum!r}. Two rows may be equal.")
    nearest = torch.einsum("kw,kwd->kd", margins.coefficients, rows[margins.support_rows.clamp_min(0)])
    direction = torch.nn.functional.normalize(rows - nearest, dim=1)
    start = rows + direction
    along = (start * direction).sum(1, keepdim=True)
    # |start + t direction| = 2
    step = -along + (along.square() - start.square().sum(1, keepdim=True) + 4).sqrt()
    return Code.of(start + step * direction)
