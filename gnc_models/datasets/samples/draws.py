"""Which classes and samples of a stored set are used: the first ones of orders drawn by `data_seed`, so that both nest."""

import numpy as np

# Streams of random numbers; a stream's number never changes, or stored digests would.
_ORDER, _TRAIN, _TEST = 0, 1, 2


def draw_classes(available: int, num_classes: int, data_seed: int, *, origin: str) -> list[int]:
    """The first `num_classes` of the seed's order of the classes 0 to available - 1.

    Raises:
        ValueError: more classes than there are; the text names the `origin` they come from.
    """
    if num_classes > available:
        raise ValueError(f"num_classes must be at most {available}, the classes of {origin}, got {num_classes!r}.")
    return np.random.default_rng([data_seed, _ORDER]).permutation(available)[:num_classes].tolist()


def draw_samples(
    members: np.ndarray, samples: int, data_seed: int, label: int, class_name: str, is_test: bool
) -> np.ndarray:
    """The first `samples` of the seed's order of one class's members `[members]`.

    Raises:
        ValueError: the class has fewer; the text names it.
    """
    if samples > len(members):
        setting, kind = ("test_samples_per_class", "test") if is_test else ("samples_per_class", "training")
        raise ValueError(
            f"{setting} must be at most {len(members)}, the {kind} samples of class {class_name!r}, got {samples!r}."
        )
    stream = _TEST if is_test else _TRAIN
    return np.random.default_rng([data_seed, stream, label]).permutation(members)[:samples]
