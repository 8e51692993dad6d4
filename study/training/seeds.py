"""Where every random number of a trial comes from: a seed per (purpose, position); no generator state is stored.

Knows hashlib only. A resumed trial needs no generator state, since epoch 7's seed is the same whoever asks.
"""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as (seed, "order", epoch); unrelated purposes get unrelated seeds."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
