"""Collapse at the stages that a network of one's own names: those of the package's network that it is a copy of."""

import pytest
from torch import nn

from gnc_models.catalog.parts import digest_of, hold_code
from gnc_models.encoders.registry import feature_stages
from study.design.config import TrialConfig
from study.training.trial import Trial

CODE = b"""
from gnc_models.encoders.registry import feature_stages
from gnc_models.encoders.small import make_mlp

def make_copy(in_shape, feature_dim, twice=False):
    network = make_mlp(in_shape, feature_dim, width=8, depth=2, norm_layer="batch")
    network.feature_stages = lambda: feature_stages("mlp", network)[:-1]
    if twice:
        forward = network.forward
        network.forward = lambda inputs: forward(inputs) + forward(inputs)
    return network
"""
SETTINGS = {"dataset": "synthetic", "num_classes": 4, "samples_per_class": 8, "test_samples_per_class": 2, "steps": 3}
SETTINGS |= {"feature_dim": 3, "batch_size": 8, "layers": "all"}
OWN = {"encoder": "nets.py:make_copy", "encoder_source": digest_of(CODE)}


def last_row(**settings):
    trial = Trial(TrialConfig(**SETTINGS, **settings), device="cpu")
    while not trial.is_done:
        trial.run_epoch()
    return {**vars(trial.measurements[-1]), "wall_seconds": 0, "peak_memory_bytes": 0}


def test_stages_of_ones_own_are_measured_like_the_packages():
    hold_code(digest_of(CODE), CODE)
    own = last_row(**OWN)
    assert own["layer_names"] == ["hidden1", "hidden2", "features"]
    assert repr(own) == repr(last_row(encoder="mlp", width=8, depth=2))


def test_a_stage_that_is_called_twice_is_refused():
    hold_code(digest_of(CODE), CODE)
    with pytest.raises(ValueError, match=r"stage 'hidden1' of the encoder must be called once .* got 64 outputs of 32"):
        last_row(**OWN, encoder_options={"twice": True})


@pytest.mark.parametrize("stages", [None, [], [("a", 3)], [nn.Linear(1, 1)], (("a", nn.Linear(1, 1)),)])
def test_a_network_must_name_its_stages(stages):
    network = nn.Sequential(nn.Linear(2, 2))
    if stages is not None:
        network.feature_stages = lambda: stages
    if stages == []:  # the features alone
        assert feature_stages("nets.py:make", network) == [("features", network)]
        return
    with pytest.raises(
        ValueError, match=r"encoder nets.py:make must have a method feature_stages\(\) .* layers = 'none'"
    ):
        feature_stages("nets.py:make", network)
