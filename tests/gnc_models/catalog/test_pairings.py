"""Pairs that cannot be are refused, all others are not, and the listed names are those of real members."""

import subprocess
import sys

import pytest

from gnc_models.catalog import pairings
from gnc_models.catalog.pairings import check_pairing
from gnc_models.classifiers.classifier import NORMALIZATIONS
from gnc_models.classifiers.registry import CLASSIFIERS
from gnc_models.losses.registry import LOSSES

SOUND = {
    "loss": "cross_entropy",
    "classifier": "linear",
    "normalization": "both",
    "num_classes": 4,
    "feature_dim": 3,
}


def test_listed_losses_exist():
    assert set(LOSSES) >= pairings.ON_THE_SPHERE | pairings.WITHOUT_TEMPERATURE | pairings.WITHOUT_ROW_GRADIENT
    assert set(LOSSES) >= pairings.ACROSS_SAMPLES


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"classifier": "class_mean", "normalization": "none"},
            "normalization must not be 'none' for classifier 'class_mean', got 'none'",
        ),
        (
            {"classifier": "fixed", "code": "simplex", "num_classes": 5},
            "code must fit into feature_dim, got 'simplex' with 5 classes in 3 dimensions. .*use code 'best'",
        ),
        ({"loss": "hug_mgd"}, "logdet_eps must be given for loss 'hug_mgd', got None"),
        (
            {"loss": "hardmax", "normalization": "weights"},
            "normalization must be 'both' for loss 'hardmax', got 'weights'. It would fall without bound",
        ),
        ({"loss": "hug_mhe", "normalization": "none"}, "normalization must be 'both' for loss 'hug_mhe', got 'none'"),
        ({"loss": "arcface", "normalization": "weights"}, "normalization must be 'both' for loss 'arcface'"),
        (
            {"loss": "supervised_contrastive"},
            "classifier must be 'class_mean' or 'fixed' for loss 'supervised_contrastive', got 'linear'",
        ),
    ],
)
def test_impossible_pairs_are_refused_in_one_sentence_with_a_cure(changed, message):
    with pytest.raises(ValueError, match=message):
        check_pairing(**(SOUND | changed))


def test_every_other_pair_is_let_through():
    passed = 0
    for loss in LOSSES:
        for classifier in CLASSIFIERS:
            for normalization in NORMALIZATIONS:
                if (
                    (normalization != "both" and (loss in pairings.ON_THE_SPHERE or loss == "hardmax"))
                    or (classifier, normalization) == ("class_mean", "none")
                    or (loss in pairings.WITHOUT_ROW_GRADIENT and classifier == "linear")
                ):
                    continue
                pair = {"loss": loss, "classifier": classifier, "normalization": normalization}
                code = "simplex" if classifier == "fixed" else None
                check_pairing(**(SOUND | pair), code=code, logdet_eps=0.1 if loss == "hug_mgd" else None)
                passed += 1
    assert passed == 5 * 11 + 6 * 3 + 2


def test_rules_are_read_without_torch():
    code = "import sys, gnc_models.catalog.pairings, gnc_models.catalog.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
