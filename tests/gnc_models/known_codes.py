"""Point sets whose one-vs-rest margin is known in closed form, and rows of the kinds that solvers meet."""

import functools
import itertools
import math

import torch
from torch import Tensor

GOLDEN = (1 + math.sqrt(5)) / 2


def normalised(rows) -> Tensor:
    rows = torch.as_tensor(rows, dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def rotated(rows: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dim = rows.shape[1]
    return rows @ torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


def polygon(num_classes: int) -> Tensor:
    angles = torch.arange(num_classes, dtype=torch.float64) * (2 * math.pi / num_classes)
    return torch.stack([angles.cos(), angles.sin()], 1)


def simplex(num_classes: int, feature_dim: int) -> Tensor:
    centred = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    axes = torch.linalg.qr(centred[:, : num_classes - 1])[0]
    rows = normalised(centred @ axes)
    return torch.cat([rows, rows.new_zeros(num_classes, feature_dim - num_classes + 1)], 1)


def orthoplex(feature_dim: int) -> Tensor:
    axes = torch.eye(feature_dim, dtype=torch.float64)
    return torch.cat([axes, -axes])


def icosahedron() -> Tensor:
    faces = [(0.0, a, b) for a in (1, -1) for b in (GOLDEN, -GOLDEN)]
    return normalised([turn for x, y, z in faces for turn in ((x, y, z), (z, x, y), (y, z, x))])


def pairs_of_signs(feature_dim: int) -> list[list[float]]:
    rows = []
    for i, j in itertools.combinations(range(feature_dim), 2):
        for a, b in itertools.product((1.0, -1.0), repeat=2):
            row = [0.0] * feature_dim
            row[i], row[j] = a, b
            rows.append(row)
    return rows


def cell_24() -> Tensor:
    return normalised(pairs_of_signs(4))


def e8_roots() -> Tensor:
    halves = [s for s in itertools.product((0.5, -0.5), repeat=8) if sum(x < 0 for x in s) % 2 == 0]
    return normalised(pairs_of_signs(8) + [list(s) for s in halves])


def cell_600() -> Tensor:
    rows = [[2.0 * s if i == j else 0.0 for j in range(4)] for i in range(4) for s in (1, -1)]
    rows += [list(s) for s in itertools.product((1.0, -1.0), repeat=4)]
    for order in itertools.permutations(range(4)):
        if sum(order[j] > order[i] for i in range(4) for j in range(i)) % 2 == 0:
            for a, b, c in itertools.product((1, -1), repeat=3):
                row = [0.0] * 4
                for place, value in zip(order, (a * GOLDEN, b, c / GOLDEN, 0.0), strict=True):
                    row[place] = value
                rows.append(row)
    return normalised(rows)


# --- codes over finite fields ------------------------------------------------------------------------------------

_PRIMITIVE = {3: 0b1011, 5: 0b100101, 7: 0b10000011}


class Field:
    """GF(2^degree) as tables of its powers; elements are integers, addition is exclusive or."""

    def __init__(self, degree: int) -> None:
        self.order = (1 << degree) - 1
        self.powers, x = [], 1
        for _ in range(self.order):
            self.powers.append(x)
            x <<= 1
            if x >> degree:
                x ^= _PRIMITIVE[degree]
        self.logs = {x: i for i, x in enumerate(self.powers)}
        self.degree = degree

    def product(self, a: int, b: int) -> int:
        return self.powers[(self.logs[a] + self.logs[b]) % self.order] if a and b else 0

    def power(self, a: int, exponent: int) -> int:
        return self.powers[self.logs[a] * exponent % self.order] if a else 0

    def trace(self, a: int) -> int:
        total = 0
        for i in range(self.degree):
            total ^= self.power(a, 1 << i)
        return total


def gold(degree: int) -> Tensor:
    """The 2^(2 degree) words Tr(a x + b x^3) over x != 0, degree odd; largest cosine (2^((degree+1)/2) - 1) / d."""
    field = Field(degree)
    trace = torch.tensor([field.trace(a) for a in range(field.order + 1)])
    points = field.powers
    linear = torch.tensor([[trace[field.product(a, x)] for x in points] for a in range(field.order + 1)])
    cubic = torch.tensor([[trace[field.product(b, field.power(x, 3))] for x in points] for b in range(field.order + 1)])
    bits = (linear.unsqueeze(0) + cubic.unsqueeze(1)).reshape(-1, field.order) % 2
    return normalised(1.0 - 2.0 * bits)


def kerdock(feature_dim: int) -> Tensor:
    """d (d + 2) rows in d = 2^m dimensions, m even, with largest cosine 1 / sqrt(d): Kerdock's quadratic forms."""
    degree = feature_dim.bit_length() - 2
    field = Field(degree)
    elements = range(field.order + 1)
    points = [(x, e) for x in elements for e in (0, 1)]
    trace = [field.trace(a) for a in elements]

    def form(a: int, x: int, e: int) -> int:
        ax = field.product(a, x)
        quadratic = sum(trace[field.power(ax, (1 << i) + 1)] for i in range(1, (degree - 1) // 2 + 1))
        return (quadratic + e * trace[ax]) % 2

    linear = torch.tensor(
        [[(trace[field.product(b, x)] + c * e) % 2 for x, e in points] for b in elements for c in (0, 1)]
    )
    forms = torch.tensor([[form(a, x, e) for x, e in points] for a in elements])
    bits = (forms.unsqueeze(1) + linear.unsqueeze(0)).reshape(-1, feature_dim) % 2
    half = torch.cat([1.0 - 2.0 * bits.to(torch.float64), math.sqrt(feature_dim) * torch.eye(feature_dim)])
    return normalised(torch.cat([half, -half]))


# name -> (rows, the margin of every class)
KNOWN = {
    "polygon-8": (polygon(8), 1 - math.cos(2 * math.pi / 8)),
    "polygon-1000": (polygon(1000), 2 * math.sin(math.pi / 1000) ** 2),
    "simplex-3": (simplex(3, 2), 3 / 2),
    "simplex-50": (simplex(50, 64), 50 / 49),
    "orthoplex-29": (orthoplex(29), 1.0),
    "orthoplex-64": (orthoplex(64), 1.0),
    "icosahedron": (icosahedron(), 1 - 1 / math.sqrt(5)),
    "24-cell": (cell_24(), 1 / 2),
    "600-cell": (cell_600(), 1 - GOLDEN / 2),
    "e8-roots": (e8_roots(), 1 / 2),
    "kerdock-16": (kerdock(16), 1 - 1 / 4),
    "gold-31": (gold(5), 1 - 7 / 31),
}


def random_rows(num_classes: int, feature_dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalised(torch.randn(num_classes, feature_dim, generator=generator, dtype=torch.float64))


def clustered_rows(num_classes: int, feature_dim: int, seed: int) -> Tensor:
    """Groups of close rows, as classifiers of look-alike classes have."""
    generator = torch.Generator().manual_seed(seed)
    centres = random_rows(max(2, num_classes // 20), feature_dim, seed + 1)
    which = torch.randint(len(centres), (num_classes,), generator=generator)
    noise = torch.randn(num_classes, feature_dim, generator=generator, dtype=torch.float64)
    return normalised(centres[which] + 0.02 * noise)


def degenerate_rows(num_classes: int, feature_dim: int, seed: int) -> Tensor:
    """Rows with entries -1, 0, 1 only: many equal distances and affine dependences, some rows twice."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-1, 2, (num_classes, feature_dim), generator=generator).to(torch.float64)
    rows[:, 0] += (rows == 0).all(1)
    return normalised(rows)


def raw_rows(num_classes: int, feature_dim: int, seed: int) -> Tensor:
    """Rows of very different lengths, many inside the hull of the others."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.rand(num_classes, 1, generator=generator, dtype=torch.float64) * 3
    return lengths * random_rows(num_classes, feature_dim, seed + 1)


@functools.cache
def trained_rows(num_classes: int, feature_dim: int, seed: int) -> Tensor:
    """Rows of a cosine classifier after 40 steps of SGD on noisy samples around one point a class."""
    torch.manual_seed(seed)
    groups = torch.randn(num_classes // 5 + 1, feature_dim)
    points = groups[torch.arange(num_classes) // 5] + 0.5 * torch.randn(num_classes, feature_dim)
    encoder = torch.nn.Linear(feature_dim, feature_dim)
    rows = torch.nn.Parameter(0.5 * torch.nn.functional.normalize(torch.randn(num_classes, feature_dim), dim=1))
    optimizer = torch.optim.SGD([*encoder.parameters(), rows], lr=0.3, momentum=0.9)
    for _ in range(40):
        labels = torch.randint(num_classes, (128,))
        features = encoder(points[labels] + 0.1 * torch.randn(128, feature_dim))
        features, unit_rows = (torch.nn.functional.normalize(x, dim=1) for x in (features, rows))
        loss = torch.nn.functional.cross_entropy(features @ unit_rows.T / 0.1, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return normalised(rows.detach())


KINDS = {
    "random": random_rows,
    "clustered": clustered_rows,
    "degenerate": degenerate_rows,
    "raw": raw_rows,
    "trained": trained_rows,
}
