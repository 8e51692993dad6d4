"""The classifier of checkpoints as frameworks leave them: which tensor is taken, what stands beside it, what is said."""

import json
import re
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from gnc.files.classifier import read_classifier
from gnc.files.formats import open_arrays
from gnc.files.heads import find_head
from study.design.errors import StudyError

ROWS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


def matrices(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}


def write(path, tensors: dict[str, torch.Tensor], config: dict | None = None) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    if config is not None:
        path.with_name("config.json").write_text(json.dumps(config))
    return str(path)


GUESSES = [  # the tensors of a checkpoint, its config.json, and the head, None where no guess is sure
    ({"blocks.3.mlp.fc.weight": (90, 6), "head.weight": (20, 6)}, None, "head.weight"),
    ({"classifier.0.weight": (90, 6), "classifier.3.weight": (90, 90), "classifier.6.weight": (20, 90)}, None, "classifier.6.weight"),
    ({"model.embed_tokens.weight": (50, 6), "lm_head.weight": (50, 6), "model.layers.0.mlp.up_proj.weight": (99, 6)}, None, "lm_head.weight"),
    ({"student.head.weight": (20, 6), "teacher.head.weight": (20, 6)}, None, "student.head.weight"),
    ({"state_dict.fc.weight": (20, 6), "optimizer.fc.weight": (20, 6), "proj.weight": (40, 6)}, None, "state_dict.fc.weight"),
    ({"fc.weight": (20, 6), "head.weight": (30, 6)}, None, "head.weight"),
    ({"fc.weight": (20, 6), "head.weight": (30, 6)}, {"num_classes": 20}, "fc.weight"),
    ({"fc.weight": (20, 6), "head.weight": (20, 6)}, None, None),
    ({"wte.weight": (50, 6), "wpe.weight": (90, 6), "h.0.attn.c_attn.weight": (6, 18)}, {"vocab_size": 50, "architectures": ["GPT2LMHeadModel"]}, "wte.weight"),
    ({"wte.weight": (50, 6), "h.0.attn.c_attn.weight": (6, 18)}, {"vocab_size": 50, "tie_word_embeddings": False}, None),
    ({"wte.weight": (50, 6), "h.0.attn.c_attn.weight": (6, 18)}, None, None),
    ({"0.weight": (90, 6), "2.weight": (20, 90)}, None, None),
    ({"0.weight": (90, 6), "2.weight": (20, 90)}, {"id2label": {str(k): "x" for k in range(20)}}, "2.weight"),
    ({"cls.predictions.decoder.weight": (50, 6), "cls.predictions.transform.dense.weight": (6, 6)}, None, "cls.predictions.decoder.weight"),
    ({"classifier.dense.weight": (6, 6), "classifier.out_proj.weight": (20, 6)}, None, "classifier.out_proj.weight"),
    # as timm names them: a hidden layer under the head has more rows than the classes
    ({"stem.weight": (8, 4), "head.pre_logits.fc.weight": (16, 8), "head.fc.weight": (5, 16)}, None, "head.fc.weight"),
    ({"head.pre_logits.fc.weight": (16, 16), "head.fc.weight": (5, 16)}, None, "head.fc.weight"),
    ({"final_layer.0.weight": (16, 8), "classifier.weight": (5, 16)}, None, "classifier.weight"),
    ({"conv.weight": (30, 6, 3, 3), "classifier.1.weight": (20, 6, 1, 1), "x.weight": (40, 6)}, None, "classifier.1.weight"),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "config", "head"), GUESSES)
def test_the_head_is_guessed_where_its_name_its_place_or_config_json_tell_it(tmp_path, shapes, config, head):
    path = write(tmp_path / "m.safetensors", {name: torch.ones(shape) for name, shape in shapes.items()}, config)
    if head is None:
        with pytest.raises(StudyError, match=r"--tensor must be given .* likeliest first: "):
            read_classifier(path)
        return
    found = read_classifier(path)
    assert found.name == head
    assert found.rows.shape == shapes[head][:2]
    assert f"{head} {shapes[head]}" in found.notes[0]  # what was taken is said
    assert "guessed" in found.notes[0]


@pytest.mark.parametrize(
    "name", ["fc.weight", "fc", "model.fc.weight", "module.model._orig_mod.fc.weight", "_orig_mod.fc"]
)
def test_a_name_is_found_without_prefixes_of_wrappers(tmp_path, name):
    torch.save({"state_dict": {"model._orig_mod.fc.weight": ROWS, "model.layer.weight": ROWS}}, tmp_path / "last.ckpt")
    assert torch.equal(read_classifier(str(tmp_path / "last.ckpt"), name).rows, ROWS.double())


def test_an_ending_that_several_names_have_is_refused_and_a_miss_names_the_nearest(tmp_path):
    path = write(
        tmp_path / "m.safetensors", matrices(a__out__weight=(9, 2), b__out__weight=(9, 2), head__weight=(8, 2))
    )
    with pytest.raises(StudyError, match=r"the end of a.out.weight \(9, 2\), b.out.weight \(9, 2\)"):
        read_classifier(path, "out.weight")
    with pytest.raises(StudyError, match=r"Did you mean 'head.weight'\?.*likeliest heads first: head.weight \(8, 2\)"):
        read_classifier(path, "heads.weight")


def sharded(folder, kind: str) -> str:
    shards = [{"model.embed.weight": torch.ones(20, 6)}, {"lm_head.weight": ROWS, "lm_head.bias": torch.ones(20)}]
    places = {}
    for number, tensors in enumerate(shards, 1):
        file = f"{'model' if kind == 'safetensors' else 'pytorch_model'}-0000{number}-of-00002.{kind}"
        (save_file if kind == "safetensors" else torch.save)(tensors, folder / file)
        places |= dict.fromkeys(tensors, file)
    index = folder / ("model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return str(index)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_or_folder_and_a_missing_one_is_named(tmp_path, kind):
    index = sharded(tmp_path, kind)
    for path in (index, str(tmp_path)):
        found = read_classifier(path)
        assert torch.equal(found.rows, ROWS.double())
        assert found.file.endswith(f"00002-of-00002.{kind}")
        assert found.bias is not None
    first, second = sorted(path for path in tmp_path.iterdir() if "-of-" in path.name)
    with pytest.raises(StudyError, match=r"one of several shards: give .*index.json"):
        read_classifier(str(first), "lm_head.weight")
    second.unlink()
    with pytest.raises(StudyError, match=r"lm_head.weight': .*00002-of-00002.* is absent"):
        read_classifier(index, "lm_head.weight")
    (tmp_path / index).write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))
    with pytest.raises(StudyError, match="must be a file beside the index"):
        open_arrays(index)


def float8(
    folder, scale: torch.Tensor, name: str, shape=(256, 384), config: dict | None = None
) -> tuple[str, torch.Tensor]:
    codes = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(torch.float8_e4m3fn)
    return write(folder / "f8.safetensors", {"lm_head.weight": codes, name: scale}, config), codes.double()


def test_scales_of_float8_codes_are_applied_by_tensor_row_block_and_group(tmp_path):
    generator = torch.Generator().manual_seed(2)
    by_block = torch.rand(2, 3, generator=generator)
    spread = by_block.double().repeat_interleave(128, 0).repeat_interleave(128, 1)
    for scale, factors in (
        (torch.tensor(3.0), torch.tensor(3.0)),
        (torch.tensor([3.0]), torch.tensor(3.0)),
        (by_row := torch.rand(256, generator=generator), by_row[:, None]),
        (by_row[:, None], by_row[:, None]),
        (by_block, spread),
        (groups := torch.rand(256, 6, generator=generator), groups.repeat_interleave(64, 1)),
    ):
        for name in ("lm_head.weight_scale_inv", "lm_head.weight_scale"):
            path, codes = float8(tmp_path, scale.contiguous(), name)
            found = read_classifier(path)
            assert torch.equal(found.rows, codes * factors.double())
            assert any("lm_head.weight_scale" in note for note in found.notes)
    path, codes = float8(tmp_path, by_block[:, :2].contiguous(), "lm_head.weight_scale", (200, 250))  # blocks cut short
    assert torch.equal(read_classifier(path, "lm_head").rows, codes * spread[:200, :250])
    config = {"quantization_config": {"weight_block_size": [256, 192]}}
    path, codes = float8(tmp_path, by_block[:1, :2].contiguous(), "lm_head.weight_scale", config=config)
    assert torch.equal(read_classifier(path).rows, codes * by_block[:1, :2].double().repeat_interleave(192, 1))


@pytest.mark.parametrize(
    ("scale", "name", "words"),
    [
        (torch.ones(3, 5), "lm_head.weight_scale", "the blocks of .* must be known"),
        (torch.ones(1, 384), "lm_head.weight_scale", "the blocks of .* must be known"),
        (torch.ones(256), "lm_head.scales_of_mine", "the scales of lm_head.weight .* got lm_head.scales_of_mine"),
        (torch.ones(256, dtype=torch.uint8), "lm_head.weight_scale", "the scales of lm_head.weight"),
    ],
)
def test_scales_that_are_not_known_are_refused(tmp_path, scale, name, words):
    path, _ = float8(tmp_path, scale, name)
    with pytest.raises(StudyError, match=words):
        read_classifier(path, "lm_head.weight")


def test_float8_without_scales_is_said_and_integers_with_scales_are_refused_with_the_reason(tmp_path):
    path, codes = float8(tmp_path, torch.ones(()), "other.input_scale")
    found = read_classifier(path)
    assert torch.equal(found.rows, codes)
    assert any("without scales" in note for note in found.notes)
    shard = write(tmp_path / "model-00001-of-00002.safetensors", {"lm_head.weight": codes.to(torch.float8_e5m2)})
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(StudyError, match=r"the scales may lie in another. Give .*index.json"):
        read_classifier(shard)
    whole = {"lm_head.weight": codes.to(torch.int8), "lm_head.weight_scale": torch.ones(256), "x": ROWS}
    with pytest.raises(StudyError, match=r"quantised, with lm_head.weight_scale beside it"):
        read_classifier(write(tmp_path / "i8.safetensors", whole), "lm_head.weight")


@pytest.mark.parametrize("is_new", [True, False])
def test_a_weight_norm_is_applied(tmp_path, is_new):
    layer = torch.nn.Linear(6, 20)
    with torch.no_grad():
        normed = torch.nn.utils.parametrizations.weight_norm(layer) if is_new else torch.nn.utils.weight_norm(layer)
        for value in normed.parameters():
            value.mul_(2 + torch.arange(value.numel()).reshape(value.shape))
        expected = normed(torch.eye(6)).T - normed.bias[:, None]  # the rows that the layer computes with
    torch.save({f"head.{name}": value for name, value in layer.state_dict().items()}, tmp_path / "w.pt")
    name = "head.parametrizations.weight.original1" if is_new else "head.weight_v"
    found = read_classifier(str(tmp_path / "w.pt"), name)
    torch.testing.assert_close(found.rows, expected.double(), rtol=1e-4, atol=1e-3)
    assert any("scaled to the lengths" in note for note in found.notes)
    assert found.bias is not None


def test_an_adapter_that_is_not_merged_is_said(tmp_path):
    tensors = {"lm_head.base_layer.weight": ROWS, "lm_head.lora_A.default.weight": torch.ones(2, 6)}
    found = read_classifier(write(tmp_path / "m.safetensors", tensors), "lm_head.base_layer.weight")
    assert any("lora_A" in note and "not merged" in note for note in found.notes)


def graph(path, nodes, weights: dict[str, np.ndarray], **options) -> str:
    held = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], held))
    onnx.save(model, path, **options)
    return str(path)


def node(kind: str, *inputs: str, output: str = "y", **options):
    return onnx.helper.make_node(kind, list(inputs), [output], **options)


@pytest.mark.parametrize("form", ["matmul", "gemm", "gemm-turned", "transpose", "constant", "outside", "convolution"])
def test_the_classes_of_an_onnx_model_are_rows_however_its_last_product_holds_them(tmp_path, form):
    rows, first = ROWS.numpy(), np.ones((6, 6), np.float32)
    last = {
        "matmul": [node("MatMul", "h", "w")],
        "gemm": [node("Gemm", "h", "w", "b", transB=1)],
        "gemm-turned": [node("Gemm", "h", "w")],
        "transpose": [node("Transpose", "w", output="t"), node("MatMul", "h", "t", output="z"), node("Add", "b", "z")],
        "constant": [node("Constant", output="w", value=onnx.numpy_helper.from_array(rows.T.copy())), node("MatMul", "h", "w")],
        "outside": [node("MatMul", "h", "w")],
        "convolution": [node("Conv", "h", "w", "b")],
    }[form]  # fmt: skip
    turned = form in ("matmul", "gemm-turned", "outside")
    weights = {"first": first, "b": np.arange(20, dtype=np.float32)} | (
        {}
        if form == "constant"
        else {"w": rows.T.copy() if turned else rows[:, :, None, None] if form == "convolution" else rows}
    )
    outside = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0} if form == "outside" else {}
    path = graph(tmp_path / "m.onnx", [node("MatMul", "x", "first", output="h"), *last], weights, **outside)
    found = read_classifier(path)
    assert torch.equal(found.rows, ROWS.double())
    assert "the last matrix product" in found.notes[0]
    assert (found.bias is not None and found.bias.tolist() == list(range(20))) == (
        form in ("gemm", "transpose", "convolution")
    )
    assert any("turned" in note for note in found.notes) == (turned or form == "constant")


def test_a_quantised_last_product_is_not_passed_over_for_an_earlier_one(tmp_path):
    nodes = [node("MatMul", "x", "first", output="h"), node("MatMulInteger", "h", "w")]
    path = graph(
        tmp_path / "m.onnx",
        nodes,
        {"first": np.ones((6, 6), np.float32), "w": np.ones((6, 20), np.int8), "x1": np.ones((3, 3))},
    )
    with pytest.raises(StudyError, match="--tensor must be given"):
        read_classifier(path)


def test_weights_of_an_onnx_model_outside_its_folder_are_not_opened(tmp_path):
    (tmp_path / "in").mkdir()
    graph(tmp_path / "in" / "m.onnx", [node("MatMul", "x", "w")], {"w": ROWS.numpy()}, save_as_external_data=True, location="aaaaaaaa", size_threshold=0)  # fmt: skip
    whole = (tmp_path / "in" / "m.onnx").read_bytes()
    (tmp_path / "in" / "aaaaaaaa").rename(tmp_path / "aaaaa")
    (tmp_path / "in" / "m.onnx").write_bytes(whole.replace(b"aaaaaaaa", b"../aaaaa"))
    with pytest.raises(StudyError, match=r"w in .*m.onnx.*: .*aaaaa"):
        read_classifier(str(tmp_path / "in" / "m.onnx"))


def test_the_extra_that_reads_onnx_models_is_named_where_it_is_missing(tmp_path, monkeypatch):
    path = graph(tmp_path / "m.onnx", [node("MatMul", "x", "w")], {"w": ROWS.numpy()})
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(StudyError, match=r"without the package onnx. pip install 'gnc-study\[onnx\]'"):
        read_classifier(path)


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE])
@pytest.mark.parametrize("is_raw", [True, False])
def test_numbers_of_an_onnx_model_are_read_in_every_float_type_and_form(tmp_path, kind, is_raw):
    values = (ROWS * 8).round().numpy()  # exact in each type
    held = onnx.helper.make_tensor("w", kind, values.shape, values.flatten())
    if is_raw:
        held = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(held), "w")
    make = node("Constant", output="w", value=held)
    found = read_classifier(graph(tmp_path / "m.onnx", [make, node("Gemm", "x", "w", transB=1)], {}))
    assert torch.equal(found.rows, torch.from_numpy(values).double())


def test_kernels_of_jax_are_turned(tmp_path):
    path = write(tmp_path / "m.safetensors", {"params.head.kernel": ROWS.T, "params.x.kernel": torch.ones(6, 6)})
    assert torch.equal(read_classifier(path).rows, ROWS.double())


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GGUF", "a GGUF file"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"{}", "JSON without a weight_map"),
        (b"epoch,loss\n", "begins as none of them"),
    ],
)
def test_kinds_that_are_not_read_are_named_with_the_cure(tmp_path, start, words):
    (tmp_path / "w.pt").write_bytes(start + b" " * 99)
    with pytest.raises(StudyError, match=re.escape(words)):
        open_arrays(str(tmp_path / "w.pt"))


def test_names_of_jax_with_strokes_are_read_as_those_with_dots(tmp_path):
    kernels = {
        "encoder/block_0/Dense_0/kernel": np.ones((6, 90)),
        "head/kernel": ROWS.numpy().T,
        "head/bias": np.ones(20),
    }
    np.savez(tmp_path / "vit.npz", **kernels)
    for name in (None, "head/kernel", "head"):
        found = read_classifier(str(tmp_path / "vit.npz"), name)
        assert torch.equal(found.rows, ROWS.double())
        assert found.bias is not None
        assert "its columns are the classes, so it is turned" in found.notes


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lm_head.weight": torch.zeros(60, 1, dtype=torch.uint8)}, "lm_head.weight (of uint8)"),
        ({"lm_head.qweight": torch.zeros(6, 20, dtype=torch.int32)}, "lm_head.qweight (of int32)"),
    ],
)
def test_an_embedding_is_no_classifier_beside_one_whose_codes_are_not_read(tmp_path, tensors, words):
    path = write(tmp_path / "m.safetensors", {"model.embed_tokens.weight": ROWS, **tensors})
    with pytest.raises(StudyError, match=re.escape(f"with {words}. Save the model with its weights dequantised")):
        read_classifier(path)
    assert torch.equal(read_classifier(path, "embed_tokens").rows, ROWS.double())


def test_the_shard_of_the_classifier_that_is_absent_is_not_replaced_by_an_embedding(tmp_path):
    save_file({"model.embed_tokens.weight": ROWS}, tmp_path / "model-00001-of-00002.safetensors")
    places = {"model.embed_tokens.weight": 1, "lm_head.weight": 2}
    index = {"weight_map": {name: f"model-0000{k}-of-00002.safetensors" for name, k in places.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(StudyError, match=r"lm_head.weight \(model-00002-of-00002.safetensors is absent\)"):
        read_classifier(str(tmp_path))


def test_an_embedding_that_stands_alone_is_said_to_be_one(tmp_path):
    path = write(tmp_path / "m.safetensors", {"model.embed_tokens.weight": ROWS})
    assert "an embedding, which is the head only where both are tied" in read_classifier(path).notes[0]


def test_a_part_of_a_distributed_checkpoint_is_refused_with_how_to_join_them(tmp_path):
    from torch.distributed import checkpoint

    state = {"head": {"weight": ROWS, "bias": ROWS[:, 0]}}
    checkpoint.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    (part,) = (tmp_path / "dcp").glob("*.distcp")
    torch.save({"fc.weight": 2 * ROWS}, tmp_path / "other.pt")
    (tmp_path / "joined.pt").write_bytes((tmp_path / "other.pt").read_bytes() * 2)  # several archives in one file
    for path in (tmp_path / "dcp", part, tmp_path / "joined.pt"):
        with pytest.raises(StudyError, match="format_utils dcp_to_torch FOLDER"):
            read_classifier(str(path))


def test_archives_of_other_frameworks_are_named(tmp_path):
    for entry, words in (("model.weights.h5", "a Keras file"), ("m/archive_format", "an exported program")):
        with zipfile.ZipFile(tmp_path / "m", "w") as archive:
            archive.writestr(entry, "")
        with pytest.raises(StudyError, match=f"which is {words}. Save the "):
            open_arrays(str(tmp_path / "m"))


def test_candidates_are_ranked_by_what_they_may_be(tmp_path):
    shapes = {"embed.weight": (99, 2), "x.weight": (50, 2), "y.weight": (60, 2), "optimizer.z": (99, 3)}
    path = write(tmp_path / "m.safetensors", {name: torch.ones(shape) for name, shape in shapes.items()})
    with pytest.raises(StudyError, match=r"first: y.weight .*, x.weight .*, embed.weight .*, optimizer.z"):
        find_head(open_arrays(path), None)
