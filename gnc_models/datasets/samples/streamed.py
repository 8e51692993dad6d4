"""Inputs that are too large to be held: read again whenever they are needed, by processes of their own.
The batches are those that held inputs would give, in the same order. Knows torch's DataLoader, not what is read."""

import math
import multiprocessing
import pickle
import signal
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gnc_models.processes import ASKS, end_with_parent, kept_from_children

Places = np.ndarray  # numbers of samples, int64
Read = Callable[[Places], np.ndarray]
Convert = Callable[[np.ndarray, Places], Tensor]
CHUNK = 512  # samples, where all are gone through


class Streamed:
    """Inputs by their places, as a tensor in all that a data set asks of its inputs: length, shape, type, selection."""

    def __init__(self, loader: "Loader", places: Int64[Tensor, " samples"], like: Tensor) -> None:
        """like: one input, of the shape and type of all."""
        self._loader, self._places, self._like = loader, places, like
        self.shape, self.dtype = torch.Size([len(places), *like.shape]), like.dtype

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, chosen: Any) -> "Streamed":
        """Those inputs of these, still unread."""
        return Streamed(self._loader, self._places[chosen], self._like)

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def read(self, batches: Iterable[Any]) -> Iterator[Tensor]:
        """The inputs of each batch, which is a slice, a mask or places among these."""
        return self._loader.read([self._places[batch].numpy() for batch in batches])


def read_batches(inputs: Tensor | Streamed, batches: Iterable[Any]) -> Iterator[Tensor]:
    """The inputs of each batch in turn, held or streamed; a batch is a slice, a mask or places."""
    return inputs.read(batches) if isinstance(inputs, Streamed) else (inputs[batch] for batch in batches)


def in_order(samples: int, *, start: int = 0, chunk: int = CHUNK) -> Iterator[slice]:
    """Slices that cover start, ..., samples - 1 in turn."""
    return (slice(first, min(first + chunk, samples)) for first in range(start, samples, chunk))


class Loader:
    """What reads the inputs of one data set, and the processes that do, which end with it or with their parent."""

    def __init__(self, read: Read, convert: Convert, processes: int) -> None:
        """read: raw inputs by place, pickled to the processes. convert: what it gives as inputs, in this process."""
        self._convert, self._turn = convert, 0
        self._plan: list[Places] = []
        # a fork would take along the locks of torch's threads
        several: dict[str, Any] = {"multiprocessing_context": "spawn", "persistent_workers": True}
        self._loader = DataLoader(
            _Reading(read), sampler=self._plan, batch_size=None, collate_fn=_as_it_is, num_workers=processes,
            generator=torch.Generator(),  # else it would draw from the one that dropout draws from
            worker_init_fn=end_with_parent, **(several if processes else {}),
        )  # fmt: skip

    def read(self, plan: list[Places]) -> Iterator[Tensor]:
        """The inputs of each batch of places; one reading at a time."""
        self._plan[:] = plan
        self._turn += 1
        turn = self._turn
        others = set(multiprocessing.active_children())
        with kept_from_children(*ASKS):
            found = iter(self._loader)
        _READERS.update(set(multiprocessing.active_children()) - others)
        for places, raw in zip(plan, found, strict=True):
            assert turn == self._turn, "another reading began before this one ended"
            if isinstance(raw, _Failure):
                raise raw.error from _Elsewhere(raw.trace)
            yield self._convert(raw, places)


_READERS: "weakref.WeakSet[BaseProcess]" = weakref.WeakSet()


def _end_readers() -> None:
    """Before multiprocessing would ask them by a signal that they ignore, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes the end of a reader for an accident
    for process in list(_READERS):
        process.kill()


Finalize(None, _end_readers, exitpriority=1)


class _Failure(NamedTuple):
    error: Exception
    trace: str


class _Elsewhere(Exception):
    """The traceback, as text, of an exception in a reading process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Reading(Dataset[Any]):
    """Whole batches by their places; in another process an exception is handed over as a value, with its traceback."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def __getitem__(self, places: Places) -> Any:
        if get_worker_info() is None:
            return self._read(places)
        try:
            return self._read(places)
        except Exception as error:  # noqa: BLE001 - raised where the batch is asked for
            return _Failure(_portable(error), traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """The exception, or one with its words where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may do anything in its constructor
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _as_it_is(raw: Any) -> Any:
    return raw  # arrays go through a pipe: tensors would need room in /dev/shm, which containers keep small


def stream(read: Read, convert: Convert, samples: int, processes: int) -> Streamed:
    """All inputs that `read` gives by places 0, ..., samples - 1, of which the first is read now to know their shape."""
    first = np.zeros(1, dtype=np.int64)
    like = convert(read(first), first)[0]
    return Streamed(Loader(read, convert, processes), torch.arange(samples), like)


def input_bytes(samples: int, like: Tensor) -> int:
    return samples * math.prod(like.shape) * like.element_size()
