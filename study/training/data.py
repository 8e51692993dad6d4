"""A trial's data set, where stored ones lie on this machine, and what of them is missing.

Stored sets lie in the folder of the environment variable GNC_DATA, else in data/ in the working directory: a fact of a
machine and no setting. What is read enters a trial's dataset_digest. Imports torch only to load a data set.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gnc_models.datasets.stored.layouts import missing_data
from study.design.config import TrialConfig, settings_with
from study.design.errors import StudyError, summarize

if TYPE_CHECKING:
    from gnc_models.datasets.registry import Dataset

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
    """StudyError that names what is missing, so that no trial starts to find out."""
    if missing := missing_for(configs):
        raise StudyError(f"the data of this study are not all here:\n{summarize(missing)}")


def load_dataset(config: TrialConfig) -> "Dataset":
    """The trial's data; the same for every trial with the same data settings."""
    from gnc_models.datasets.registry import make_dataset  # torch takes seconds, and most commands need no data

    settings = {name: getattr(config, name) for name in settings_with("data", "size")}
    return make_dataset(settings.pop("dataset"), data_root=data_folder(), **settings)
