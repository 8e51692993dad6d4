"""Logits against the formulas and what they do not depend on; how each kind of rows starts and moves."""

import math

import numpy as np
import pytest
import torch

from gnc_models.catalog.members import CLASSIFIERS
from gnc_models.classifiers.classifier import NORMALIZATIONS, LinearClassifier, make_classifier

TEMPERATURES = {"both": 0.1, "features": 0.3, "weights": 2.0, "none": None}
MEMBERS = [(name, form) for name in CLASSIFIERS for form in NORMALIZATIONS if (name, form) != ("class_mean", "none")]


def make_head(normalization, **changed):
    torch.manual_seed(0)
    settings = {"normalization": normalization, "temperature": TEMPERATURES[normalization], "init_norm": 0.5}
    return LinearClassifier(7, 3, **(settings | changed))


def ref_logits(features: np.ndarray, weight: np.ndarray, normalization: str) -> np.ndarray:
    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))

    return {
        "both": lambda: unit(features) @ unit(weight).T / 0.1,
        "features": lambda: unit(features) @ weight.T / 0.3,
        "weights": lambda: features @ unit(weight).T / 2.0,
        "none": lambda: features @ weight.T,
    }[normalization]()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_logits_follow_the_formula(normalization):
    head = make_head(normalization).double()
    features = torch.randn(5, 3, dtype=torch.float64) * 4
    expected = ref_logits(features.numpy(), head.weight.detach().numpy(), normalization)
    assert head(features).detach().numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_logits_ignore_the_scale_of_what_is_normalised_and_only_that(normalization):
    head, features = make_head(normalization).double(), torch.randn(5, 3, dtype=torch.float64)
    before = head(features)
    ignores_features, ignores_weights = NORMALIZATIONS[normalization]
    assert torch.allclose(head(3 * features), before) == ignores_features
    with torch.no_grad():
        head.weight *= 3
    assert torch.allclose(head(features), before) == ignores_weights


def test_gradient_of_a_normalised_row_is_at_right_angles_to_it():
    head = make_head("both").double()
    torch.nn.functional.cross_entropy(head(torch.randn(9, 3, dtype=torch.float64)), torch.arange(9) % 7).backward()
    assert head.weight.grad.norm() > 0.1
    assert (head.weight.grad * head.weight).sum(1).detach().numpy() == pytest.approx(0, abs=1e-12)


def test_rows_start_with_the_norm_asked_for_in_directions_that_the_seed_draws():
    head = make_head("both", init_norm=0.7)
    assert head.weight.shape == (7, 3)
    assert head.weight.norm(dim=1).detach().numpy() == pytest.approx(0.7, rel=1e-6)
    assert torch.equal(head.weight, make_head("both", init_norm=0.7).weight)
    assert not torch.allclose(head.weight[0], head.weight[1])
    torch.manual_seed(1)
    assert not torch.equal(
        LinearClassifier(7, 3, normalization="none", temperature=None, init_norm=0.7).weight, head.weight
    )


def test_head_has_its_rows_and_no_other_parameter():
    assert [name for name, _ in make_head("both").named_parameters()] == ["weight"]
    assert list(make_head("both").state_dict()) == ["weight"]


every_member = pytest.mark.parametrize(("name", "normalization"), MEMBERS)


def make(name, normalization="both", *, classes=7, dim=3, seed=0, **settings):
    torch.manual_seed(seed)
    defaults = {"code": "random"} if name == "fixed" else {}
    return make_classifier(
        name,
        classes,
        dim,
        normalization=normalization,
        temperature=TEMPERATURES[normalization],
        init_norm=0.5,
        **(defaults | settings),
    )


@every_member
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_classifier_gives_the_logits_of_its_rows(name, normalization, dtype):
    head = make(name, normalization).to(dtype)
    features = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    expected = ref_logits(features.detach().numpy(), head.weight.detach().numpy(), normalization)
    logits = head.logits(features)
    assert logits.dtype == dtype
    assert logits.detach().numpy() == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 1e-12, abs=1e-6)
    assert torch.equal(head(features), logits)
    assert torch.equal(head(features, 2.0), head.logits(features, 2.0))
    assert torch.allclose(head.logits(features, 2.0) * 2.0, logits * head.temperature, rtol=1e-5)
    scaled, rows = head.scaled(features)
    assert torch.equal(scaled @ rows.T / head.temperature, logits)
    logits.square().sum().backward()
    assert features.grad.abs().max() > 0


@every_member
def test_every_classifier_is_drawn_by_the_seed_and_restored_from_its_state(name, normalization):
    head, again, other = (make(name, normalization, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(head.weight, again.weight)
    assert not torch.equal(head.weight, other.weight)
    assert list(head.state_dict()) == ["weight"]
    other.load_state_dict(head.state_dict())
    features = torch.randn(4, 3)
    assert torch.equal(other(features), head(features))


@every_member
def test_only_linear_rows_are_trained_and_only_class_means_observe(name, normalization):
    head = make(name, normalization)
    assert [key for key, _ in head.named_parameters()] == (["weight"] if name == "linear" else [])
    before = head.weight.detach().clone()
    head.observe(torch.randn(20, 3, requires_grad=True), torch.arange(20) % 7)
    assert torch.equal(head.weight, before) == (name != "class_mean")
    assert head.weight.requires_grad == (name == "linear")


@every_member
def test_directions_are_unit_where_normalised_and_of_the_norm_asked_for_elsewhere(name, normalization):
    head = make(name, normalization)
    starts_unit = name == "class_mean" or (name == "fixed" and NORMALIZATIONS[normalization][1])
    assert head.weight.norm(dim=1).detach().numpy() == pytest.approx(1.0 if starts_unit else 0.5, rel=1e-6)
    assert head.scaled(torch.randn(2, 3))[1].norm(dim=1).detach().numpy() == pytest.approx(
        1.0 if starts_unit or NORMALIZATIONS[normalization][1] else 0.5, rel=1e-6
    )


def ref_class_means(weight, features, labels, form, momentum):
    """`W <- normalize(beta W + (1 - beta) * sum or mean of the class's unit features)`, one class at a time."""
    moved = []
    for label, row in enumerate(weight.tolist()):
        own = [f / np.linalg.norm(f) for f, y in zip(features.numpy(), labels.tolist(), strict=True) if y == label]
        if own:
            new = np.sum(own, axis=0) / (len(own) if form == "mean" else 1)
            row = momentum * np.array(row) + (1 - momentum) * new
            row = row / np.linalg.norm(row)
        moved.append(row)
    return np.array(moved)


@pytest.mark.parametrize("form", ["sum", "mean"])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("normalization", ["both", "features"])
def test_class_means_follow_their_definition(form, momentum, normalization):
    head = make("class_mean", normalization, class_mean_form=form, class_mean_momentum=momentum).double()
    weight, labels = head.weight.clone(), torch.tensor([0, 3, 3, 1, 3, 0])
    for step in range(3):
        features = 4 * torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        weight = torch.from_numpy(ref_class_means(weight, features, labels, form, momentum))
        head.observe(features, labels)
    assert head.weight.numpy() == pytest.approx(weight.numpy(), rel=1e-12, abs=1e-14)
    assert torch.equal(head.weight[[2, 4, 5, 6]], make("class_mean", normalization).double().weight[[2, 4, 5, 6]])


@pytest.mark.parametrize(("form", "factor"), [("sum", 6), ("mean", 1)])
def test_new_weighs_against_old_by_the_share_of_the_paper(form, factor):
    """m (1 - beta) / beta for m samples of a class in the sum form, (1 - beta) / beta in the mean form."""
    head = make("class_mean", dim=2, class_mean_form=form, class_mean_momentum=0.8).double()
    head.weight[0] = torch.tensor([1.0, 0.0])
    head.observe(torch.tensor([[0.0, 5.0]] * 6, dtype=torch.float64), torch.zeros(6, dtype=torch.int64))
    assert (head.weight[0, 1] / head.weight[0, 0]).item() == pytest.approx(factor * 0.2 / 0.8, rel=1e-12)


def test_features_of_any_length_count_by_length_only_where_the_head_keeps_it():
    for normalization, keeps in (("both", False), ("weights", True)):
        head, other = (make("class_mean", normalization) for _ in range(2))
        features, labels = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
        head.observe(features, labels)
        other.observe(features * torch.linspace(1, 9, 8)[:, None], labels)
        assert torch.allclose(head.weight, other.weight) == (not keeps)


def test_class_mean_row_stays_where_old_and_new_cancel():
    head = make("class_mean", class_mean_momentum=0.5, class_mean_form="mean").double()
    row = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    head.weight[0] = row
    head.observe(-row[None], torch.tensor([0]))
    assert torch.equal(head.weight[0], row)


def _observe_part(rank, folder):
    """One of two processes, which sees every second sample."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for form in ("sum", "mean"):
        head = make("class_mean", class_mean_form=form).double()
        features, labels = observed()
        head.observe(features[rank::2], labels[rank::2], sum_over_workers=torch.distributed.all_reduce)
        torch.save(head.weight, f"{folder}/{form}-{rank}.pt")
        # a trial alone in a process that belongs to somebody else's group
        other = make("class_mean", class_mean_form=form).double()
        if rank == 0:
            other.observe(features, labels)
            torch.save(other.weight, f"{folder}/{form}-alone.pt")
    torch.distributed.destroy_process_group()


def observed():
    generator = torch.Generator().manual_seed(5)
    # an odd number of samples, class 2 seen by one process only, classes 5 and 6 by none
    labels = torch.tensor([0, 1, 2, 3, 0, 0, 2, 4, 1])
    return torch.randn(9, 3, generator=generator, dtype=torch.float64), labels


def test_class_means_of_two_processes_are_those_of_one(tmp_path):
    torch.multiprocessing.spawn(_observe_part, (str(tmp_path),), nprocs=2)
    for form in ("sum", "mean"):
        alone = make("class_mean", class_mean_form=form).double()
        alone.observe(*observed())
        first, second = (torch.load(tmp_path / f"{form}-{rank}.pt") for rank in (0, 1))
        assert torch.equal(first, second)
        assert first.numpy() == pytest.approx(alone.weight.numpy(), rel=1e-14, abs=1e-15)
        assert torch.equal(torch.load(tmp_path / f"{form}-alone.pt"), alone.weight)


@pytest.mark.parametrize(
    ("code", "classes", "dim", "margin"),
    [("simplex", 4, 3, 4 / 3), ("simplex", 3, 6, 1.5), ("best", 12, 3, 1 - 1 / math.sqrt(5)), ("best", 6, 3, 1.0)],
)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_fixed_rows_are_the_points_of_the_code(code, classes, dim, margin, normalization):
    rows = make("fixed", normalization, classes=classes, dim=dim, code=code).weight
    assert rows.norm(dim=1).numpy() == pytest.approx(1.0 if NORMALIZATIONS[normalization][1] else 0.5, rel=1e-6)
    cosines = torch.nn.functional.normalize(rows.double(), dim=1)
    cosines = (cosines @ cosines.T).fill_diagonal_(-1)
    assert 1 - cosines.max().item() == pytest.approx(margin, abs=1e-6)


def test_random_assignment_permutes_one_code_and_similarity_gives_near_points_to_the_similar():
    first, second = (make("fixed", classes=12, code="best", seed=seed).weight for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.cdist(first, second).argmin(1).sort().values, torch.arange(12))
    similarity = torch.zeros(12, 12)
    similarity[0, 1] = similarity[1, 0] = 1.0
    similarity[2, 3] = similarity[3, 2] = -1.0
    rows = make("fixed", classes=12, code="best", assignment="similarity", similarity=similarity).weight
    assert (rows[0] @ rows[1]).item() == pytest.approx(1 / math.sqrt(5), rel=1e-5)
    assert (rows[2] @ rows[3]).item() == pytest.approx(-1, rel=1e-5)
    again = make("fixed", classes=12, code="best", assignment="similarity", similarity=similarity, seed=3)
    assert torch.equal(again.weight, rows)


@every_member
def test_temperature_is_held_by_every_member(name, normalization):
    head = make(name, normalization)
    assert head.temperature == (TEMPERATURES[normalization] or 1.0)
