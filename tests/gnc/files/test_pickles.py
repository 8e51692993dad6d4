"""Pickles of every shape that could import or call something: nothing happens."""

import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gnc.files.formats import open_arrays
from gnc.files.pickles import Global, unpickle, walk
from gnc.files.stored import Unreadable
from study.design.errors import StudyError
from tests.fuzz_files import check_refusal

MAKE = b"(S'executed'\ntR"  # a call of what lies below it on the stack
ATTACKS = {
    "REDUCE": b"\x80\x02cos\nmkdir\n" + MAKE + b".",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + MAKE + b".",
    "INST": b"\x80\x02(S'executed'\nios\nmkdir\n.",
    "OBJ": b"\x80\x02(cos\nmkdir\nS'executed'\no.",
    "NEWOBJ": b"\x80\x02cos\nmkdir\n(S'executed'\nt\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nmkdir\n(S'executed'\nt}\x92.",
    "BUILD of a setter": b"\x80\x02cbuiltins\nobject\n)\x81}S'__setstate__'\ncos\nmkdir\nsbS'executed'\nb.",
    "BUILD of a global": b"\x80\x02cos\nmkdir\n}S'x'\nK\x01sb.",
    "a mapping that calls": b"\x80\x02ccollections\ndefaultdict\n(cos\nmkdir\ntR.",
    "APPENDS": b"\x80\x02cos\nmkdir\n)\x81(S'executed'\ne.",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_opcode_runs_anything(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pickletools.dis(ATTACKS[name], out=io.StringIO())  # it is a whole pickle
    if name in ("INST", "OBJ"):
        with pytest.raises(Unreadable, match="opcodes that frameworks do not write"):
            unpickle(io.BytesIO(ATTACKS[name]))
    else:
        assert isinstance(unpickle(io.BytesIO(ATTACKS[name])), Global | dict)
    assert not list(Path().iterdir())
    if name in ("REDUCE", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ"):  # the same bytes do run in Python's own unpickler
        with pytest.raises((FileExistsError, TypeError, pickle.UnpicklingError)):
            [pickle.loads(ATTACKS[name]) for _ in range(2)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\xff\xff\xff\xff.",  # LONG_BINPUT: the C unpickler takes 64 GiB for this index
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"abc.",  # BYTEARRAY8 of a terabyte
        b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"abc.",
        b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"N.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",  # nested 100,000 times
        b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",  # a key that is nested 100,000 times
        b"\x80\x02\x82\x01.",  # an extension code
    ],
)
def test_what_takes_memory_or_depth_is_refused_in_one_line_or_read(tmp_path, data):
    (tmp_path / "w.pt").write_bytes(data)
    try:
        said = str(open_arrays(str(tmp_path / "w.pt")).arrays)
    except StudyError as error:
        said = str(error)
    check_refusal(said)


def test_a_list_of_lists_that_share_parts_is_walked_in_their_number():
    value: list = [torch.ones(1)]
    for _ in range(60):
        value = [value, value]
    assert list(walk(value)) == []  # a live tensor is no record


def test_what_plain_pickle_writes_of_arrays_and_tensors_is_read(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)), "c": np.ones(0)}
    for protocol in range(2, 6):
        big = {
            "a": arrays["a"].astype(">f8"),
            "t": torch.arange(6.0).reshape(3, 2).T,
            "o": np.array([{}], dtype=object),
        }
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({**arrays, "deep": [big]}, protocol=protocol))
        found = open_arrays(str(tmp_path / "w.pkl"))
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.arrays[name].tensor().numpy(), array)
        np.testing.assert_array_equal(found.arrays["deep.0.a"].tensor().numpy(), arrays["a"])
        np.testing.assert_array_equal(found.arrays["deep.0.t"].tensor().numpy(), np.arange(6.0).reshape(3, 2).T)
        assert "deep.0.o" in found.skipped


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_of_every_type_view_and_nesting_come_back_as_torch_has_them(tmp_path, is_zip):
    base = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
    values = {str(kind): (base * 3).to(kind) for kind in (*types, torch.float8_e4m3fn, torch.uint16)}
    values |= {"view": base[1:4, ::2], "turned": base.T, "parameter": torch.nn.Parameter(base), "scalar": base[0, 0]}
    values |= {"empty": base[:0]}
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    repeated = torch.ones(1, 1).expand(1000, 1000)
    held = {"deep": [{"values": values}], "net": net, "repeated": repeated, "sparse": base.to_sparse()}
    torch.save(held, tmp_path / "w.pt", _use_new_zipfile_serialization=is_zip)
    found = open_arrays(str(tmp_path / "w.pt")).arrays
    for name, value in values.items():
        read = found[f"deep.0.values.{name}"].tensor()
        assert read.dtype == value.dtype
        assert torch.equal(read.double() if "8" in name else read, value.detach().double() if "8" in name else value)
    for name, value in net.state_dict().items():
        assert torch.equal(found[f"net.{name}"].tensor(), value)
    assert "sparse" not in found
    with pytest.raises(StudyError, match="must have 4,000,000 bytes"):
        found["repeated"].tensor()


def test_an_archive_that_was_packed_again_is_read_and_one_of_another_byte_order_refused(tmp_path):
    values = torch.arange(6.0).reshape(2, 3)
    torch.save({"head": values}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    order = next(name for name in held if name.endswith("/byteorder"))
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "again.pt", "w", kind) as archive:
            for name, data in held.items():
                archive.writestr(name, data)
        assert torch.equal(open_arrays(str(tmp_path / "again.pt")).arrays["head"].tensor(), values)
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        for name, data in (held | {order: b"big"}).items():
            archive.writestr(name, data)
    with pytest.raises(StudyError, match="a big-endian machine: save them as safetensors"):
        open_arrays(str(tmp_path / "big.pt"))


def test_only_the_chosen_tensor_is_read(tmp_path):
    torch.save({"head": torch.ones(3, 2), "large": torch.zeros(1 << 20)}, tmp_path / "w.pt")
    whole = bytearray((tmp_path / "w.pt").read_bytes())
    found = open_arrays(str(tmp_path / "w.pt")).arrays
    large = whole.rindex(bytes(1 << 20))
    os.truncate(tmp_path / "w.pt", large)
    assert torch.equal(found["head"].tensor(), torch.ones(3, 2))
    with pytest.raises(StudyError, match=r"large in .* must have"):
        found["large"].tensor()
