"""How much of a machine a trial's inputs may take, and what is said of it. Knows no torch, so that checks are quick."""

import math
from typing import NamedTuple

FLOAT_BYTES = 4


class Room(NamedTuple):
    """What a machine grants the inputs of each worker of a trial: larger ones are streamed by so many processes."""

    most_bytes: float = math.inf
    processes: int = 0
    reason: str = "no limit"

    def told(self, what: str, size: int) -> str:
        """Whether these inputs of so many bytes are held or streamed, and why, in a sentence."""
        granted = f"the {in_words(float(self.most_bytes))} that a trial's inputs may take here ({self.reason})"
        if size <= self.most_bytes:
            return f"{what} take {in_words(float(size))} of {granted}: they are held in memory."
        by = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{what} would take {in_words(float(size))}, more than {granted}: they are streamed by {by} beside each worker."


HELD = Room()


def in_words(size: float) -> str:
    """'1.5 GiB', or in MiB below one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
