"""Where every random number of a trial comes from: a seed per (purpose, position). No generator state is stored: epoch 7's
seed is the same whoever asks. Knows hashlib only."""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as (seed, "order", epoch); unrelated purposes get unrelated seeds."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
