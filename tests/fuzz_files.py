"""Mutated files of every kind that is read: each is refused in one line or gives numbers, and nothing in it is run.

`python -m tests.fuzz_files --mutations 1000` tries a thousand of each kind; the test suite tries a few.
"""

import argparse
import contextlib
import json
import os
import pickle
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from gnc.files.classifier import read_classifier
from gnc.files.features import class_labels, in_batches, open_features
from gnc.files.formats import open_arrays
from study.design.errors import StudyError

SPARE = 1 << 29  # bytes that reading a file of some kilobytes may take
FORBIDDEN = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "os.mkdir"}
FORBIDDEN |= {"os.remove", "os.rename", "socket.connect", "ctypes.dlopen", "shutil.rmtree"}


class Trap:
    """Makes a folder if a pickle that holds it is run."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"backbone.weight": (6, 6), "head.weight": (9, 6), "head.bias": (9,), "transposed": (6, 9)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_checkpoint(path: Path, **options: bool) -> None:
    state = tensors() | {"half": torch.ones(3, 4).bfloat16(), "turned": torch.ones(3, 4).T}
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1}, "trap": Trap()}, path, **options)


def write_onnx(path: Path) -> None:
    weights = {name: value.numpy() for name, value in tensors().items()}
    held = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    nodes = [
        onnx.helper.make_node("Mul", ["transposed", "head.bias"], ["scaled"]),
        onnx.helper.make_node("MatMul", ["x", "scaled"], ["y"]),
        onnx.helper.make_node("Gemm", ["x", "head.weight", "head.bias"], ["z"], transB=1),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xz"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], held)), path)


def write_index(path: Path) -> None:
    names = {"backbone.weight": "a.safetensors", "head.weight": "b.safetensors"}
    for name, file in names.items():
        save_file({name: tensors()[name]}, path.with_name(file))
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))


def write_parquet(path: Path) -> None:
    features, labels = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 4
    pq.write_table(pa.table({"features": list(features), "labels": labels, "note": ["a"] * 20}), path)


def write_plain(path: Path) -> None:
    numbers = {name: value.numpy() for name, value in tensors().items()}
    path.write_bytes(pickle.dumps({"model": numbers, "tensor": tensors()["head.weight"], "trap": Trap()}, protocol=4))


def write_float8(path: Path) -> None:
    codes = tensors()["head.weight"].to(torch.float8_e4m3fn)
    save_file({"head.weight": codes, "head.weight_scale": torch.ones(9, 1)}, path)


KINDS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda path: save_file(tensors(), path),
    "float8": write_float8,
    "zip.pt": write_checkpoint,
    "legacy.pt": lambda path: write_checkpoint(path, _use_new_zipfile_serialization=False),
    "pickle": write_plain,
    "npz": lambda path: np.savez(path.open("wb"), features=np.ones((6, 2)), labels=np.arange(6), text=np.array(["a"])),
    "npz-compressed": lambda path: np.savez_compressed(path.open("wb"), weights=np.ones((60, 2)), labels=np.arange(6)),
    "npy": lambda path: np.save(path.open("wb"), np.ones((6, 2))),
    "onnx": write_onnx,
    "index.json": write_index,
    "parquet": write_parquet,
}


def mutated(whole: bytes, generator: np.random.Generator) -> bytes:
    """One to four changes: other bytes, a large number, a cut, something doubled, left out or moved."""
    torn = bytearray(whole)
    for _ in range(int(generator.integers(1, 5))):
        place, size = int(generator.integers(max(1, len(torn)))), int(generator.integers(1, 33))
        match int(generator.integers(8)):
            case 0 | 1 | 2:
                torn[place : place + 1] = generator.integers(256, size=1, dtype=np.uint8).tobytes()
            case 3:
                large = int(generator.choice([2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 10**12]))
                torn[place : place + 8] = large.to_bytes(8, "little")
            case 4:
                torn = torn[:place] if generator.integers(4) == 0 else torn
            case 5:
                torn[place:place] = torn[place : place + size]
            case 6:
                del torn[place : place + size]
            case 7:
                torn[place : place + size] = generator.integers(256, size=size, dtype=np.uint8).tobytes()
    return bytes(torn)


def read_all(path: str) -> str:
    """Everything that the commands may do with the file; how it ended."""
    ends = []
    for read in (_read_arrays, _read_head, _read_features):
        try:
            read(path)
            ends.append("read")
        except StudyError as error:
            check_refusal(str(error))
            ends.append("refused")
    return max(ends, key=("refused", "read").index)


def check_refusal(sentence: str) -> None:
    """One line, and not about memory that a wrong size asked for."""
    assert len(sentence.splitlines()) == 1, sentence
    assert not any(word in sentence for word in ("MemoryError", "nable to allocate", "malloc")), sentence


def _read_arrays(path: str) -> None:
    for stored in open_arrays(path).arrays.values():
        with contextlib.suppress(StudyError):
            stored.read()


def _read_head(path: str) -> None:
    for name in (None, "head.weight"):
        read_classifier(path, name)


def _read_features(path: str) -> None:
    arrays, _ = open_features(path)
    if "labels" in arrays:
        class_labels(arrays["labels"], relabel=True)
    if len(arrays["features"].shape if "features" in arrays else ()) == 2:
        sum(len(batch) for batch in in_batches(arrays["features"]))


def fuzz(kind: str, mutations: int, seed: int = 0) -> Counter[str]:
    """How mutated files of this kind ended; raises what a command would show as a traceback."""
    ends: Counter[str] = Counter()
    generator = np.random.default_rng([seed, *kind.encode()])
    with _folder_of_its_own() as folder, _limited_memory():
        path = folder / f"file.{kind}"
        KINDS[kind](path)
        whole = path.read_bytes()
        assert read_all(str(path)) == "read", f"{kind}: the whole file is not read"
        for number in range(mutations):
            path.write_bytes(mutated(whole, generator))
            _calls.clear()
            try:
                _watch[0] = True
                ends[read_all(str(path))] += 1
            except Exception as error:
                kept = Path(tempfile.gettempdir()) / f"fuzzed-{kind}-{number}"
                kept.write_bytes(path.read_bytes())
                raise AssertionError(f"{kind}, mutation {number}, kept as {kept}: {error!r}") from error
            finally:
                _watch[0] = False
            assert not _calls, f"{kind}, mutation {number} ran {_calls}"
            assert not Path("executed").exists(), f"{kind}, mutation {number} made a folder"
    return ends


_watch, _calls = [False], []  # audit hooks cannot be taken off
sys.addaudithook(lambda event, _: _calls.append(event) if _watch[0] and event in FORBIDDEN else None)


@contextlib.contextmanager
def _folder_of_its_own() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """An allocation of what a wrong header states fails, and its refusal is told from others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + SPARE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    options = parser.parse_args()
    for kind in options.kind or KINDS:
        started = time.process_time()
        ends = fuzz(kind, options.mutations, options.seed)
        print(f"{kind:<15} {dict(sorted(ends.items()))}  {time.process_time() - started:.1f} CPU s", flush=True)


if __name__ == "__main__":
    main()
