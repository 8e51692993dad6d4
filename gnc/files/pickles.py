"""Reads a pickle without running it: no name is imported, nothing is called; what is no container, number, text or array becomes
an inert stand-in. Built on the standard library's unpickler in Python: the one in C takes memory for any index of a memo."""

import io
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gnc.files.stored import Unreadable

KEYS = (str, bytes, int, float, bool, type(None))  # hashing a deeply nested tuple could exhaust the stack
QUANTISED = "quantised"
NOT_READ = "quantised, or of a number type that is not read"
ARRAY = re.compile(r"_rebuild_(\w{1,40}?)(?:_no_storage)?|\w*reconstruct(?:_array)?")  # of torch, numpy and JAX
LONGEST_PATH = 2000  # characters; a list nested a million times would take hours to name


class Global(NamedTuple):
    """A name that the pickle asks to import; it is not imported."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers outside the pickle, or inside it as `data`; dtype None for one that is measured in bytes."""

    key: str
    dtype: str | None
    length: int
    data: bytes | None = None


@dataclass(frozen=True)
class TensorRecord:
    """A dense view of a storage; offset, sizes and strides in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Thing(dict):
    """Stands for an object of any class. What is put into it is walked, no more. kind: of an array that is not read."""

    def __init__(self, kind: str | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.state: Any = None

    def extend(self, values: list[Any]) -> None:
        self.update(enumerate(values, len(self)))

    def append(self, value: Any) -> None:
        self.extend([value])


class ArrayRecord:
    """A numpy array whose type and bytes may come later in the pickle."""

    def __init__(self, parts: tuple[Any, ...] = ()) -> None:
        self.parts = parts  # shape, dtype, whether by columns, bytes

    def array(self) -> np.ndarray:
        shape, dtype, by_columns, data = self.parts
        dtype = dtype.dtype() if isinstance(dtype, DtypeRecord) else None
        if dtype is None or dtype.kind not in "fiubcSU" or not isinstance(data, bytes):
            raise Unreadable("an array of objects is never read")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


class DtypeRecord:
    """A numpy number type; its byte order may come later in the pickle."""

    def __init__(self, name: object) -> None:
        self.name, self.order = str(name), "="

    def dtype(self) -> np.dtype:
        return np.dtype(self.name).newbyteorder(self.order if self.order in "<>=|" else "=")  # type: ignore[arg-type]


def unpickle(file: Any, storages: Callable[[Any], Any] | None = None) -> Any:
    """The next pickle of the file as inert values; `storages` says what a persistent id stands for. Never runs anything."""
    reader = _Inert(file, encoding="latin1")
    reader.storages = storages
    return reader.load()


def storage_of(identity: Any) -> Storage | Global | Thing:
    """The storage that torch's persistent id names."""
    match identity:
        case ("storage", Global(module="torch" | "torch.storage", name=kind), str(key), _, int(length), *_):
            return Storage(key, STORAGES.get(kind.removesuffix("Storage")), length)
        case ("module", kind, *_):  # a class with its source text, as PyTorch wrote whole models before 1.6
            return kind if isinstance(kind, Global) else Thing()
    raise Unreadable("a persistent id that is no storage of torch")


STORAGES = {  # by torch's name of the class, without Storage
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "QInt8": QUANTISED, "QUInt8": QUANTISED, "QInt32": QUANTISED,
}  # fmt: skip

_Unpickler: Any = pickle._Unpickler


class _Inert(_Unpickler):
    """Each opcode that could import or call is replaced."""

    storages: Callable[[Any], Any] | None = None

    def find_class(self, module: str, name: str) -> Global:
        if module == "joblib.numpy_pickle":
            raise Unreadable("joblib mixes arrays into the pickle. Save it with pickle.dump, or coef_ with numpy.savez")
        return Global(str(module), str(name))

    def persistent_load(self, pid: Any) -> Any:
        if self.storages is None:
            raise Unreadable("a pickle that points outside itself")
        return self.storages(pid)

    def reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def newobj_ex(self) -> None:
        self.stack.pop()
        self.reduce()

    def build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        match built, state:
            case ArrayRecord(), (_, shape, dtype, by_columns, data):
                built.parts = (shape, dtype, by_columns, data)
            case DtypeRecord(), (_, str(order), *_):
                built.order = order
            case Thing(), _:
                built.state = state

    def setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], [key, value])

    def setitems(self) -> None:
        pairs = self.pop_mark()  # which puts back the stack that they go into
        _put(self.stack[-1], pairs)

    def empty_set(self) -> None:
        self.append([])

    def frozen(self) -> None:
        self.append(self.pop_mark())

    def additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].extend(items)

    def long_bytes(self) -> None:
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def refuse(self) -> None:
        raise Unreadable("a pickle with opcodes that frameworks do not write")


_OPCODES: dict[Any, tuple[bytes, ...]] = {
    _Inert.reduce: (pickle.REDUCE, pickle.NEWOBJ),
    _Inert.newobj_ex: (pickle.NEWOBJ_EX,),
    _Inert.build: (pickle.BUILD,),
    _Inert.setitem: (pickle.SETITEM,),
    _Inert.setitems: (pickle.SETITEMS,),
    _Inert.empty_set: (pickle.EMPTY_SET,),
    _Inert.frozen: (pickle.FROZENSET,),
    _Inert.additems: (pickle.ADDITEMS,),
    _Inert.long_bytes: (pickle.BYTEARRAY8,),
    _Inert.refuse: (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.INST, pickle.OBJ, pickle.DICT),
}
_Inert.dispatch = _Unpickler.dispatch | {code[0]: method for method, codes in _OPCODES.items() for code in codes}


def _put(target: Any, pairs: list[Any]) -> Any:
    if not isinstance(target, dict):
        raise Unreadable("an item that is set on something without items")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[key if isinstance(key, KEYS) else f"<{type(key).__name__}>"] = value
    return target


def _made(made_by: Any, arguments: Any) -> Any:
    if not isinstance(arguments, tuple):
        raise Unreadable("a call without a tuple of arguments")
    maker = _MAKERS.get(".".join(made_by)) if isinstance(made_by, Global) else None
    array = ARRAY.fullmatch(made_by.name) if isinstance(made_by, Global) else None
    kind = f"a {(array[1] or 'special array').replace('_', ' ')}, which is not read" if array else None
    return Thing(kind) if maker is None else maker(*arguments)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Any:
    dtype = storage.dtype if isinstance(storage, Storage) else QUANTISED
    # the third version names the number type, since its storage is measured in bytes
    named = next((part.name for part in more if isinstance(part, Global) and part.module == "torch"), dtype)
    if named in (None, QUANTISED) or not isinstance(offset, int):
        return Thing(NOT_READ)
    return TensorRecord(storage, named, offset, tuple(shape), tuple(strides))


def _mapping(pairs: Any = (), *_: Any) -> Any:
    return _put({}, [part for pair in (pairs if isinstance(pairs, list) else ()) for part in pair])


def _text_bytes(text: Any = "", encoding: Any = "latin1") -> Any:
    return text.encode("latin1") if isinstance(text, str) and encoding in ("latin1", "latin-1") else Thing()


def _nested(data: Any) -> Any:
    """The storage that plain `pickle.dump` of a tensor writes: a file of torch's older format inside the pickle."""
    file = io.BytesIO(data if isinstance(data, bytes) else b"")
    for _ in range(3):  # magic number, protocol, the machine
        unpickle(file)
    storage = unpickle(file, storage_of)
    unpickle(file)
    return replace(storage, data=data[file.tell() + 8 :]) if isinstance(storage, Storage) else storage


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return ArrayRecord((shape, dtype, order == "F", data))


def _first(value: Any = None, *_: Any) -> Any:
    return value


_MAKERS: dict[str, Callable[..., Any]] = {
    **{f"torch._utils._rebuild_tensor{version}": _tensor for version in ("", "_v2", "_v3")},
    **{f"torch._utils._rebuild_parameter{state}": _first for state in ("", "_with_state")},
    "torch._tensor._rebuild_from_type_v2": lambda function, _type, arguments, _state: _made(function, arguments),
    "torch.storage._load_from_bytes": _nested,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    **dict.fromkeys(("torch.Size", "builtins.set", "builtins.frozenset", "__builtin__.set", "builtins.list"), _first),
    "_codecs.encode": _text_bytes,
    **dict.fromkeys(("builtins.bytes", "__builtin__.bytes"), lambda *_: b""),  # protocol 2 writes no bytes this way
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: ArrayRecord() for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy.dtype": lambda name, *_: DtypeRecord(name),
}


def walk(value: Any) -> Iterator[tuple[str, TensorRecord | ArrayRecord | Thing]]:
    """Arrays in nested containers, each with the path to it; of an object its state, without torch's own dictionaries.
    A container that stands in several places is walked once: the number of paths could be exponential."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        prefix, value = waiting.pop()
        if isinstance(value, TensorRecord | ArrayRecord) or getattr(value, "kind", None):
            yield prefix or "tensor", value
            continue
        if not isinstance(value, dict | list | tuple) or id(value) in seen or len(prefix) > LONGEST_PATH:
            continue
        seen.add(id(value))
        waiting.extend(reversed([(_joined(prefix, key), inner) for key, inner in _parts(value)]))


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict):
        return list(enumerate(value))
    state = value.state if isinstance(value, Thing) else None
    states = state if isinstance(state, tuple) else (state,)  # with slots there are two
    return [*(pair for state in states if isinstance(state, dict) for pair in state.items()), *value.items()]


def _joined(prefix: str, key: Any) -> str:
    if key in ("_parameters", "_buffers", "_modules"):
        return prefix
    text = key.decode("latin1") if isinstance(key, bytes) else str(key)
    return f"{prefix}.{text}" if prefix else text
