"""Measures of collapse: features, labels and classifier rows in, one value per column out (docs/metrics.md).
Float64 and streamed: beside the features, O(classes x dim + dim^2 + samples) and tiles. `collapse` joins them."""
