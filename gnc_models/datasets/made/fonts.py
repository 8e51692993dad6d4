"""The 12 DejaVu faces in matplotlib's wheel: which characters they share, and each character's picture in each face.

matplotlib itself is never imported: its font files are found through its import spec.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, features

FAMILIES = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "mono": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
}
FACES = tuple(face for family in FAMILIES.values() for face in family)

RASTER_SIDE = 64  # pixels; divisible by every resolution on offer
_OVERSAMPLING = 2  # drawn larger by this factor and averaged, so that hinting moves no stroke visibly
_CANVAS = RASTER_SIDE * _OVERSAMPLING
# The canvas is 1.31 em wide and reaches 0.29 em below the baseline, 1.02 em above: one scale for all characters, and
# room for all but the widest and the most heavily accented ones, which are left out rather than cut or shrunk.
_PIXELS_PER_EM = 98
_BASELINE = _CANVAS - 28
_CATEGORIES = "LNPS"  # letters, numbers, punctuation, symbols
_VERSION = 1  # rises when the code here or in `lookalikes` gives other pictures or characters with the same constants


def _font_file(face: str) -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("matplotlib must be installed: its DejaVu font files are what glyphs are drawn from.")
    return Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / f"{face}.ttf"


@cache
def fonts_fingerprint() -> str:
    """16 hex digits that change with anything the pictures depend on: font files, Pillow, FreeType, Unicode, sizes."""
    state = {
        "fonts": [hashlib.sha256(_font_file(face).read_bytes()).hexdigest() for face in FACES],
        "pillow": importlib.metadata.version("pillow"),
        "freetype": features.version("freetype2"),
        "fonttools": importlib.metadata.version("fonttools"),
        "unicode": unicodedata.unidata_version,
        "drawing": [_VERSION, RASTER_SIDE, _OVERSAMPLING, _PIXELS_PER_EM, _BASELINE, _CATEGORIES],
    }
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


def shared_characters() -> list[int]:
    """Code points, ascending, of the letters, numbers, punctuation and symbols that every face's own map holds."""
    shared = set.intersection(*(_held_characters(face) for face in FACES))
    return sorted(c for c in shared if unicodedata.category(chr(c))[0] in _CATEGORIES)


def _held_characters(face: str) -> set[int]:
    with TTFont(_font_file(face), lazy=True) as font:
        return set(font.getBestCmap())


def draw_characters(code_points: list[int]) -> tuple[list[int], np.ndarray]:
    """Pictures of the characters that have ink and fit the canvas in every face.

    Args:
        code_points: characters that every face holds.
    Returns:
        The code points that fit, in the order given, and their ink as uint8 `[characters, faces, side, side]`, 0 for
        none and 255 for full cover. A picture is centred across and stands on the common baseline.
    """
    # the basic layout: one character is one glyph, with no shaping library whose presence could change the picture
    fonts = [
        ImageFont.truetype(str(_font_file(face)), _PIXELS_PER_EM, layout_engine=ImageFont.Layout.BASIC)
        for face in FACES
    ]
    fitting, pictures = [], []
    for code_point in code_points:
        picture = _draw(chr(code_point), fonts)
        if picture is not None:
            fitting.append(code_point)
            pictures.append(picture)
    return fitting, np.stack(pictures)


def _draw(character: str, fonts: list[ImageFont.FreeTypeFont]) -> np.ndarray | None:
    """`[faces, side, side]`, or None where some face's picture has no ink or does not fit."""
    canvas = Image.new("L", (_CANVAS * len(fonts), _CANVAS))  # all faces side by side: one canvas costs less than 12
    draw = ImageDraw.Draw(canvas)
    for position, font in enumerate(fonts):
        left, top, right, bottom = font.getbbox(character, anchor="ls")
        fits = right - left <= _CANVAS and _BASELINE + top >= 0 and _BASELINE + bottom <= _CANVAS
        if not fits or right <= left or bottom <= top:
            return None
        across = _CANVAS * position + (_CANVAS - int(left) - int(right)) // 2
        draw.text((across, _BASELINE), character, fill=255, font=font, anchor="ls")
    together = np.asarray(canvas.reduce(_OVERSAMPLING))
    return np.ascontiguousarray(together.reshape(RASTER_SIDE, len(fonts), RASTER_SIDE).swapaxes(0, 1))
