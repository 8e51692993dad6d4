"""Rows that are the points of a code and never move. Knows torch and codes; does not know losses or networks."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gnc_models.classifiers.class_similarity import assign_classes
from gnc_models.classifiers.classifier import Classifier, Rows, random_directions
from gnc_models.codes.best_code import best_code
from gnc_models.constructions.explicit import simplex


class FixedClassifier(Classifier):
    """Rows that are the points of a code from the start and never move."""

    def __init__(
        self, num_classes: int, feature_dim: int, *, normalization: str, temperature: float | None, init_norm: float,
        code: str = "best", assignment: str = "random", similarity: Float[Tensor, "classes classes"] | None = None,
        points: Rows | None = None,
    ) -> None:  # fmt: skip
        """Points of the code, one per class, of unit length where the head normalises rows, else of norm `init_norm`.
        Args (`Classifier` lists the others):
            code: "simplex", "best" (see `code_rows`) or "random" directions (torch's default generator).
            assignment: of classes to points: "random", or "similarity", which gives similar classes near points.
            points: unit rows of the code, if the caller has them already.
            similarity: of the classes, larger is nearer; with assignment "similarity", and only there."""
        super().__init__(normalization=normalization, temperature=temperature)
        assert (similarity is not None) == (assignment == "similarity")
        points = code_rows(code, num_classes, feature_dim) if points is None else points
        order = torch.randperm(num_classes) if similarity is None else assign_classes(similarity, points @ points.T)
        norm = 1.0 if self.normalises_weights else init_norm
        self.register_buffer("weight", (norm * points[order]).to(torch.get_default_dtype()))


def code_rows(code: str, num_classes: int, feature_dim: int) -> Rows:
    """Unit rows of a code in float64, in the code's own order: "simplex", padded with zeros, "best" or "random".
    "best" takes seconds up to about 200 classes in 64 dimensions and minutes at 10,000 (see `best_code`)."""
    if code == "random":
        return random_directions(num_classes, feature_dim).to(torch.float64)
    if code == "best":
        return best_code(num_classes, feature_dim).points
    points = torch.from_numpy(simplex(num_classes))
    return functional.normalize(functional.pad(points, (0, feature_dim - points.shape[1])), dim=1)
