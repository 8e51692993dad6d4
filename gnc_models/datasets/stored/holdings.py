"""What an image folder holds for the trials that read it: counted by names, and the first and last bytes of some pictures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gnc_models.datasets.samples.draws import Draw, draw_classes, draw_samples, few_samples
from gnc_models.datasets.stored.folders import IMAGE_SUFFIXES, is_image, list_classes, split_images, visible_files
from gnc_models.datasets.stored.pictures import check_header
from gnc_models.progress import amount

_LOOKED_INTO = 1000  # pictures of which the ends are read, evenly over those that are drawn, and as many of the others


class Wanted(NamedTuple):
    """What a trial takes of a folder; num_classes: those kept out of training too; samples_per_class None: all."""

    num_classes: int
    samples_per_class: int | None
    test_samples_per_class: int


class Holdings(NamedTuple):
    """What a folder holds and what trials lack of it, in sentences, and the training images of each class in order."""

    held: list[str]
    missing: list[str]
    counts: list[int]


def survey_folder(data_root: Path, folder: str, data_seed: int, wanted: Sequence[Wanted]) -> Holdings:
    """All that can be said of the trials' images before one is read."""
    base = data_root / folder
    try:
        names = list_classes(data_root, folder)
        most = min(max(want.num_classes for want in wanted), len(names))
        labels = draw_classes(len(names), most, data_seed, origin=folder)
        splits = split_images(base, names, [names[label] for label in labels], data_seed)
    except (ValueError, OSError) as error:
        return Holdings([], [str(error)], [])
    if not names:  # of which missing_data tells
        return Holdings([], [], [])
    parts = [{names[k]: split[is_test] for k, split in zip(labels, splits, strict=True)} for is_test in (False, True)]
    counts = [{name: len(images) for name, images in part.items()} for part in parts]
    missing: list[str] = []
    for num_classes, *samples in wanted:
        if num_classes > len(names):
            missing.append(f"num_classes and ood_classes must be at most {len(names)} together, got {num_classes}.")
        for is_test in (False, True):
            missing.append(few_samples(dict([*counts[is_test].items()][:num_classes]), samples[is_test], is_test))
    missing = [f"{sentence} That is what {base} holds." for sentence in missing if sentence]
    drawn: list[Path] = []
    for is_test, part in zip((False, True), parts, strict=True):
        most = max(want[1 + is_test] or max(counts[is_test].values()) for want in wanted)
        for label, images in zip(labels, part.values(), strict=True):
            if count := min(most, len(images)):
                drawing = Draw(1, count, count, data_seed)
                (order,) = draw_samples(drawing, is_test, [np.arange(len(images))], [label], names)
                drawn += [images[index] for index in order]
    ends = (dict.fromkeys((min(count.values()), max(count.values()))) for count in counts)
    spans = [" to ".join(map(str, span)) for span in ends]
    told = f"{base} holds {amount(len(names), 'class', 'classes')}; images of each of the first {len(labels)}"
    held = [f"{told} of data_seed {data_seed}: {spans[0]} for training and {spans[1]} for test."]
    (missing if missing else held).extend(_other_files(base))
    taken = set(drawn)
    left = [image for part in parts for images in part.values() for image in images if image not in taken]
    held += (f"{fault} No trial here draws it." for fault in _unreadable(left))
    return Holdings(held, [*missing, *_unreadable(drawn)], list(counts[0].values()))


def _unreadable(images: list[Path]) -> list[str]:
    looked, faults = images[:: -(-len(images) // _LOOKED_INTO) or 1], []
    for path in looked:
        try:
            check_header(path)
        except (ValueError, OSError) as error:
            faults.append(str(error))
    more = f" {len(faults)} of {len(looked)} images that were looked into have a fault." if len(faults) > 1 else ""
    return [f"{faults[0]}{more}"] if faults else []


def _other_files(base: Path) -> list[str]:
    endings = Counter(Path(name).suffix.lower() for _, name in visible_files(base) if not is_image(name))
    shown = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in endings.most_common(5))
    told = f"{base} has other files too, which are not read: {shown}. Read are {' '.join(sorted(IMAGE_SUFFIXES))}."
    return [f"{told} Convert those that are images."] if shown else []
