"""Font files of some 50 characters each, quick to draw and compare."""

from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from gnc_models.datasets.made.fonts import find_faces

CHARACTERS = "ABCDEFGHKMNRSTUVWXYZabdeghkmnrtuy023456789ЖДИЛЮЯΣΩΨ"


def write_small_fonts(folder: Path) -> Path:
    """Sans.ttf and deep/Serif.ttf in a new folder, which is given back."""
    (folder / "deep").mkdir(parents=True)
    faces = {face.path.stem: face.path for face in find_faces("dejavu")}
    for stem, place in (("DejaVuSans", "Sans.ttf"), ("DejaVuSerif", "deep/Serif.ttf")):
        with TTFont(faces[stem]) as font:
            subsetter = Subsetter(Options())
            subsetter.populate(text=CHARACTERS)
            subsetter.subset(font)
            font.save(folder / place)
    return folder
