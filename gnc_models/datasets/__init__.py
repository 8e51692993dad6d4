"""Labelled tensors: `registry` builds them, `samples` says what they are, `made` and `stored` where they come from."""
