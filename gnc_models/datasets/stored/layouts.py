"""Data sets read from a folder of stored sets: where their files are, in torchvision's layouts, and which are missing.
Knows no torch and reads no file's content, so that checking a study takes no time. Nothing here downloads."""

import os
import shlex
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gnc_models.catalog.members import BUILT_IN_FONTS
from gnc_models.datasets.stored.folders import list_classes
from gnc_models.datasets.stored.font_files import missing_fonts

VARIABLE = "GNC_DATA"


def data_folder() -> Path:
    """Where stored sets, images and fonts are looked for: `$GNC_DATA`, else data/ here; no setting of a trial."""
    return Path(os.environ.get(VARIABLE) or "data").expanduser()


class MissingData(FileNotFoundError):
    """Files of a set were not found; the text names what is missing and the command that gets it."""


@dataclass(frozen=True)
class StoredSet:
    """One set: its files and what is known of them before they are read, as sets.toml says."""

    largest_class: int
    folders: tuple[str, ...]
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    names: tuple[str, ...] | str
    torchvision: tuple[str, dict[str, str]]
    meta_files: tuple[str, ...] = ()
    debian_package: str | None = None


DEBIAN_ROOT = Path("/usr/share/datasets")
_TABLES = tomllib.loads(Path(__file__).with_name("sets.toml").read_text(encoding="utf-8"))
STORED_SETS = {
    name: StoredSet(**{key: cast(Any, tuple(v)) if isinstance(v, list) else v for key, v in table.items()})
    for name, table in _TABLES.items()
}


def find_files(name: str, data_root: Path | None, files: tuple[str, ...]) -> list[Path]:
    """The paths of these files of a set, plain or gzipped; MissingData where no folder has all files of the set."""
    missing = missing_data(name, data_root)
    if missing is not None or data_root is None:
        raise MissingData(missing)
    folder = next(folder for folder in STORED_SETS[name].folders if not _absent(name, data_root / folder))
    return [path for file in files if (path := _present(folder=data_root / folder, file=file))]


def _present(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _absent(name: str, folder: Path) -> list[str]:
    stored = STORED_SETS[name]
    files = (*stored.train_files, *stored.test_files, *stored.meta_files)
    return [file for file in files if _present(folder, file) is None]


def missing_data(name: str, data_root: Path | None, **settings: Any) -> str | None:
    """What a data set lacks here and the command that gets it, or None; it reads settings `folder` and `fonts`."""
    if name == "glyphs":
        return missing_fonts(settings.get("fonts") or BUILT_IN_FONTS, data_root)
    if name == "text":
        folder = standard_library()
        return None if (folder / "argparse.py").is_file() else f"text needs the standard library's source in {folder}."
    if name == "image_folder":
        return _missing_folder(data_root, settings.get("folder"))
    if name not in STORED_SETS:
        return None
    if data_root is None:
        return f"{name} needs data_root, the folder of stored data sets, got None. {_command(name, Path('DATA_ROOT'))}"
    nearest = min(STORED_SETS[name].folders, key=lambda folder: len(_absent(name, data_root / folder)))
    folder, absent = data_root / nearest, _absent(name, data_root / nearest)
    if not absent:
        return None
    first = ", ".join(absent[:5]) + (f" ... ({len(absent)} in all)" if len(absent) > 5 else "")
    return f"{name} needs {first} in {folder}, not found. {_command(name, data_root)}"


def _command(name: str, data_root: Path) -> str:
    root = shlex.quote(str(data_root))
    fetch = f"Get it with: python -m gnc_models.datasets.stored.fetching {name} {root}"
    if package := STORED_SETS[name].debian_package:
        folder = STORED_SETS[name].folders[-1]
        link = "" if data_root == DEBIAN_ROOT else f" && ln -s {DEBIAN_ROOT / folder} {root}/{folder}"
        fetch += f" (or on Debian: apt-get install {package}{link})"
    return fetch


def _missing_folder(data_root: Path | None, folder: str | None) -> str | None:
    if data_root is None or not folder:
        return f"image_folder needs data_root and folder, got {data_root!s} and {folder!r}."
    try:
        found = list_classes(data_root, folder)
    except (ValueError, OSError) as error:
        return str(error)
    base = data_root / folder
    rule = f"image_folder needs one folder of images per class in {base} or in its train folder, none found"
    return None if found else f"{rule}. Put them there: {base}/train/CLASS/*.png and {base}/test/CLASS/*.png"


def standard_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])
