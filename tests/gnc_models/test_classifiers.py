"""The head's logits against the formulas, and what they do not depend on."""

import numpy as np
import pytest
import torch

from gnc_models.classifiers import NORMALIZATIONS, LinearClassifier

TEMPERATURES = {"both": 0.1, "features": 0.3, "weights": 2.0, "none": None}


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


@pytest.mark.parametrize(
    ("normalization", "temperature"), [("none", 0.1), ("both", None), ("features", None), ("weights", None)]
)
def test_temperature_where_it_has_no_effect_or_none_where_it_has_is_refused(normalization, temperature):
    with pytest.raises(
        ValueError, match=f"temperature must be given unless .*got {temperature} with '{normalization}'"
    ):
        make_head(normalization, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        make_head("both", temperature=temperature)


def test_unknown_normalization_and_zero_norm_are_refused():
    with pytest.raises(ValueError, match=r"normalization must be one of .*got 'cosine'"):
        LinearClassifier(7, 3, normalization="cosine", temperature=0.1, init_norm=0.5)
    with pytest.raises(ValueError, match=r"init_norm must be positive, got 0\.0"):
        make_head("both", init_norm=0.0)
