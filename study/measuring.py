"""One measurement of a network: what its features, rows and accuracies are after an epoch, as values by column.

Knows Training, the data and gnc_models.metrics; does not know when a trial is measured or where rows go.
"""

from typing import Any

import torch
from torch import Tensor

from gnc_models.attacks import attack_accuracies
from gnc_models.datasets import Dataset
from gnc_models.encoders import feature_stages
from gnc_models.metrics import Collapse, measure_collapse, measure_layer
from gnc_models.similarity import class_mean_inputs
from study.training import Training
