"""Data sets by name: training, test and unseen samples as tensors on the CPU. Does not know networks or Ray.
They are nested in the classes and in the samples of each class: a larger study contains the smaller one bit for bit."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gnc_models.catalog.members import DATASETS as MEMBERS
from gnc_models.catalog.members import is_reference, load
from gnc_models.catalog.parts import held_code, study_line, wanted
from gnc_models.catalog.settings import class_counts
from gnc_models.datasets.made.synthetic import number_samples
from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.datasets.samples.draws import Draw
from gnc_models.datasets.samples.own_data import Recipe, make_own_dataset
from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.datasets.samples.shaping import add_label_noise, keep_counts, keep_out_classes

PACKAGE = "gnc_models.datasets"
DATASETS: dict[str, Callable[..., Dataset]] = {name: load(PACKAGE, m.made_by) for name, m in MEMBERS.items()}


def make_dataset(
    name: str, *, num_classes: int, samples_per_class: int | None, test_samples_per_class: int | None, data_seed: int,
    data_root: Path | None = None, imbalance: str | None = None, imbalance_ratio: float | None = None,
    label_noise: float | None = None, ood_classes: int | None = None, dataset_source: str | None = None,
    dataset_options: Mapping[str, Any] | None = None, room: Room = HELD, **settings: Any,
) -> Dataset:  # fmt: skip
    """The data set of that name, the same tensors for the same arguments on every machine with the same packages.
    Args:
        name: a name in `DATASETS`, or a reference to one's own.
        num_classes: classes, the first ones of an order that `data_seed` draws; for text the most common tokens.
        samples_per_class: training samples of each class, of the largest one under an imbalance, on average for text;
            None: all that each class of a stored set has.
        test_samples_per_class: of each class, also of the unseen and the OoD set; not read for indices.
        imbalance, imbalance_ratio: the long tail of the training samples, see `class_counts`.
        label_noise: share of training labels that are wrong, see `add_label_noise`.
        ood_classes: classes that follow in the order, whose test samples become `ood_inputs`.
        dataset_source, dataset_options: of one's own: the digest of its code, and what its factory is given.
        room: inputs of one's own and image folders that take more are streamed, and are the same.
        settings: those of the set's own that its constructor reads; None counts as not given.
    Raises:
        ValueError: more classes or samples than there are, or data that are no data set.
        MissingData: files of a stored set are missing; the text names the command that gets them."""
    kind, most = imbalance or "none", 1 if samples_per_class is None else samples_per_class
    counts = class_counts(num_classes, most, imbalance=kind, imbalance_ratio=imbalance_ratio)
    make = DATASETS.get(name)
    if make is None:
        source = dataset_source or ""
        again = Recipe(name, source, dataset_options, {"data_root": data_root}, held_code().get(source))
        make = partial(make_own_dataset, again(), again=again)
    given = {setting: value for setting, value in settings.items() if value is not None}
    given |= wanted(make, {"data_root": data_root, "room": room})
    try:
        every = num_classes + (ood_classes or 0)
        data = make(Draw(every, samples_per_class, test_samples_per_class, data_seed), **given)
    except ValueError as error:
        if is_reference(name):
            error.add_note(study_line("dataset", name))
        if ood_classes:
            error.add_note(f"num_classes counts the {ood_classes} ood_classes too.")
        raise
    if ood_classes:
        data = keep_out_classes(data, num_classes)
    if min(counts) < most:
        data = keep_counts(data, counts)
    if label_noise:
        data = add_label_noise(data, label_noise, data_seed)
    return number_samples(data) if MEMBERS[name].gives == "index" else data
