"""Peak memory of one trial, also in a process that ran others before it.

Knows torch.cuda and Linux's /proc; does not know what the trial does.
"""

import re
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its making: on a GPU the bytes torch allocated, on CPU the process's resident bytes.

    A process keeps its high-water mark for life; Linux resets it on request, and where that is refused (other
    systems, some containers) a reused process cannot tell its own peak, so the answer is None.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_reset = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            _CLEAR.write_text("5")
            self._is_reset = True
        except OSError:
            return

    def bytes(self) -> int | None:
        """Peak so far, None where it cannot be told."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if self._is_reset else None
        return int(found.group(1)) * 1024 if found else None
