"""Measures of collapse: features, labels and classifier rows in, one value per column out.

Knows class statistics, certified margins and sums over pairs; does not know networks, training, tables or the disk.
Formulas, meaning, sources and traps are in docs/metrics.md. Everything is float64 and streamed: beside the features
themselves, memory is O(classes x dim + dim^2 + samples) and a few tiles. `collapse` puts the columns together; every
other module holds the columns of one kind.
"""
