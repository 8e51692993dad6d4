"""Optima of the unconstrained-feature model that this user computed: kept in the cache folder, read at the next start.

Knows the cache folder; does not know torch, the optimiser or the shipped tables. One line per optimum, appended whole,
so that processes may write at once; a line that is torn or foreign counts for nothing. The file is read once a
process: what is looked up and the digest that names it always belong together.
"""

import csv
import functools
import os
import zlib
from pathlib import Path

from gnc_models.user_cache import cache_folder

COLUMNS = ("num_classes", "feature_dim", "temperature", "loss", "margin", "margin_low", "margin_high", "starts", "seed")


def kept_file() -> Path:
    """`unconstrained_optima.csv` in the cache folder; it need not exist."""
    return cache_folder() / "unconstrained_optima.csv"


@functools.cache
def kept_rows() -> tuple[dict[str, str], ...]:
    """The kept optima as text by column, in the order they were written; none where the file cannot be read."""
    try:
        lines = kept_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(dict(zip(COLUMNS, row, strict=True)) for row in csv.reader(lines) if _is_whole(row))


def _is_whole(row: list[str]) -> bool:
    try:
        numbers = [float(text) for text in row]
    except ValueError:
        return False
    return len(row) == len(COLUMNS) and all(number.is_integer() for number in (*numbers[:2], *numbers[7:]))


def kept_digest() -> str:
    """CRC-32 of the kept optima, 8 hex digits; empty where there are none."""
    text = "\n".join(",".join(row.values()) for row in kept_rows())
    return f"{zlib.crc32(text.encode()):08x}" if text else ""


def keep_optimum(*values: float) -> bool:
    """Append one optimum, its values in the order of COLUMNS; later processes find it. False where it cannot be written."""
    line = ",".join(f"{value:.10g}" for value in values) + "\n"
    try:
        kept_file().parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(kept_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), "w", encoding="utf-8") as file:
            file.write(line)
    except OSError:
        return False
    return True
