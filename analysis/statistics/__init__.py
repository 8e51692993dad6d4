"""Statistical methods, one module per method: arrays in, numbers out. Must not know settings or tables."""
