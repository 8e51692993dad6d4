"""Pairs that cannot be are refused, and all others are not."""

import subprocess
import sys

import pytest

from gnc_models.catalog.members import CLASSIFIERS, LOSSES
from gnc_models.catalog.settings import check_pairing
from gnc_models.classifiers.classifier import NORMALIZATIONS

SOUND = {"loss": "cross_entropy", "classifier": "linear", "normalization": "both", "num_classes": 4, "feature_dim": 3}


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
                    (normalization != "both" and LOSSES[loss].only_both)
                    or (classifier, normalization) == ("class_mean", "none")
                    or (not LOSSES[loss].moves_rows and classifier == "linear")
                ):
                    continue
                pair = {"loss": loss, "classifier": classifier, "normalization": normalization}
                code = "simplex" if classifier == "fixed" else None
                check_pairing(**(SOUND | pair), code=code)
                passed += 1
    assert passed > len(LOSSES) * len(NORMALIZATIONS)


def test_rules_are_read_without_torch():
    code = "import sys, gnc_models.catalog.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
