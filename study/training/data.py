"""Where stored data sets lie on this machine, and what of them the trials lack.

The folder is the environment variable GNC_DATA, else data/ below here: a fact of a machine and no setting. What is
read from it enters a trial's dataset_digest. Knows no torch.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from gnc_models.datasets.stored.layouts import missing_data
from study.design.config import TrialConfig
from study.design.errors import StudyError, summarize

VARIABLE = "GNC_DATA"


def data_folder() -> Path:
    """The folder that torchvision's layouts and image folders are looked for in; it need not exist."""
    return Path(os.environ.get(VARIABLE) or "data").expanduser()


def missing_for(configs: Iterable[TrialConfig]) -> list[str]:
    """What these trials' data sets lack here, a sentence each with the command that gets it."""
    sets = dict.fromkeys((config.dataset, config.folder) for config in configs)
    found = (missing_data(name, data_folder(), folder=folder) for name, folder in sets)
    return [sentence for sentence in found if sentence]


def check_data(configs: Iterable[TrialConfig]) -> None:
    """StudyError that names what is missing, so that no trial starts to find out.

    From here on workers of this machine look in the same folder, wherever Ray starts them.
    """
    if missing := missing_for(configs):
        raise StudyError(f"the data of this study are not all here:\n{summarize(missing)}")
    os.environ[VARIABLE] = str(data_folder().resolve())
