"""Image folders: which picture is of which class and split, from names and lists alone. Knows neither torch nor pixels."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first one that is there
_ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet's: a file name and its class a line, tabs between
_TEST_IMAGES = 5  # one image in so many is for testing where there is no test folder
_FOREIGN = frozenset({"__MACOSX", "@eaDir"})  # copies that macOS's archives and Synology's disks keep beside pictures
_SPLIT = re.compile(r"(train(ing)?|test(ing)?|val(id(ation)?)?|dev|unlabell?ed)([\W_]*set)?[\W_]*\d*", re.IGNORECASE)
Split = tuple[list[Path], list[Path]]  # training and test images of one class


def visible_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Files anywhere below but hidden ones: copies that Jupyter and macOS keep would get into the test set."""
    for where, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from ((where, name) for name in files if not _is_hidden(name))


def _raise(error: OSError) -> None:
    raise error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _FOREIGN


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _images(folder: Path) -> list[Path]:
    return sorted(Path(where, name) for where, name in visible_files(folder) if is_image(name))


def _folders(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir() if path.is_dir() and not _is_hidden(path.name))


def _training_folder(base: Path) -> Path:
    """`base/train` where it holds class folders; else `base`, and a `train` in it is a class like any other."""
    train = base / "train"
    if not train.is_dir() or not _folders(train):
        return base
    others = (name for name in _folders(base) if not _SPLIT.fullmatch(name))
    beside = (name for name in others if any(is_image(file) for _, file in visible_files(base / name)))
    if not any((base / name).is_dir() for name in _TEST_FOLDERS) and (name := next(beside, None)):
        got = f"got folders in it and images beside it in {name!r}"
        cure = f"Move the classes into {train}, or the images of class train out of its folders."
        raise ValueError(f"{train} must be either the training split or a class, {got}. {cure}")
    return train


def list_classes(data_root: Path, folder: str) -> tuple[str, ...]:
    """The names of an image folder's classes, sorted: folders in `train`, else in itself; ValueError if unclear."""
    if ".." in Path(folder).parts:
        cure = "Write a full path, or one below data_root."
        raise ValueError(f"folder must be a path without .., got {folder!r}. {cure}")
    base = data_root / folder
    if not base.is_dir():
        return ()
    train = _training_folder(base)
    names = tuple(_folders(train))
    if train == base and names and all(map(_SPLIT.fullmatch, names)):
        got = f"got {', '.join(names)}, which are names of splits"
        cure = f"Put the classes into {base}/train and {base}/test, or give these other names if they are classes."
        raise ValueError(f"{base} must hold a folder of images for each class, {got}. {cure}")
    return names


def split_images(base: Path, names: Sequence[str], chosen: Sequence[str], data_seed: int) -> list[Split]:
    """Training and test images of each chosen class, in an order that only their names and the seed decide."""
    train = _training_folder(base)
    test = None if train == base else _list_test_images(base, names, chosen)
    if test is None:
        return [_split_by_hash(train, name, data_seed) for name in chosen]
    return [(_images(train / name), test.get(name, [])) for name in chosen]


def _list_test_images(base: Path, names: Sequence[str], chosen: Sequence[str]) -> dict[str, list[Path]] | None:
    for folder in (base / name for name in _TEST_FOLDERS):
        if any((folder / name).is_dir() for name in names):
            return {name: _images(folder / name) if (folder / name).is_dir() else [] for name in chosen}
        if (folder / _ANNOTATIONS).is_file():
            return _read_list(folder, set(chosen))
    return None


def _read_list(folder: Path, chosen: set[str]) -> dict[str, list[Path]]:
    """The images of the chosen classes that the list in `folder` names, those of a class in the order of its lines."""
    path, seen = folder / _ANNOTATIONS, dict[str, int]()
    listed: dict[str, list[Path]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, got {error}. Save it as UTF-8.") from error
    for line, number in sorted((line, number) for number, line in enumerate(lines, start=1) if line.strip()):
        mark = next((mark for mark in "\t,;" if mark in line), None)  # else spaces
        file, name, *_ = [*(part.strip(" \"'") for part in line.split(mark)), ""]
        where = f"{path}, line {number},"
        if not file or not name:
            raise ValueError(f"{where} must hold an image's name and its class, got {line!r}. Put a tab between them.")
        if file in seen:
            raise ValueError(f"{where} must name an image once, got {file!r} of line {seen[file]} again. Remove one.")
        seen[file] = number
        if name in chosen:  # lists of larger sets name classes that were left out
            if not (image := folder / "images" / file).is_file():
                rule = f"{where} must name a file in {image.parent}"
                raise ValueError(f"{rule}, got {file!r}. Remove the line or get it.")
            listed.setdefault(name, []).append(image)
    return listed


def _split_by_hash(base: Path, class_name: str, data_seed: int) -> Split:
    def key(path: Path) -> bytes:
        return hashlib.sha256(f"{data_seed} {path.relative_to(base).as_posix()}".encode()).digest()

    hashed = sorted(_images(base / class_name), key=key)
    test = len(hashed) // _TEST_IMAGES
    return hashed[test:], hashed[:test]
