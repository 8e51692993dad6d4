"""Features of a production network with 6,625 classes in 120 dimensions: the Chinese text recogniser of `benchmarks.heads`.

    apt install fonts-noto-cjk && pip install onnx onnxruntime
    python -m benchmarks.shipped.recogniser                # about 5 CPU minutes; what is done already is kept

Every character of the recogniser that Debian's fonts-noto-cjk can draw is drawn 8 times (four faces, two places) and goes
through the network up to what enters its last layer. Of the time steps the one with the least blank is taken. What comes
out is build/heads/recogniser.npz with `features`, `labels`, `weights`, `bias` and `read` (what the network reads), for
`gnc measure build/heads/recogniser.npz` and for `python -m benchmarks.shipped.page`.
"""

import argparse
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.heads import SOURCES, fetch, read_ocr

FONTS = Path("/usr/share/fonts/opentype/noto")
FACES = ("NotoSansCJK-Regular", "NotoSansCJK-Bold", "NotoSerifCJK-Regular", "NotoSerifCJK-Bold")
SIMPLIFIED = 2  # which font of a collection has the forms of simplified Chinese
PLACES = ((0, 0), (2, 1))  # pixels to the right and down
HEIGHT, WIDTH, SIZE = 48, 48, 40  # pixels
ENTERS = "transpose_51.tmp_0"  # what the last layer multiplies
MODEL = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
CHUNK = 100  # classes
Read = Callable[[np.ndarray], np.ndarray]


def draw(character: str, font: ImageFont.FreeTypeFont, place: tuple[int, int]) -> np.ndarray:
    """A picture [HEIGHT, WIDTH] of dark on light, from -1 to 1."""
    picture = Image.new("L", (WIDTH, HEIGHT), 255)
    at = (WIDTH / 2 + place[0] - 1.5, HEIGHT / 2 + place[1] - 1)
    ImageDraw.Draw(picture).text(at, character, fill=0, font=font, anchor="mm")
    return np.asarray(picture, dtype=np.float32) / 127.5 - 1


def load_fonts() -> list[ImageFont.FreeTypeFont]:
    return [ImageFont.truetype(str(FONTS / f"{face}.ttc"), SIZE, index=SIMPLIFIED) for face in FACES]


def drawable(names: list[str], fonts: list[ImageFont.FreeTypeFont]) -> list[int]:
    """Classes of one character that every face has, which leave ink: what a face lacks all looks alike."""
    lacking = [draw("\uffff", font, (0, 0)) for font in fonts]
    return [
        label
        for label, name in enumerate(names)
        if len(name) == 1
        and all(
            (picture := draw(name, font, (0, 0))).min() < 0 and not np.array_equal(picture, lacks)
            for font, lacks in zip(fonts, lacking, strict=True)
        )
    ]


def load_network(package: zipfile.ZipFile) -> Read:
    """The network up to its last layer, on one thread: pictures [n, HEIGHT, WIDTH] to features [n, steps, dim]."""
    import onnx
    import onnxruntime

    model = onnx.load_from_string(package.read(MODEL))
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=ENTERS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(pictures: np.ndarray) -> np.ndarray:
        inputs = np.repeat(pictures[:, None], 3, axis=1)
        return np.concatenate([session.run([ENTERS], {"x": inputs[i : i + 16]})[0] for i in range(0, len(inputs), 16)])

    return run


def at_the_character(features: np.ndarray, rows: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each picture the feature at the step with the least blank (class 0), and the class it reads there."""
    logits = features @ rows.T + bias  # [n, steps, classes]
    logits -= logits.max(2, keepdims=True)
    blank = np.exp(logits[:, :, 0]) / np.exp(logits).sum(2)
    which = np.arange(len(features)), blank.argmin(1)
    return features[which], logits[which][:, 1:].argmax(1) + 1


def chunks(folder: Path, labels: list[int], made: Callable[[list[int]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What `made` gives for some classes after others, kept in the folder."""
    folder.mkdir(exist_ok=True)
    for first in range(0, len(labels), CHUNK):
        place = folder / f"{first:05d}.npz"
        if not place.exists():
            part = made(labels[first : first + CHUNK])
            np.savez(folder / "part.npz", **part)
            (folder / "part.npz").rename(place)
            print(f"{min(first + CHUNK, len(labels))} of {len(labels)} classes", flush=True)
        with np.load(place) as part:
            yield dict(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/heads"), help="for packages and features; build/heads"
    )
    parser.add_argument("--classes", type=int, help="only so many, drawn at random")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    package = zipfile.ZipFile(fetch(SOURCES["ocr"], options.folder))
    head, fonts = read_ocr(package), load_fonts()
    network, rows, bias = load_network(package), head.rows, head.bias
    assert bias is not None
    labels = np.random.default_rng(0).permutation(drawable(head.names, fonts)).tolist()  # a part is a fair sample
    labels = labels[: options.classes]
    print(f"{len(labels)} of {len(rows)} classes, {len(FACES) * len(PLACES)} pictures each", flush=True)

    def made(some: list[int]) -> dict[str, Any]:
        pictures = [draw(head.names[label], font, place) for label in some for font in fonts for place in PLACES]
        features, read = at_the_character(network(np.stack(pictures)), rows, bias)
        return {"features": features, "labels": np.repeat(some, len(FACES) * len(PLACES)), "read": read}

    parts = list(chunks(options.folder / "recogniser", labels, made))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez(options.folder / "recogniser.npz", **found, weights=rows, bias=bias)
    print(f"{(found['read'] == found['labels']).mean():.1%} of the pictures are read right")


if __name__ == "__main__":
    main()
