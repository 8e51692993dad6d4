"""Faces, which characters they share, and each character's picture in each face.
Built in are the 12 DejaVu faces in matplotlib's wheel, which is not imported; others are a package's or a folder's."""

import hashlib
import importlib.metadata
import importlib.util
import json
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont, features

from gnc_models.catalog.members import BUILT_IN_FONTS
from gnc_models.datasets.stored.font_files import file_digest, find_fonts
from gnc_models.datasets.stored.layouts import MissingData, missing_data

FAMILIES = ("sans", "mono", "serif")
_DEJAVU = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "mono": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
}
RASTER_SIDE = 64  # pixels; divisible by every resolution on offer
_OVERSAMPLING = 2  # drawn larger by this factor and averaged, so that hinting moves no stroke visibly
_CANVAS = RASTER_SIDE * _OVERSAMPLING
# The canvas is 1.31 em wide and reaches 0.29 em below the baseline, 1.02 em above: one scale for all characters, and
# room for all but the widest and the most heavily accented ones, which are left out rather than cut or shrunk.
_PIXELS_PER_EM = 98
_BASELINE = _CANVAS - 28
_CATEGORIES = "LNPS"  # letters, numbers, punctuation, symbols
_VERSION = 1  # rises when the code here or in `glyphs` gives other pictures or characters with the same constants


class Face(NamedTuple):
    """One font file, and which of `FAMILIES` it belongs to."""

    path: Path
    family: str


def find_faces(fonts: str, data_root: Path | None = None) -> tuple[Face, ...]:
    """The faces of "dejavu", or of packages and folders as `find_fonts` names them; MissingData where one lacks."""
    if fonts == BUILT_IN_FONTS:
        return _dejavu_faces()
    if missing := missing_data("glyphs", data_root, fonts=fonts):
        raise MissingData(missing)
    return tuple(Face(path, _family(path)) for path in find_fonts(fonts, data_root))


@cache
def _dejavu_faces() -> tuple[Face, ...]:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("matplotlib must be installed: its DejaVu font files are what glyphs are drawn from.")
    folder = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return tuple(Face(folder / f"{name}.ttf", family) for family, names in _DEJAVU.items() for name in names)


def _family(path: Path) -> str:
    """By the family's own name, such as "Noto Serif CJK JP"; sans where it does not say."""
    with _opened(path) as font:
        name = (font["name"].getBestFamilyName() or "").lower()
    return "mono" if "mono" in name else "serif" if "serif" in name and "sans" not in name else "sans"


def _opened(path: Path) -> TTFont:
    try:
        return TTFont(path, fontNumber=0, lazy=True)
    except (TTLibError, OSError) as error:
        raise ValueError(f"fonts must be font files, got {str(path)!r}: {error}. Remove or mend it.") from None


def fonts_fingerprint(faces: Sequence[Face]) -> str:
    """16 hex digits that change with anything the pictures depend on: font files, Pillow, FreeType, Unicode, sizes."""
    state = {
        "fonts": [file_digest(face.path) for face in faces],
        "pillow": importlib.metadata.version("pillow"), "freetype": features.version("freetype2"),
        "fonttools": importlib.metadata.version("fonttools"), "unicode": unicodedata.unidata_version,
        "drawing": [_VERSION, RASTER_SIDE, _OVERSAMPLING, _PIXELS_PER_EM, _BASELINE, _CATEGORIES],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


def shared_characters(faces: Sequence[Face]) -> list[int]:
    """Code points, ascending, of `_CATEGORIES` that every face's own map holds and that fit the canvas in each."""
    held = []
    for face in faces:
        with _opened(face.path) as opened:
            held.append(set(opened.getBestCmap() or ()))
    code_points = sorted(c for c in set.intersection(*held) if unicodedata.category(chr(c))[0] in _CATEGORIES)
    for font in map(_font, faces):
        code_points = [c for c in code_points if _fits(*map(float, font.getbbox(chr(c), anchor="ls")))]
    return code_points


def _font(face: Face) -> ImageFont.FreeTypeFont:
    # the basic layout: one character is one glyph, with no shaping library whose presence could change the picture
    return ImageFont.truetype(str(face.path), _PIXELS_PER_EM, layout_engine=ImageFont.Layout.BASIC)


def _fits(left: float, top: float, right: float, bottom: float) -> bool:
    has_room = right - left <= _CANVAS and _BASELINE + top >= 0 and _BASELINE + bottom <= _CANVAS
    return has_room and right > left and bottom > top


def draw_characters(code_points: Sequence[int], face: Face) -> np.ndarray:
    """Ink of characters that fit the canvas, uint8 `[characters, side, side]`: centred across, on a common baseline."""
    font = _font(face)
    pictures = np.empty((len(code_points), RASTER_SIDE, RASTER_SIDE), dtype=np.uint8)
    for picture, code_point in zip(pictures, code_points, strict=True):
        character, canvas = chr(code_point), Image.new("L", (_CANVAS, _CANVAS))
        left, _, right, _ = font.getbbox(character, anchor="ls")
        across = (_CANVAS - int(left) - int(right)) // 2
        ImageDraw.Draw(canvas).text((across, _BASELINE), character, fill=255, font=font, anchor="ls")
        picture[:] = np.asarray(canvas.reduce(_OVERSAMPLING))
    return pictures
