"""HUG's parts at configurations whose values are known, and what moves what."""

import math

import pytest
import torch

from gnc_models.classifiers.classifier import make_classifier
from gnc_models.constructions.explicit import icosahedron, orthoplex, simplex
from gnc_models.losses.loss import make_loss

HUG = ("hug_mhe", "hug_mhs", "hug_mgd")


def build(name, classes, dim, **changed):
    settings = {"logdet_eps": 1e-3} if name == "hug_mgd" else {}
    return make_loss(name, num_classes=classes, feature_dim=dim, **(settings | changed))


def inter(name, points, **changed):
    points = torch.nn.functional.normalize(torch.as_tensor(points, dtype=torch.float64), dim=1)
    return build(name, *points.shape, **changed).inter(points).item()


def head_of(rows):
    rows = torch.as_tensor(rows)
    head = make_classifier("linear", *rows.shape, normalization="both", temperature=1.0, init_norm=1.0).double()
    with torch.no_grad():
        head.weight.copy_(rows)
    return head


@pytest.mark.parametrize("classes", [2, 3, 5, 9])
def test_spread_of_a_simplex_is_its_closed_form(classes):
    points, square = simplex(classes), 2 * classes / (classes - 1)
    assert inter("hug_mhe", points) == pytest.approx(1 / square, rel=1e-12)
    assert inter("hug_mhs", points) == pytest.approx(-math.sqrt(square), rel=1e-12)
    width, eps = 0.9, 0.01
    kernel = math.exp(-square / (2 * width**2))
    # a matrix with 1 + eps on the diagonal and one number beside it has two eigenvalues
    expected = math.log(1 + eps + (classes - 1) * kernel) + (classes - 1) * math.log(1 + eps - kernel)
    assert inter("hug_mgd", points, kernel_width=width, logdet_eps=eps) == pytest.approx(-expected, rel=1e-10)


def test_spread_of_the_orthoplex_and_the_icosahedron_is_their_closed_form():
    dim = 4
    pairs, opposite = math.comb(2 * dim, 2), dim
    expected = ((pairs - opposite) / 2 + opposite / 4) / pairs
    assert inter("hug_mhe", orthoplex(dim)) == pytest.approx(expected, rel=1e-12)
    assert inter("hug_mhs", orthoplex(dim)) == pytest.approx(-math.sqrt(2), rel=1e-12)
    assert inter("hug_mhs", icosahedron()) == pytest.approx(-math.sqrt(2 - 2 / math.sqrt(5)), rel=1e-12)


def test_close_proxies_keep_the_digits_of_their_energy_and_coinciding_ones_are_left_out():
    angle = 1e-7
    points = [[1.0, 0.0], [math.cos(angle), math.sin(angle)], [0.0, -1.0]]
    far = 1 / 2, 1 / (2 + 2 * math.sin(angle))
    expected = (1 / (2 * math.sin(angle / 2)) ** 2 + sum(far)) / 3
    assert inter("hug_mhe", points) == pytest.approx(expected, rel=1e-7)  # the points themselves are rounded
    assert inter("hug_mhe", [[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]]) == pytest.approx(0.5, rel=1e-12)
    assert inter("hug_mhe", [[1.0, 0.0], [1.0, 0.0]]) == 0.0


def test_coinciding_proxies_leave_a_gradient_that_is_finite():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    build("hug_mhe", 3, 2).inter(points).backward()
    assert points.grad.isfinite().all()
    assert points.grad[2].norm() > 0.1


def turned(angles, draw, dim):
    """Pairs of unit rows, the k-th with `angles[k]` between its two rows, in planes of their own at random places."""
    axes = torch.linalg.qr(torch.randn(dim, dim, generator=draw, dtype=torch.float64))[0]
    pairs = [(axes[2 * k], axes[2 * k] * math.cos(a) + axes[2 * k + 1] * math.sin(a)) for k, a in enumerate(angles)]
    return torch.nn.functional.normalize(torch.stack([row for pair in pairs for row in pair]), dim=1)


def test_of_pairs_that_are_near_the_nearest_is_the_one_that_is_moved():
    draw = torch.Generator().manual_seed(0)
    loss = build("hug_mhs", 4, 16)
    for angle in torch.logspace(-10, -7, 200).tolist():
        rows = turned([2 * angle, angle], draw, 16).requires_grad_()
        value = loss.inter(rows)
        assert value.item() == pytest.approx(-2 * math.sin(angle / 2), rel=1e-4)  # the rows themselves are rounded
        value.backward()
        assert rows.grad[:2].norm() == 0
        assert rows.grad[2:].norm(dim=1).tolist() == pytest.approx([1, 1])
        assert rows.grad[3] @ (rows[3] - rows[2]) < 0  # a step downhill parts them


def test_proxies_that_coincide_do_not_hide_the_nearest_pair_of_others():
    angle = 0.3
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-math.sin(angle), math.cos(angle)]]).double()
    points.requires_grad_()
    value = build("hug_mhs", 4, 2).inter(points)
    assert value.item() == pytest.approx(-2 * math.sin(angle / 2), rel=1e-6)
    value.backward()
    assert points.grad[2:].norm(dim=1).tolist() == pytest.approx([1, 1])
    assert inter("hug_mhs", [[1.0, 0.0], [1.0, 0.0]]) == 0.0


def test_rows_that_are_near_keep_the_slope_of_the_determinant():
    """With k = exp(-s / 2) of s = (2 sin(a / 2))^2 the slope of -log((1 + eps)^2 - k^2) in a is -2 k^2 sin(a) / (...)."""
    draw, eps = torch.Generator().manual_seed(0), 1e-6
    loss = build("hug_mgd", 2, 16, logdet_eps=eps)
    for angle in torch.logspace(-9, -3, 50).tolist():
        rows = turned([angle], draw, 16).requires_grad_()
        loss.inter(rows).backward()
        across = torch.nn.functional.normalize(rows[1] - rows[0] * (rows[0] @ rows[1]), dim=0).detach()
        kernel = math.exp(-((2 * math.sin(angle / 2)) ** 2))
        expected = -2 * kernel * math.sin(angle) / ((1 + eps) ** 2 - kernel)
        assert (rows.grad[1] @ across).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", HUG)
@pytest.mark.parametrize(("classes", "dim"), [(4, 3), (6, 3)])
def test_simplex_and_cross_polytope_are_stationary_and_below_what_is_near(name, classes, dim):
    """HUG's theory: K = d + 1 gives the simplex, K = 2 d the cross-polytope."""
    points = torch.from_numpy(simplex(classes) if classes == dim + 1 else orthoplex(dim))
    points = torch.nn.functional.normalize(points, dim=1)
    loss, best = build(name, classes, dim), inter(name, points)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(5):
            moved = points + size * torch.randn(points.shape, generator=generator, dtype=torch.float64)
            assert loss.inter(torch.nn.functional.normalize(moved, dim=1)).item() >= best - 1e-12


@pytest.mark.parametrize("name", HUG)
def test_proxies_are_moved_by_the_spread_and_features_by_their_distance_only(name):
    torch.manual_seed(0)
    head = head_of(torch.randn(5, 3, dtype=torch.float64))
    features, labels = torch.randn(12, 3, dtype=torch.float64, requires_grad=True), torch.arange(12) % 4
    slopes = {}
    for inter_weight, intra_weight in ((1.0, 1.0), (1.0, 2.0), (2.0, 1.0)):
        features.grad = head.weight.grad = None
        loss = build(name, 5, 3, inter_weight=inter_weight, intra_weight=intra_weight)
        loss(features, labels, head, 1.0).backward()
        slopes[inter_weight, intra_weight] = features.grad, head.weight.grad
    once = slopes[1.0, 1.0]
    assert torch.allclose(slopes[1.0, 2.0][0], 2 * once[0])
    assert torch.allclose(slopes[1.0, 2.0][1], once[1])
    assert torch.allclose(slopes[2.0, 1.0][0], once[0])
    assert torch.allclose(slopes[2.0, 1.0][1], 2 * once[1])


def test_gradient_of_the_proxies_is_that_of_finite_differences():
    torch.manual_seed(0)
    points = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    for name in HUG:
        loss = build(name, 6, 3)
        assert torch.autograd.gradcheck(
            lambda rows, loss=loss: loss.inter(torch.nn.functional.normalize(rows, dim=1)), [points]
        )


def test_samples_on_their_proxy_leave_no_distance_and_the_determinant_its_epsilon():
    rows = torch.from_numpy(simplex(3))
    head, labels = head_of(rows), torch.tensor([0, 0, 1, 1, 1])
    features = rows[labels].clone().requires_grad_()
    for name in ("hug_mhe", "hug_mhs"):
        value = build(name, 3, 2, inter_weight=1.0, intra_weight=1.0)(features, labels, head, 1.0)
        assert value.item() == pytest.approx(inter(name, rows), rel=1e-7)
    eps = 1e-4
    loss = build("hug_mgd", 3, 2, logdet_eps=eps)
    points = torch.nn.functional.normalize(rows, dim=1)
    # n equal points and their proxy: one eigenvalue n + 1 + eps, n of eps
    expected = sum(math.log(n + 1 + eps) + n * math.log(eps) for n in (2, 3)) / 2
    assert loss.intra(points[labels], labels, points).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", HUG)
def test_nearly_equal_proxies_are_pushed_apart_in_float32(name):
    """2 - 2 cos of rows 1e-4 apart is 1e-8: below the rounding of float32, where it would pull as well as push."""
    torch.manual_seed(0)
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-4, 0.0], [0.0, 0.0, 1.0]])
    head = head_of(rows).float()
    features = torch.randn(3, 3, requires_grad=True)
    build(name, 3, 3)(features, torch.arange(3), head, 1.0).backward()
    slope = head.weight.grad
    assert slope.isfinite().all()
    assert slope[0, 1] > 0
    assert slope[1, 1] < 0


@pytest.mark.parametrize("name", HUG)
def test_gram_is_regular_with_many_more_classes_than_dimensions(name):
    torch.manual_seed(0)
    head = head_of(torch.randn(200, 2, dtype=torch.float64))
    features, labels = torch.randn(40, 2, dtype=torch.float64, requires_grad=True), torch.randint(200, (40,))
    value = build(name, 200, 2)(features, labels, head, 1.0)
    value.backward()
    assert value.isfinite()
    assert head.weight.grad.isfinite().all()
