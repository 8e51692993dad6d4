"""A data set of one's own as the project's tensors: arrays, a torch data set or a Hugging Face one.
Of Hugging Face `datasets` it knows only how its sets look, so that it need not be installed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc_models.catalog.parts import call_part, hold_code, study_line
from gnc_models.datasets.samples.dataset import Dataset, label_counted
from gnc_models.datasets.samples.draws import Draw, draw_classes, draw_samples
from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.datasets.samples.streamed import Places, in_order, input_bytes, read_batches, stream

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
GIVE = "Return a pair (train, test), each a pair of arrays, a torch Dataset or a Hugging Face Dataset."


@dataclass(frozen=True)
class Recipe:
    """How another process makes the data set again: the call of its factory, and the file that defines it if it is one."""

    reference: str
    source: str
    options: Mapping[str, Any] | None
    extras: Mapping[str, Any]
    code: bytes | None

    def __call__(self) -> Any:
        if self.code is not None:
            hold_code(self.source, self.code)
        return call_part("dataset", self.reference, self.source, options=self.options, extras=self.extras)


def make_own_dataset(returned: Any, wanted: Draw, *, room: Room = HELD, again: Recipe | None = None) -> Dataset:
    """The first classes and samples, in orders that `data_seed` draws, of what a factory of one's own returned.
    Args:
        returned: a pair of training and test data, each a pair (inputs, labels) of arrays or tensors, or a set with
            `len` whose items are pairs (input, label), or a Hugging Face Dataset with a column of labels and one of
            inputs. Labels are whole numbers from 0; bytes are divided by 255; numbers are taken as they are.
        again: makes the same in the processes that read what is streamed; None: this process reads.
    Returns:
        Images [samples, channels, height, width], vectors [samples, dim] or, of whole numbers, tokens alike."""
    train, test = parts = _both(returned, room)
    likes = [_as_inputs(part.read(np.zeros(1, dtype=np.int64)), part.which) for part in parts]
    if (shapes := _shapes(*likes))[0] != shapes[1]:
        raise ValueError(f"dataset must have training and test inputs of one shape and type, got {shapes}.")
    available = int(train.labels.max()) + 1
    names = train.names or tuple(map(str, range(available)))
    classes = draw_classes(available, wanted.num_classes, wanted.data_seed, origin="this data set")

    def draw(part: _Part, is_test: bool) -> Places:
        order = np.argsort(part.labels, kind="stable")  # once: there may be thousands of classes
        starts = np.searchsorted(part.labels[order], np.arange(available + 1))
        members = (order[starts[k] : starts[k + 1]] for k in classes)
        return np.concatenate(draw_samples(wanted, is_test, members, classes, names))

    places = draw(train, False), draw(test, True)
    if input_bytes(sum(map(len, places)), likes[0][0]) <= room.most_bytes:
        inputs: list[Any] = [_as_inputs(p.read(at), p.which) for p, at in zip(parts, places, strict=True)]
    else:
        read, processes = _Reading(parts, again), 0 if train.is_held or again is None else room.processes
        every = stream(read, partial(_alike, likes[0]), len(train.labels) + len(test.labels), processes)
        inputs = [every[torch.from_numpy(at)] for at in (places[0], places[1] + len(train.labels))]
    counts = [[samples] * wanted.num_classes for samples in wanted[1:3]]
    found = label_counted((inputs[0], counts[0]), (inputs[1], counts[1]), tuple(names[k] for k in classes))
    if likes[0].is_floating_point():
        return found
    tokens = (part for given in inputs for part in read_batches(given, in_order(len(given))))
    return replace(found, vocabulary=1 + max(int(part.max()) for part in tokens))


@dataclass(frozen=True)
class _Part:
    """Training or test data: all labels, and inputs by place. is_held: whether this process holds them anyway."""

    which: str
    labels: np.ndarray
    read: Callable[[Places], np.ndarray]
    names: tuple[str, ...] | None = None
    is_held: bool = False


class _Reading:
    """Reads batches of either part; in a process of its own from what the recipe makes there."""

    def __init__(self, parts: Sequence[_Part], again: Recipe | None) -> None:
        self._parts, self._again, self._first = parts, again, len(parts[0].labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": ()}

    def __call__(self, places: Places) -> np.ndarray:
        if not self._parts:
            assert self._again is not None
            self._parts = _both(self._again(), HELD._replace(most_bytes=0), known=True)
        is_test = bool(places[0] >= self._first)  # a batch is of one part
        try:
            return self._parts[is_test].read(places - self._first * is_test)
        except Exception as error:
            if self._again is not None:
                error.add_note(study_line("dataset", self._again.reference))
            raise


def _alike(first: Tensor, raw: np.ndarray, _places: Places) -> Tensor:
    """Numbers as read, as inputs; ValueError where a batch is of another shape or type than the first."""
    inputs = _as_inputs(raw, "streamed")
    if (shapes := _shapes(first, inputs))[0] != shapes[1]:
        raise ValueError(f"dataset must have inputs of one shape and type, got {shapes}. Resize them first.")
    return inputs


def _shapes(*inputs: Tensor) -> list[str]:
    return [f"{tuple(found.shape[1:])} {found.dtype}" for found in inputs]


def _both(returned: Any, room: Room, *, known: bool = False) -> tuple[_Part, _Part]:
    """Training and test data; known: their labels are, so that inputs alone will be read."""
    if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != 2:
        raise ValueError(f"dataset must return a pair (train, test), got {_kind(returned)}. {GIVE}")
    return _part(returned[0], "train", room, known), _part(returned[1], "test", room, known)


def _part(part: Any, which: str, room: Room, known: bool) -> _Part:
    if hasattr(part, "column_names") and hasattr(part, "features"):
        return _columns(part, which)
    if isinstance(part, (tuple, list)) and len(part) == 2 and all(hasattr(array, "shape") for array in part):
        return _arrays(part[0], part[1], which)
    if hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        return _items(part, which, room, known)
    ends = ", which ends after one pass and cannot be read again" if hasattr(part, "__next__") else ""
    raise ValueError(f"{which} data must be arrays or a set with a length, got {_kind(part)}{ends}. {GIVE}")


def _arrays(inputs: Any, labels: Any, which: str) -> _Part:
    """A pair of arrays: NumPy's and torch's lie in memory unless they are mapped; others are read sample by sample."""
    if isinstance(inputs, Tensor):
        inputs = inputs.detach().cpu()
        inputs = (inputs.float() if inputs.is_floating_point() else inputs).numpy()
    is_array = isinstance(inputs, np.ndarray)

    def read(places: Places) -> np.ndarray:
        return np.asarray(inputs[places]) if is_array else _stack([inputs[int(place)] for place in places], which)

    labels = _as_labels(labels, len(inputs), which)
    return _Part(which, labels, read, is_held=is_array and not isinstance(inputs, np.memmap))


def _items(part: Any, which: str, room: Room, known: bool) -> _Part:
    """A set whose items are pairs: its labels are `targets` if it has these, as torchvision's sets do, else each item's."""

    def item(place: int) -> Any:
        found = part[place]
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise ValueError(f"{which} data must hold pairs (input, label), got {_kind(found)}.")
        return found

    if known:
        return _Part(which, np.zeros(0), lambda places: _stack([item(int(place))[0] for place in places], which))
    targets: Any = getattr(part, "targets", None)
    kept: list[Any] = []
    if np.shape(targets) != (len(part),) or getattr(part, "target_transform", None):
        held, targets = len(part) * _stack([item(0)[0]], which).size * 4 if len(part) else 0, []
        for place in range(len(part)):
            one, label = item(place)
            targets.append(int(label))
            kept.extend([one] if held <= room.most_bytes else [])
    labels = _as_labels(targets, len(part), which)

    def read(places: Places) -> np.ndarray:
        if kept:
            return _stack([kept[place] for place in places], which)
        found = [item(int(place)) for place in places]
        if wrong := [place for place, one in zip(places, found, strict=True) if int(one[1]) != labels[place]]:
            rule = f"{which} data must have the labels of their items in targets"
            raise ValueError(f"{rule}, got {labels[wrong[0]]} for item {wrong[0]}. Remove targets, or make them right.")
        return _stack([one[0] for one in found], which)

    return _Part(which, labels, read)


def _columns(part: Any, which: str) -> _Part:
    """Hugging Face: the column of labels by its type or name, inputs from the first other one."""
    named = [name for name in part.column_names if hasattr(part.features[name], "names")]
    label = next(iter(named or [name for name in part.column_names if name in LABEL_COLUMNS]), None)
    others = [name for name in part.column_names if name != label]
    if label is None or not others:
        rule = f"{which} data must have a column of labels and one of inputs"
        raise ValueError(f"{rule}, got columns {part.column_names}. Name the labels' column label.")
    names = getattr(part.features[label], "names", None)
    inputs = part.select_columns([others[0]])
    if len(part) and isinstance(inputs[0][others[0]], list):  # numbers come as lists, which have lost their type
        inputs = inputs.with_format("numpy")
    labels = _as_labels(part[label][:], len(part), which)

    def read(places: Places) -> np.ndarray:
        return _stack(list(inputs[places.tolist()][others[0]]), which)

    return _Part(which, labels, read, tuple(names) if names else None)


def _stack(inputs: list[Any], which: str) -> np.ndarray:
    """Inputs as one array; pictures get their channels first."""
    arrays = [np.asarray(one) for one in inputs]
    for at, one in enumerate(inputs):
        if hasattr(one, "getbands"):
            arrays[at] = arrays[at][None] if arrays[at].ndim == 2 else np.moveaxis(arrays[at], -1, 0)
    if len(shapes := {array.shape for array in arrays}) > 1:
        raise ValueError(f"{which} data must have inputs of one shape, got {sorted(shapes)[:3]}. Resize them first.")
    return np.stack(arrays)


def _as_inputs(inputs: np.ndarray, which: str) -> Tensor:
    tensor = torch.from_numpy(np.array(inputs))
    if tensor.dtype == torch.uint8:
        tensor = tensor.float() / 255
    tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
    if tensor.ndim not in ((2, 4) if tensor.is_floating_point() else (2,)):
        rule = f"{which} inputs must be [samples, channels, height, width] or [samples, dim], or of whole numbers the latter"
        raise ValueError(f"{rule}, got {list(tensor.shape)}.")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{which} inputs must be finite, got NaN or infinity.")
    return tensor


def _as_labels(labels: Any, samples: int, which: str) -> np.ndarray:
    found = np.asarray(labels)
    if found.shape != (samples,) or found.dtype.kind not in "iu":
        raise ValueError(f"{which} labels must be {samples} whole numbers, got {found.dtype} of shape {found.shape}.")
    if samples == 0 or found.min() < 0:
        raise ValueError(f"{which} labels must be classes from 0, got {found.min() if samples else 'no sample'}.")
    return found.astype(np.int64)


def _kind(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, (tuple, list)) and len(value) != 2 else type(value).__name__
