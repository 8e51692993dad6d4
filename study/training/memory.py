"""Peak memory of one trial, also in a process that ran others before it, and what a trial leaves behind on a GPU.
Knows torch.cuda and Linux's /proc; does not know what the trial does."""

import contextlib
import gc
import re
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
HELD_LIMIT = 64 << 20  # bytes: workspaces of cuBLAS and cuDNN stay, tensors of a trial do not


def held_bytes() -> int:
    """Bytes that this process holds on its GPUs once all that can be freed is; 0 where it never touched one.
    Its own alone: what other processes hold of a shared GPU comes and goes."""
    if not torch.cuda.is_initialized():
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


def is_free_again(held: int) -> bool:
    """Whether a process that holds so many bytes on GPUs after a trial can take another one."""
    return held <= HELD_LIMIT


class PeakMemory:
    """Counts from when it is made: on a GPU the bytes torch allocated, on CPU the process's resident bytes.
    A process keeps its high-water mark for life; Linux resets it on request, and where that is refused (other systems,
    some containers) a reused process cannot tell its own peak, so the answer is None."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_reset = device, False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                self._is_reset = bool(_CLEAR.write_text("5"))

    def bytes(self) -> int | None:
        """Peak so far, None if unknown."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if self._is_reset else None
        return int(found.group(1)) * 1024 if found else None
