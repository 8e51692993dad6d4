"""Characters of many scripts in several typefaces, drawn under random small affine maps: many real classes.
Each class has streams of maps of its own, keyed by its code point: its samples do not depend on the other classes. Characters
that cannot be told apart are left out, as one look-alike pair would decide the smallest margin of a whole study: in every
face and for shifts s of up to one pixel pictures have `|a - s(b)|^2 >= 0.06 max(|a|^2, |b|^2)`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from gnc_models.catalog.members import BUILT_IN_FONTS
from gnc_models.datasets.made import fonts as drawing
from gnc_models.datasets.samples.dataset import Dataset, label_samples
from gnc_models.datasets.samples.draws import Draw
from gnc_models.datasets.stored.font_files import fonts_digest
from gnc_models.user_cache import read, read_or_make

# Points along a pixel's side at which a picture is read, by resolution: their mean is the pixel.
_POINTS = {16: 3, 32: 2}
RESOLUTIONS = tuple(_POINTS)

# Streams of random numbers; a stream's number never changes, or stored digests would.
_ORDER, _TRAIN, _TEST, _UNSEEN = 0, 1, 2, 3

# A map's six numbers are uniform between minus and plus these: rotation (radians), logarithms of the scales across and
# along, shear, and shifts across and down as a share of the picture's side.
_RANGES = np.array([0.15, 0.1, 0.1, 0.1, 0.05, 0.05])

# Ink is divided by this: a constant near its root mean square over the pictures, so that inputs have about unit power.
# The background stays 0, the value that shifts and convolutions pad with.
_INK_UNIT = 0.27

LEAST_DIFFERENCE = 0.06  # share of the larger energy
_SHIFTS = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1))
_ROWS = 256  # pictures compared at once, so that intermediate results stay in the processor's cache
_BATCH = 128  # samples drawn at once, few enough for the processor's cache; changes no number


def make_glyphs(
    wanted: Draw, *, resolution: int, unseen_family: str | None = None, fonts: str = BUILT_IN_FONTS,
    fonts_source: str | None = None, data_root: Path | None = None,
) -> Dataset:  # fmt: skip
    """Images `[samples, 1, resolution, resolution]` of characters, background 0; sample i is in face i modulo their number.
    With the built-in fonts ink goes up to 1 / 0.27 in float32. With others, which have thousands of characters, images
    are uint8 up to 255, for a network to see after `input_scale`: the same numbers, rounded, in a quarter of the room.
    Args:
        resolution: side in pixels, 16 or 32. It also decides which characters can be told apart.
        unseen_family: its faces give the unseen samples and nothing else; "none" or None: all faces are trained on.
        fonts: "dejavu", or Debian packages and folders as `find_fonts` names them.
        fonts_source: the digest that the fonts must have here; None: any."""
    num_classes, samples_per_class, test_samples_per_class, data_seed = wanted
    faces = drawing.find_faces(fonts, data_root)
    if fonts_source is not None and (here := fonts_digest(fonts, data_root)) != fonts_source:
        rule = f"fonts_source must be that of the files of {fonts} on this machine, {here!r}"
        raise ValueError(f"{rule}, got {fonts_source!r}. Install the same version on every machine.")
    seen, unseen = _split_faces(faces, unseen_family)
    available, code_points, pictures = _read_classes(faces, resolution, num_classes, data_seed)
    if num_classes > available:
        what = f"the characters of {fonts} that differ enough at resolution {resolution}"
        raise ValueError(f"num_classes must be at most {available}, {what}, got {num_classes!r}.")

    def draw(samples: int, places: list[int], stream: int) -> Tensor:
        dtype = torch.float32 if fonts == BUILT_IN_FONTS else torch.uint8
        drawn = torch.empty(num_classes, samples, 1, resolution, resolution, dtype=dtype)
        for own, point, of_class in zip(drawn, code_points, torch.from_numpy(pictures), strict=True):
            maps = torch.from_numpy(draw_maps(data_seed, stream, point, samples))
            ink = render_maps(of_class[[places[i % len(places)] for i in range(samples)]], maps, resolution)
            own[:] = ink / (255 * _INK_UNIT) if fonts == BUILT_IN_FONTS else ink.round()
        return drawn

    parts = draw(samples_per_class, seen, _TRAIN), draw(test_samples_per_class, seen, _TEST)
    names = tuple(f"U+{point:04X} {chr(point)}" for point in code_points)
    made = label_samples(*parts, names, draw(test_samples_per_class, unseen, _UNSEEN) if unseen else None)
    return made if fonts == BUILT_IN_FONTS else replace(made, input_scale=1 / (255 * _INK_UNIT))


def known_classes(fonts: str, resolution: int, data_root: Path | None) -> int | None:
    """How many classes these fonts give; None where they have not been drawn and compared on this machine yet."""
    name = _cache_name(drawing.find_faces(fonts, data_root), resolution)
    return read(name, pick=lambda held: len(held["code_points"]))


def _split_faces(faces: Sequence[drawing.Face], unseen_family: str | None) -> tuple[list[int], list[int]]:
    """Places of the faces that are trained on, and of those kept out."""
    if unseen_family in (None, "none"):
        return list(range(len(faces))), []
    parts = [[i for i, face in enumerate(faces) if (face.family == unseen_family) == out] for out in (False, True)]
    if not all(parts):
        rule = f"unseen_family must leave faces on both sides, of families {list({f.family: None for f in faces})}"
        raise ValueError(f"{rule}, got {unseen_family!r}. Write 'none' to train on all.")
    return parts[0], parts[1]


def draw_maps(data_seed: int, stream: int, code_point: int, samples: int) -> np.ndarray:
    """Inverse maps, float32 `[samples, 2, 3]`: from a pixel's place in the sample to its place in the picture.
    Places are (across, down) in units of half the side, from the centre. The first rows do not depend on `samples`."""
    generator = np.random.default_rng([data_seed, stream, code_point])
    angle, across, along, shear, *shift = (generator.uniform(-1, 1, (samples, len(_RANGES))) * _RANGES).T
    cos, sin = np.cos(angle), np.sin(angle)
    # rotation @ [[1, shear], [0, 1]] @ diagonal scales, then the shift; a side is 2 units long
    rows = [
        [cos * np.exp(across), (cos * shear - sin) * np.exp(along), 2 * shift[0]],
        [sin * np.exp(across), (sin * shear + cos) * np.exp(along), 2 * shift[1]],
    ]
    return np.array(rows, dtype=np.float32).transpose(2, 0, 1)


def render_maps(
    pictures: UInt8[Tensor, "samples side side"], maps: Float[Tensor, "samples 2 3"], resolution: int
) -> Float[Tensor, "samples 1 resolution resolution"]:
    """Each picture under its map (as of `draw_maps`), averaged over the area of each pixel: ink from 0 to 255."""
    points = _POINTS[resolution]
    place = (torch.arange(resolution * points, dtype=torch.float32) * 2 + 1) / (resolution * points) - 1
    across, down = place[None, None, :, None], place[None, :, None, None]
    drawn = torch.empty(len(pictures), 1, resolution, resolution)
    for start in range(0, len(pictures), _BATCH):
        part = slice(start, start + _BATCH)
        columns = maps[part, None, None]
        # plain sums, not affine_grid: its matrix product may round differently in batches of another size
        grid = columns[..., 0] * across + (columns[..., 1] * down + columns[..., 2])
        fine = functional.grid_sample(pictures[part, None].float(), grid, align_corners=False)
        drawn[part] = functional.avg_pool2d(fine, points)
    return drawn


def _read_classes(
    faces: Sequence[drawing.Face], resolution: int, num_classes: int, data_seed: int
) -> tuple[int, list[int], np.ndarray]:
    """How many characters there are, and the code points and pictures of the first ones in the seed's order."""

    def pick(arrays: Mapping[str, np.ndarray]) -> tuple[int, list[int], np.ndarray]:
        admissible = arrays["code_points"]
        if admissible.ndim != 1 or admissible.dtype != np.int64:
            raise ValueError("code_points is not a list of code points")
        order = np.random.default_rng([data_seed, _ORDER]).permutation(admissible)[:num_classes].tolist()
        pictures = np.stack([arrays[_member(point)] for point in order])
        if pictures.shape[1:] != (len(faces), drawing.RASTER_SIDE, drawing.RASTER_SIDE) or pictures.dtype != np.uint8:
            raise ValueError(f"pictures have shape {pictures.shape} and type {pictures.dtype}")
        return len(admissible), order, pictures

    return read_or_make(_cache_name(faces, resolution), make=lambda: _make_classes(faces, resolution), pick=pick)


def _cache_name(faces: Sequence[drawing.Face], resolution: int) -> str:
    return f"glyphs-{resolution}-{LEAST_DIFFERENCE}-{drawing.fonts_fingerprint(faces)}"


def _make_classes(faces: Sequence[drawing.Face], resolution: int) -> dict[str, np.ndarray]:
    """Face after face, so that of characters that are not kept one face's pictures are held at once."""
    shared = drawing.shared_characters(faces)
    pairs = np.concatenate([similar_pairs(drawing.draw_characters(shared, face), resolution) for face in faces])
    admissible = np.array(shared, dtype=np.int64)[distinct_characters(len(shared), pairs)]
    pictures = np.empty((len(admissible), len(faces), drawing.RASTER_SIDE, drawing.RASTER_SIDE), dtype=np.uint8)
    for place, face in enumerate(faces):
        pictures[:, place] = drawing.draw_characters(admissible.tolist(), face)
    return {"code_points": admissible, **dict(zip(map(_member, admissible.tolist()), pictures, strict=True))}


def _member(code_point: int) -> str:
    return f"U+{code_point:04X}"


def distinct_characters(num_characters: int, pairs: np.ndarray) -> np.ndarray:
    """Positions of the characters that are in no pair (the lesser position first) with one kept before them."""
    firsts, seconds = pairs[np.argsort(pairs[:, 1], kind="stable")].T
    starts = np.searchsorted(seconds, np.arange(num_characters + 1))
    kept = np.ones(num_characters, dtype=bool)
    for position in np.unique(seconds):
        kept[position] = not kept[firsts[starts[position] : starts[position + 1]]].any()
    return np.flatnonzero(kept)


def similar_pairs(pictures: np.ndarray, resolution: int) -> np.ndarray:
    """Positions `[pairs, 2]`, the lesser first, of characters whose ink `[characters, side, side]` is too alike."""
    padded = _pool_with_margin(pictures, resolution)
    similar = [pairs[_are_similar(padded[pairs[:, 0]], padded[pairs[:, 1]])] for pairs in _close_pairs(padded)]
    return torch.cat([torch.empty(0, 2, dtype=torch.int64), *similar]).sort(dim=1).values.numpy()


def _pool_with_margin(pictures: np.ndarray, resolution: int) -> Tensor:
    """Sums of ink at the resolution with one blank pixel all round: whole numbers, so that their products are exact."""
    count, side, _ = pictures.shape
    padded = torch.zeros(count, resolution + 2, resolution + 2)
    for part, own in zip(padded.split(_ROWS), torch.from_numpy(pictures)[:, None].split(_ROWS), strict=True):
        part[:, 1:-1, 1:-1] = functional.avg_pool2d(own.float(), side // resolution, divisor_override=1)[:, 0]
    return padded


def _are_similar(first: Tensor, second: Tensor) -> Tensor:
    """The verdict on each pair of pictures `[pairs, side, side]`, in float64, where nothing is rounded."""
    first, second = first.double(), second.double()
    energy = torch.maximum(first.square().sum((1, 2)), second.square().sum((1, 2)))
    nearest = torch.full_like(energy, torch.inf)
    for shift in _SHIFTS:
        moved = second.roll(shift, dims=(-2, -1))  # only blank pixels go round the edge
        nearest = torch.minimum(nearest, (first - moved).square().sum((1, 2)))
    return nearest < LEAST_DIFFERENCE * energy


def _close_pairs(padded: Tensor) -> Iterator[Tensor]:
    """All pairs that may be similar, `[pairs, 2]` in parts: two necessary conditions, with room for rounding."""
    norms, order = padded.square().sum((1, 2)).sqrt().sort()
    sizes = torch.cat([_fourier_sizes(padded[part]) for part in order.split(_ROWS)])
    squares = sizes.square().sum(1)
    ends = torch.searchsorted(norms, norms / (1 - LEAST_DIFFERENCE**0.5) * 1.001)
    for start in range(0, len(norms), _ROWS):
        rows, columns = slice(start, start + _ROWS), slice(start, int(ends[start : start + _ROWS].max()))
        distances = torch.addmm(squares[None, columns], sizes[rows], sizes[columns].T, alpha=-2)
        # the larger norm is that of the column, which comes later in the order
        limit = (LEAST_DIFFERENCE * 1.001 * norms[columns].square())[None, :] - squares[rows, None]
        for part in (distances < limit).triu(diagonal=1).nonzero().split(_ROWS):
            yield torch.stack([order[rows][part[:, 0]], order[columns][part[:, 1]]], dim=1)


def _fourier_sizes(padded: Tensor) -> Tensor:
    """Sizes of the lower Fourier coefficients `[characters, coefficients]`, scaled so that all would keep distances."""
    highest = 3 * (padded.shape[1] - 2) // 8  # three quarters of all frequencies: the rest tells few pairs apart
    half = torch.fft.rfft2(padded, norm="ortho").abs()[:, :, : highest + 1]
    half[:, :, 1:] *= 2**0.5  # each stands for its mirror image too
    return torch.cat([half[:, : highest + 1], half[:, -highest:]], dim=1).flatten(1)
