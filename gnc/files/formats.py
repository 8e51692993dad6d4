"""Opens a file by what it holds, whatever its ending; an index or a folder stands for its shards. Nothing in a file is ever
run. Knows every format here; does not know what arrays mean."""

import json
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from safetensors import safe_open

from gnc.files.numpy_files import read_npy, read_npz
from gnc.files.onnx_files import read_onnx
from gnc.files.stored import ITEM_BYTES, Contents, StoredArray, Unreadable, file_length, refusing, shown
from gnc.files.torch_files import is_pickle, read_pickle, read_torch_zip
from study.design.errors import StudyError, unreadable

SHARD = re.compile(r"-\d{5}-of-(?!00001\.)\d{5}\.")
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npz")
WHOLE = ("model.safetensors", "pytorch_model.bin", "model.onnx")  # a folder's own names for all its weights
SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}  # fmt: skip
OTHERS = (  # what people have and this does not read, by its first bytes
    (b"GGUF", "a GGUF file", "Give the checkpoint that it was made from."),
    (b"\x89HDF", "an HDF5 file", 'Save the weights alone: numpy.savez("weights.npz", **arrays).'),
    (b"\x1f\x8b", "compressed by gzip", "Unpack it first."),
    (b"BZh", "compressed by bzip2", "Unpack it first."),
    (b"\xfd7zXZ", "compressed by xz", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "Unpack it first."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the file itself: git lfs pull."),
    (b"PAR1", "a Parquet file", "gnc measure reads features from it; weights lie in another file."),
)
ARCHIVES = (  # the same of zip archives, by an entry
    ("model.weights.h5", "a Keras file", 'Save the weights alone: numpy.savez("weights.npz", **arrays).'),
    ("archive_format", "an exported program", "Save the module's state_dict with torch.save."),
)
KINDS = "safetensors, PyTorch archives and pickles (.pt, .bin, .ckpt), .npy, .npz, ONNX, an index or folder of shards"


def open_arrays(path: str) -> Contents:
    """Names, shapes and kinds of all arrays of a file, of the shards of an index, or of a folder.
    StudyError: nothing there, a kind that is not read, or bytes that are torn; one line with the cure."""
    place = Path(path)
    if not place.exists() or not (place.is_file() or place.is_dir()):
        raise unreadable("FILE must be a file that exists", path, FileNotFoundError())
    with warnings.catch_warnings(action="ignore"):  # the refusals are enough
        return refusing(path, lambda: _open_folder(place) if place.is_dir() else _open_file(path))


def beside(path: str, name: str) -> dict[str, Any] | None:
    """The JSON object in the file of that name beside the checkpoint; None where there is none or it is torn."""
    place = Path(path)
    file = (place if place.is_dir() else place.parent) / name
    try:
        found = json.loads(file.read_bytes()) if file.is_file() and file.stat().st_size < 1 << 26 else None
    except (ValueError, RecursionError, OSError):
        return None
    return found if isinstance(found, dict) else None


def index_of_shard(path: str) -> str | None:
    """The index beside a shard, by which the other shards are found, else its folder; None where it is no shard."""
    indices = sorted(Path(path).parent.glob("*.index.json"))
    return str(indices[0] if indices else Path(path).parent) if SHARD.search(Path(path).name) else None


def _open_file(path: str) -> Contents:
    with open(path, "rb") as file:
        start = file.read(64)
    for magic, kind, cure in OTHERS:
        if start.startswith(magic):
            raise StudyError(f"FILE must be {KINDS}, got {path!r}, which is {kind}. {cure}")
    if start.startswith(b"PK"):
        return _open_zip(path)
    if start.startswith(b"\x93NUMPY"):
        return read_npy(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < file_length(path):
        return _read_safetensors(path)
    if is_pickle(start):
        return read_pickle(path)
    if start.lstrip()[:1] == b"{":
        return _open_index(path)
    if start[:1] == b"\x08":  # the version, the first field of a model
        return read_onnx(path)
    rule = f"FILE must be {KINDS}, got {path!r}, which begins as none of them."
    raise StudyError(f"{rule} Save the weights as safetensors, or the arrays with numpy.savez.")


def _open_zip(path: str) -> Contents:
    if not is_zipfile(path):
        raise Unreadable("a zip archive that is torn")
    with ZipFile(path) as archive:
        names, first = archive.namelist(), min((info.header_offset for info in archive.infolist()), default=0)
    if first or (Path(path).suffix == ".distcp" and Path(path).with_name(".metadata").is_file()):
        cure = "Join its parts: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pt"
        raise StudyError(f"FILE must be one whole checkpoint, got {path!r}, a part of a distributed one. {cure}.")
    for end, kind, cure in ARCHIVES:
        if any(name.endswith(end) for name in names):
            raise StudyError(f"FILE must be {KINDS}, got {path!r}, which is {kind}. {cure}")
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return read_torch_zip(path)
    return read_npz(path)


def _read_safetensors(path: str) -> Contents:
    arrays, skipped = dict[str, StoredArray](), dict[str, str]()
    with safe_open(path, "pt") as file:  # checks the header against the file's length
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            part = file.get_slice(name)
            dtype = SAFETENSORS_DTYPES.get(part.get_dtype())
            if dtype not in ITEM_BYTES:
                skipped[name] = f"of the type {shown(part.get_dtype())}"
                continue
            arrays[name] = StoredArray(name, tuple(part.get_shape()), dtype, partial(_safetensor, path, name), path)
        tied = (file.metadata() or {}).items()  # save_model names there what it leaves out since it is the same tensor
    arrays |= {name: replace(arrays[n], name=name) for name, n in tied if n in arrays and name not in arrays}
    return Contents(path, "safetensors", arrays, skipped)


def _safetensor(path: str, name: str) -> Any:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def _open_index(path: str) -> Contents:
    """The shards that an index names; those that are absent are left out with what they hold."""
    found = json.loads(Path(path).read_bytes()) if file_length(path) < 1 << 30 else None
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places:
        cure = "Give the checkpoint, or its *.index.json."
        raise StudyError(f"FILE must be {KINDS}, got {path!r}, which is JSON without a weight_map. {cure}")
    folder = Path(path).parent
    arrays, skipped = dict[str, StoredArray](), dict[str, str]()
    shards: dict[str, Contents | None] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise Unreadable(f"the shard of {shown(name)} must be a file beside the index, got {shown(str(shard))!r}")
        if shard not in shards:
            shards[shard] = _open_file(str(folder / shard)) if (folder / shard).is_file() else None
        inside = shards[shard]
        if inside is not None and name in inside.arrays:
            arrays[name] = inside.arrays[name]
        else:
            skipped[name] = f"{shown(shard)} is absent" if inside is None else f"not in {shown(shard)}"
    return Contents(path, f"{len(shards)} shards", arrays, skipped)


def _open_folder(folder: Path) -> Contents:
    """What the folder's index, its whole file, or its only checkpoint holds."""
    indices = sorted(folder.glob("*.index.json"), key=lambda path: ("safetensors" not in path.name, path.name))
    if indices:
        return _open_index(str(indices[0]))
    files = [folder / name for name in WHOLE if (folder / name).is_file()][:1]
    files = files or sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    files = files or sorted(folder.glob("*.distcp"))[:1]  # whose refusal says what to do
    if len(files) == 1:
        return _open_file(str(files[0]))
    if files and all(SHARD.search(path.name) for path in files):
        shards = [_open_file(str(path)) for path in files]
        arrays = {name: array for shard in shards for name, array in shard.arrays.items()}
        skipped = {name: why for shard in shards for name, why in shard.skipped.items()}
        note = f"{len(shards)} shards without an index are read together"
        return Contents(str(folder), f"{len(shards)} shards", arrays, skipped, (note,))
    held = ", ".join(path.name for path in files[:5]) or "none"
    raise StudyError(f"FILE must be a folder with one checkpoint, got {str(folder)!r} with {held}. Name the file.")
