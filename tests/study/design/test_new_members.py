"""A new loss or encoder is a module and its catalog entry: names, rules, registries and training follow from these."""

import subprocess
import sys

ADDED = """
import sys, types
import gnc_models.catalog.members as catalog

def add(family, name, member, source):
    members = types.MappingProxyType({**catalog.FAMILIES[family], name: member})
    catalog.FAMILIES = types.MappingProxyType({**catalog.FAMILIES, family: members})
    setattr(catalog, {"loss": "LOSSES", "encoder": "ENCODERS"}[family], members)
    module = types.ModuleType(f"gnc_models.{'losses' if family == 'loss' else 'encoders'}.{name}")
    sys.modules[module.__name__] = module
    exec(source, module.__dict__)

add("loss", "brand_new", catalog.Loss("brand_new:BrandNew", {"focal_gamma": 3.0}, only_both="It is so."), '''
from gnc_models.losses.cross_entropy import Focal
class BrandNew(Focal): pass
''')
add("encoder", "linear_map", catalog.Encoder("linear_map:make", takes=frozenset({"vector"}), norm_layers=(),
    stages={"hidden": "0"}), '''
from torch import nn
def make(input_shape, feature_dim): return nn.Sequential(nn.Linear(input_shape[0], 4), nn.Linear(4, feature_dim))
''')

from study.design.errors import StudyError, make_config
from study.design.where import parse_selection
given = {"dataset": "synthetic", "encoder": "linear_map", "loss": "brand_new", "num_classes": 4, "feature_dim": 3,
         "samples_per_class": 4, "batch_size": 8, "steps": 2, "layers": "all"}
config = make_config(given)
assert config.focal_gamma == 3.0 and config.norm_layer is None
assert parse_selection("loss == 'brand_new'")(config.settings())
for wrong, words in (({"normalization": "none"}, "It is so."), ({"dataset": "glyphs"}, "must accept image inputs"),
                     ({"loss": "brand_nex"}, "'brand_new'")):
    try:
        make_config(given | wrong)
    except StudyError as error:
        assert words in str(error), error
    else:
        raise AssertionError(wrong)
from study.training.trial import Trial
trial = Trial(config, device="cpu")
while not trial.is_done:
    trial.run_epoch()
assert trial.measurements[-1].layer_names == ["hidden", "features"]
"""


def test_a_loss_and_an_encoder_that_only_the_catalog_names_can_be_studied():
    done = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
