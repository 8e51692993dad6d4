"""Which classes and samples of a set are used: the first ones of orders that `data_seed` draws."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Streams of random numbers; a stream's number never changes, or stored digests would.
_ORDER, _TRAIN, _TEST = 0, 1, 2


class Draw(NamedTuple):
    """What a trial takes of a set: so many classes, and samples of each (None: all), in orders that data_seed draws."""

    num_classes: int
    samples_per_class: Any
    test_samples_per_class: Any
    data_seed: int


def draw_classes(available: int, num_classes: int, data_seed: int, *, origin: str) -> list[int]:
    """The first `num_classes` of the seed's order of classes 0 to available - 1; ValueError where there are fewer."""
    if num_classes > available:
        raise ValueError(f"num_classes must be at most {available}, the classes of {origin}, got {num_classes!r}.")
    return np.random.default_rng([data_seed, _ORDER]).permutation(available)[:num_classes].tolist()


def draw_samples(
    wanted: Draw, is_test: bool, members: Iterable[np.ndarray], classes: Sequence[int], names: Sequence[str]
) -> list[np.ndarray]:
    """The first ones of the seed's order of each class's members; ValueError where there are fewer."""
    drawn, samples = [], wanted.test_samples_per_class if is_test else wanted.samples_per_class
    for label, own in zip(classes, members, strict=True):
        if too_few := few_samples({names[label]: len(own)}, samples, is_test):
            raise ValueError(too_few)
        stream = _TEST if is_test else _TRAIN
        drawn.append(np.random.default_rng([wanted.data_seed, stream, label]).permutation(own)[:samples])
    return drawn


def few_samples(held: Mapping[str, int], samples: int | None, is_test: bool) -> str:
    """Why classes that hold so many samples cannot give `samples` each, None: all they have; empty where they can."""
    few = {name: count for name, count in held.items() if count < (samples or 1)}
    if not few:
        return ""
    setting, kind = ("test_samples_per_class", "test") if is_test else ("samples_per_class", "training")
    name, most = min(few.items(), key=lambda pair: pair[1])
    others = ", ".join(f"{other!r} has {count}" for other, count in list(few.items())[:5])
    more = f" {len(few)} classes have too few: {others}{', ...' if len(few) > 5 else ''}." if len(few) > 1 else ""
    if not most:
        return f"each class must have a {kind} sample, got none of class {name!r}.{more}"
    return f"{setting} must be at most {most}, the {kind} samples of class {name!r}, got {samples!r}.{more}"
