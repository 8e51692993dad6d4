"""Labelled tensors by name: `registry` builds them, `samples` is what they are, `made` and `stored` where they come from.

Does not know networks, training or the results folder.
"""
