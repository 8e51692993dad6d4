"""Certified one-vs-rest margins and sums over pairs. Knows torch; does not know classes' data, training or references."""
