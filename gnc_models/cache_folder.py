"""Where this user's cache lies. Knows the environment only."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$GNC_CACHE`, else `gnc-study` in `$XDG_CACHE_HOME`, else in `~/.cache`; it need not exist."""
    if given := os.environ.get("GNC_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "gnc-study"
