"""Measures of generalized neural collapse: features, labels and classifier rows in, one value a column out.

Knows class statistics, certified margins and sums over pairs; does not know networks, training, tables or the disk.
Formulas, meaning, sources and traps are in docs/metrics.md. Everything is float64 and streamed: beside the features
themselves, memory is O(classes x dim + dim^2 + samples) and a few tiles.

`collapse` puts the columns together; every other module holds the columns of one kind, and none imports another's.
"""

from gnc_models.metrics.collapse import Collapse, Normalization, measure_collapse
from gnc_models.metrics.feature_views import Values
from gnc_models.metrics.layers import LayerCollapse, layer_columns, measure_layer
from gnc_models.metrics.variability import measure_variability

__all__ = [
    "Collapse",
    "LayerCollapse",
    "Normalization",
    "Values",
    "layer_columns",
    "measure_collapse",
    "measure_layer",
    "measure_variability",
]
