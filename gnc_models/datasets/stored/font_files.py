"""Where the fonts of a study lie, which are missing, and their digest. Knows files, not what a font holds."""

import hashlib
import re
from functools import cache
from pathlib import Path

from gnc_models.catalog.members import BUILT_IN_FONTS

_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
_PACKAGE_FILES = Path("/var/lib/dpkg/info")  # dpkg's list of each installed package's files
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def find_fonts(fonts: str, data_root: Path | None) -> list[Path]:
    """The files of fonts by file name; `fonts` are names of Debian packages or folders, separated by commas."""
    found = {path for name in fonts.split(", ") for path in _of_name(name, data_root)}
    return sorted(found, key=lambda path: (path.name, str(path)))


def missing_fonts(fonts: str, data_root: Path | None) -> str | None:
    """Which package or folder is not here and how to get it; None where nothing is missing."""
    if fonts == BUILT_IN_FONTS:
        return None
    for name in fonts.split(", "):
        if _of_name(name, data_root):
            continue
        folder = _folder(name, data_root)
        if not _PACKAGE_NAME.fullmatch(name):
            return f"glyphs needs fonts in {folder}, none found. Put {' '.join(sorted(_SUFFIXES))} files there."
        command = f"On Debian: apt-get install {name} (or put its font files into {folder})"
        return f"glyphs needs fonts {name}, neither an installed Debian package nor a folder of fonts. {command}"
    return None


def fonts_digest(fonts: str, data_root: Path | None) -> str:
    """SHA-256 over the files' names and contents: the same wherever they lie. ValueError as `missing_fonts` tells."""
    if missing := missing_fonts(fonts, data_root):
        raise ValueError(missing)
    digest = hashlib.sha256()
    for path in find_fonts(fonts, data_root):
        digest.update(f"{path.name} {file_digest(path)};".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    held = path.stat()
    return _file_digest(path, held.st_size, held.st_mtime_ns)


@cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_name(name: str, data_root: Path | None) -> list[Path]:
    return _of_package(name) or [p for p in _folder(name, data_root).rglob("*") if _is_font(p)]


def _of_package(name: str) -> list[Path]:
    listed = _PACKAGE_FILES / f"{name}.list"
    if not _PACKAGE_NAME.fullmatch(name) or not listed.is_file():
        return []
    return [path for line in listed.read_text().splitlines() if _is_font(path := Path(line))]


def _folder(name: str, data_root: Path | None) -> Path:
    return (data_root or Path()) / name


def _is_font(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()
