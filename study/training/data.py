"""A trial's data set, where stored ones lie on this machine, and what of them is missing. What is read enters dataset_digest.
Imports torch only to load a data set, and to count the classes of fonts."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gnc_models.catalog.members import BUILT_IN_FONTS
from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.datasets.stored.layouts import STORED_SETS, data_folder, missing_data
from study.design.compatibility import check_batches
from study.design.config import TrialConfig, settings_with
from study.design.errors import StudyError, summarize

if TYPE_CHECKING:
    from gnc_models.datasets.samples.dataset import Dataset
    from gnc_models.datasets.stored.holdings import Holdings


class DataFound(NamedTuple):
    """What trials' data sets hold here and what they lack, a sentence each; where a command gets it, with that command."""

    held: list[str]
    missing: list[str]


def find_data(configs: Sequence[TrialConfig], room: Room | None = None) -> DataFound:
    """All that can be said of these trials' data before anything starts: files are counted, and no pixel is read.
    room: what inputs may take here; None: say nothing of it."""
    sets: dict[tuple[str, str | None, str | None, int], dict[tuple[int, int | None, int], None]] = {}
    for c in configs:
        wanted = (_all_classes(c), c.samples_per_class or None, c.test_samples_per_class or 1)
        sets.setdefault((c.dataset, c.folder, c.fonts, c.data_seed if c.folder else 0), {})[wanted] = None
    held, missing = list[str](), list[str]()
    for (name, folder, fonts, data_seed), sizes in sets.items():
        if absent := missing_data(name, data_folder(), folder=folder, fonts=fonts):
            missing.append(absent)
        elif folder is not None:
            found = _survey(folder, data_seed, sizes)
            held, missing = held + found.held, missing + found.missing
            if room and not found.missing:
                largest = max(_image_bytes(c) for c in configs if (c.folder, c.data_seed) == (folder, data_seed))
                held.append(room.told(f"the images of a trial on {folder}", largest))
        elif fonts not in (None, BUILT_IN_FONTS):
            _survey_fonts(fonts, [c for c in configs if c.fonts == fonts], held, missing)
    for config in configs if not missing else ():
        if not config.samples_per_class:  # of other trials this is known without a disk
            try:
                check_batches(int(training_samples(config)), config.batch_size, config.workers)
            except ValueError as error:
                missing.append(str(error))
    return DataFound(held, list(dict.fromkeys(missing)))


def _survey_fonts(fonts: str, configs: Sequence[TrialConfig], held: list[str], missing: list[str]) -> None:
    """How many classes they have, if they were drawn on this machine before."""
    from gnc_models.datasets.made.glyphs import known_classes

    for resolution in sorted({config.resolution or 0 for config in configs}):
        most = max(_all_classes(config) for config in configs if config.resolution == resolution)
        try:
            known = known_classes(fonts, resolution, data_folder())
        except ValueError as error:
            missing.append(str(error))
            return
        told = "the first trial draws and compares the characters (minutes), and keeps them for all others."
        known_told = f"{known} characters differ enough at resolution {resolution}."
        held.append(f"{fonts}: {told if known is None else known_told}")
        if known is not None and most > known:
            missing.append(f"num_classes and ood_classes must be at most {known} together with {fonts}, got {most}.")


def _all_classes(config: TrialConfig) -> int:
    return config.num_classes + (config.ood_classes or 0)


def _survey(folder: str, data_seed: int, wanted: Iterable[tuple[int, int | None, int]]) -> "Holdings":
    from gnc_models.datasets.stored.holdings import Wanted, survey_folder  # Pillow and numpy, which few studies need

    return survey_folder(data_folder(), folder, data_seed, [Wanted(*sizes) for sizes in wanted])


def check_data(configs: Sequence[TrialConfig]) -> None:
    """StudyError that names what is missing, so that no trial starts to find out."""
    if missing := find_data(configs).missing:
        raise StudyError(f"the data of this study are not as it needs them:\n{summarize(missing)}")


def training_samples(config: TrialConfig) -> float:
    """Training samples of a trial, counted where it takes all; NaN where they are not here to be counted."""
    if config.samples_per_class:
        return config.num_classes * config.samples_per_class
    if config.folder is None:  # at most: MNIST's classes differ
        return config.num_classes * STORED_SETS[config.dataset].largest_class
    counts = _counts(data_folder(), config.folder, config.data_seed, _all_classes(config))
    return sum(counts[: config.num_classes]) or math.nan


def _image_bytes(config: TrialConfig) -> int:
    from gnc_models.datasets.stored.pictures import image_bytes  # Pillow

    tested = _all_classes(config) * (config.test_samples_per_class or 0)
    samples = config.samples_per_class or max(_counts(data_folder(), config.folder or "", config.data_seed, 2))
    return image_bytes(_all_classes(config) * samples + tested, config.resolution or 0)


@lru_cache
def _counts(data_root: Path, folder: str, data_seed: int, classes: int) -> list[int]:
    """data_root: that of data_folder(), so that what is kept is of this one."""
    return _survey(folder, data_seed, [(classes, None, 1)]).counts


def load_dataset(config: TrialConfig, room: Room = HELD) -> "Dataset":
    """The trial's data; the same for every trial with the same data settings. room: inputs that take more are streamed.
    StudyError where the data are at fault, so that another attempt would end alike; MissingData where they are absent."""
    from gnc_models.datasets.registry import make_dataset  # torch takes seconds, and most commands need no data

    settings = {name: getattr(config, name) for name in settings_with("data", "size")}
    settings["samples_per_class"] = config.samples_per_class or None
    settings["dataset_options"] = config.options_of("dataset")
    try:
        dataset = make_dataset(settings.pop("dataset"), data_root=data_folder(), room=room, **settings)
        assert dataset.digest  # so that every sample was read once, and bad ones are told here
        return dataset
    except ValueError as error:
        raise StudyError(" ".join([str(error), *getattr(error, "__notes__", ())])) from error
