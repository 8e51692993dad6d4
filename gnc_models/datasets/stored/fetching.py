"""`python -m gnc_models.datasets.stored.fetching NAME DATA_ROOT` downloads a stored set through torchvision.
The only place that downloads, and only when asked by this name: a trial never comes here."""

import argparse
from pathlib import Path

from gnc_models.datasets.stored.layouts import STORED_SETS, MissingData, missing_data


def fetch_dataset(name: str, data_root: Path) -> None:
    """Download a set into `data_root`, with its checksums, unless it is there; MissingData where something lacks."""
    if name not in STORED_SETS:
        raise ValueError(f"dataset must be one of {sorted(STORED_SETS)} to be fetched, got {name!r}.")
    if missing_data(name, data_root) is None:
        return
    import torchvision.datasets  # here, so that asking for help needs no torch

    constructor, settings = STORED_SETS[name].torchvision
    getattr(torchvision.datasets, constructor)(str(data_root), download=True, **settings)
    if missing := missing_data(name, data_root):
        raise MissingData(missing)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Download a data set in torchvision's layout.")
    parser.add_argument("name", choices=sorted(STORED_SETS))
    parser.add_argument("data_root", type=Path)
    given = parser.parse_args()
    fetch_dataset(given.name, given.data_root)
