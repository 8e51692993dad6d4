"""Rows that are the points of a code and never move: how similar the inputs of classes are, and which class gets which point,
so that similar ones lie near. Knows torch and codes; does not know losses or networks."""

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy.optimize import quadratic_assignment
from torch import Tensor
from torch.nn import functional

from gnc_models.classifiers.classifier import Classifier, Rows, random_directions
from gnc_models.codes.best_code import best_code
from gnc_models.constructions.explicit import simplex
from gnc_models.datasets.samples.streamed import Streamed, in_order, read_batches
from gnc_models.geometry.pairwise import unit

# Random starts beside the centre of all assignments, where codes with much symmetry have no slope: with 10 the optimum
# of 6 classes was found in 8 of 8 draws, with 3 in 5. As many as cost little, since time grows with the cube.
MOST_STARTS, LEAST_STARTS = 30, 2
STARTING_COST = 300_000_000  # of all starts together, in units of num_classes cubed
LARGEST = 2000  # classes


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


def class_mean_inputs(
    inputs: Shaped[Tensor, " samples *input"] | Streamed, labels: Int[Tensor, " samples"], num_classes: int
) -> Float[Tensor, "classes input_dim"]:
    """The mean input of each class, flattened, in float64; zeros for a class without samples."""
    sums = torch.zeros(num_classes, inputs.shape[1:].numel(), dtype=torch.float64, device=labels.device)
    chunks = list(in_order(len(labels)))
    for chunk, part in zip(chunks, read_batches(inputs, chunks), strict=True):
        sums.index_add_(0, labels[chunk], part.flatten(1).to(labels.device, torch.float64))
    return sums / torch.bincount(labels, minlength=num_classes).clamp_min(1).unsqueeze(1)


def input_similarity(class_means: Float[Tensor, "classes input_dim"]) -> Float[Tensor, "classes classes"]:
    """Cosines of the mean inputs about their average: what assignment "similarity" is based on (arXiv 2310.05351)."""
    centred = unit(class_means - class_means.mean(0))
    return centred @ centred.T


def assign_classes(
    similarity: Float[Tensor, "classes classes"], gram: Float[Tensor, "classes classes"]
) -> Int[Tensor, " classes"]:
    """The point of each class that makes `sum_ij similarity_ij gram[p_i, p_j]` large: similar classes, near points.
    scipy's FAQ method from several starts, then the best swap of two classes until none helps; deterministic. A second
    or two up to 300 classes, some 20 s at 1,000, minutes at 2,000. ValueError: matrices that are not square, finite,
    symmetric and of one size, or too many classes.
    Source: Vogelstein et al., PLOS ONE 10(4) e0121002, 2015 (FAQ), in scipy.optimize.quadratic_assignment."""
    wanted, offered = _checked("similarity", similarity), _checked("gram", gram)
    if wanted.shape != offered.shape:
        raise ValueError(f"gram must have one row per class, got {offered.shape} for similarity of {wanted.shape}.")
    generator, size = np.random.default_rng(0), len(wanted)
    count = min(MOST_STARTS, max(LEAST_STARTS, STARTING_COST // size**3))
    # doubly stochastic matrices halfway between the centre and random permutations
    starts = [0.5 / size + 0.5 * np.eye(size)[generator.permutation(size)] for _ in range(count)]
    found = []
    for start in ("barycenter", *starts):
        relaxed = quadratic_assignment(wanted, offered, method="faq", options={"maximize": True, "P0": start})
        found.append(_improved(wanted, offered, np.asarray(relaxed.col_ind, dtype=np.int64)))
    return torch.from_numpy(max(found, key=lambda p: float((wanted * offered[np.ix_(p, p)]).sum())))


def _checked(name: str, matrix: Tensor) -> np.ndarray:
    """The matrix without its diagonal, which no assignment changes, in float64."""
    if matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()) or not torch.allclose(matrix, matrix.T):
        got = f"got one of {tuple(matrix.shape)} that is not. Average it with its transpose."
        raise ValueError(f"{name} must be square, finite and symmetric, {got}")
    if len(matrix) > LARGEST:
        raise ValueError(f"{name} must have at most {LARGEST} classes, got {len(matrix)}. Use assignment 'random'.")
    values = matrix.detach().cpu().to(torch.float64).numpy().copy()
    np.fill_diagonal(values, 0.0)
    return values


def _improved(wanted: np.ndarray, offered: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The best swap of two classes, over and over until none gains: each costs K^2."""
    order = order.copy()
    near = offered[np.ix_(order, order)]
    crossed = wanted @ near
    least = 1e-9 * np.abs(wanted).sum() * np.abs(offered).max()  # gains below this may be rounding
    while True:
        own = crossed.diagonal()
        # half of what swapping i and j adds: the other classes' terms, less the pair's own which stay
        gains = crossed + crossed.T - own[:, None] - own + 2 * wanted * near
        i, j = divmod(int(gains.argmax()), len(gains))
        if not 2 * gains[i, j] > least:
            return order
        swap = np.arange(len(order))
        swap[[i, j]] = j, i
        crossed = (crossed + np.outer(wanted[:, j] - wanted[:, i], near[i] - near[j]))[:, swap]
        near = near[np.ix_(swap, swap)]
        order = order[swap]
