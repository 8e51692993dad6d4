"""Data sets that need no download: drawn characters, Gaussian classes, indices, text of the standard library."""
