"""Where downloaded data sets lie on this machine: the environment variable GNC_DATA, else data/ below here.

A folder is a fact of a machine and no setting: what is read from it enters a trial's dataset_digest.
"""

import os
from pathlib import Path

VARIABLE = "GNC_DATA"


def data_folder() -> Path:
    """The folder that torchvision's layouts and image folders are looked for in; it need not exist."""
    return Path(os.environ.get(VARIABLE) or "data").expanduser()
