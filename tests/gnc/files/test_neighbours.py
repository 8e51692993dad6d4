"""What stands beside a matrix in checkpoints that the real libraries wrote: layers under a head, other forms of a weight,
names, scales, biases. What the model computes with is taken, or it is refused or said."""

import json
import re

import numpy as np
import pytest
import torch
import transformers
from onnx import numpy_helper
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn.utils import parametrizations, prune

from gnc.files.classifier import Classifier, read_classifier
from gnc.files.formats import open_arrays
from study.design.errors import StudyError
from tests.gnc.files.test_classifier import ROWS, graph, node, write

SMALL = {"vocab_size": 60, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CODES = ROWS.to(torch.float8_e4m3fn)
HIDDEN = torch.ones(64, 6)


def notes(found: Classifier) -> str:
    return "; ".join(found.notes)


def saved(folder, kind: str, **config) -> tuple[str, dict[str, torch.Tensor]]:
    """The folder of a small model of Hugging Face, and its tensors."""
    settings = transformers.RobertaConfig if kind.startswith("Roberta") else transformers.BertConfig
    model = getattr(transformers, kind)(settings(**SMALL, max_position_embeddings=20, **config))
    model.save_pretrained(folder)
    return str(folder), {name: value.detach() for name, value in model.state_dict().items()}


def test_a_tied_embedding_is_the_head_of_a_language_model_and_not_the_layer_below_it(tmp_path):
    path, state = saved(tmp_path, "RobertaForMaskedLM")
    found = read_classifier(path)
    assert torch.equal(found.rows, state["lm_head.decoder.weight"].double())
    assert "since config.json ties the head to the embedding" in notes(found)
    assert "lm_head.bias may be its bias, under another name, and is left out" in notes(found)
    (tmp_path / "config.json").unlink()
    with pytest.raises(StudyError, match=r"no matrix of .* is surely the classifier"):
        read_classifier(path)


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("labels", [2, 3])
def test_the_last_layer_of_a_head_of_two_is_taken(tmp_path, labels, has_config):
    path, state = saved(tmp_path, "RobertaForSequenceClassification", num_labels=labels)
    if not has_config:
        (tmp_path / "config.json").unlink()
    found = read_classifier(path)
    assert found.name == "classifier.out_proj.weight"
    assert torch.equal(found.rows, state[found.name].double())


def test_a_model_without_a_head_has_none_and_one_logit_is_no_classifier(tmp_path):
    for kind, config in (("RobertaModel", {}), ("BertForSequenceClassification", {"num_labels": 1})):
        with pytest.raises(StudyError, match="--tensor must be given"):
            read_classifier(saved(tmp_path / kind, kind, **config)[0])


@pytest.mark.parametrize(
    ("shapes", "config", "head"),
    [
        ({"decoder.weight": (200, 12), "classifier.weight": (10, 12)}, None, "classifier.weight"),
        ({"decoder.weight": (200, 12), "classifier.weight": (10, 12)}, {"num_classes": 200}, "decoder.weight"),
        ({"decoder.weight": (200, 12), "x.weight": (300, 12)}, None, "decoder.weight"),
        ({"cls.predictions.decoder.weight": (60, 12), "classifier.weight": (10, 12)}, None, "cls.predictions.decoder.weight"),
        ({"embed.weight": (60, 12), "head.weight": (10, 12)}, {"vocab_size": 60, "tie_word_embeddings": True}, "embed.weight"),
        ({"x.weight": (60, 12), "head.weight": (10, 12)}, {"num_classes": 30}, None),
        ({"x.weight": (60, 12), "lm_head.weight": (60, 12), "head.weight": (90, 12)}, {"vocab_size": 60, "id2label": {"0": "a"}, "architectures": ["GPT2LMHeadModel"]}, "lm_head.weight"),
        ({"lm_head.dense.weight": (12, 12), "embed.weight": (60, 12)}, None, None),
    ],
)  # fmt: skip
def test_names_and_counts_tell_the_head_only_together(tmp_path, shapes, config, head):
    path = write(tmp_path / "m.safetensors", {name: torch.ones(shape) for name, shape in shapes.items()}, config)
    if head is not None:
        assert read_classifier(path).name == head
        return
    with pytest.raises(StudyError, match="--tensor must be given"):
        read_classifier(path)


def parted(weight: torch.Tensor) -> torch.Tensor:
    """A tensor that is one half of what two processes hold."""
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh

    mesh = init_device_mesh("cpu", (1,))
    return DTensor.from_local(weight, mesh, [Shard(0)], run_check=False, shape=torch.Size((40, 6)), stride=(6, 1))


@pytest.fixture
def one_process(tmp_path):
    place = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, init_method=place)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda w: w.to_sparse(), "sparse tensor"),
        (lambda w: w.to_sparse_csr(), "sparse tensor"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "qtensor"),
        (lambda w: torch.quantize_per_channel(w, torch.ones(20), torch.zeros(20), 0, torch.qint8), "qtensor"),
        (lambda w: w.to("meta"), "meta tensor"),
        (parted, "wrapper subclass"),
        (lambda w: nn.Parameter(w.to_sparse()), "sparse tensor"),
    ],
)
def test_a_head_of_a_kind_that_is_not_read_is_not_passed_over(tmp_path, make, kind, is_zip):
    path = tmp_path / "w.pt"
    torch.save({"fc.weight": make(ROWS), "body.weight": HIDDEN}, path, _use_new_zipfile_serialization=is_zip)
    assert open_arrays(str(path)).skipped == {"fc.weight": f"a {kind}, which is not read"}
    with pytest.raises(StudyError, match=rf"with fc.weight \(a {kind}, which is not read\). Save the model"):
        read_classifier(str(path))
    with pytest.raises(StudyError, match=f"must name a tensor that can be read, got 'fc.weight': a {kind}"):
        read_classifier(str(path), "fc")


def test_a_head_of_packed_parameters_is_not_passed_over(tmp_path):
    net = nn.Sequential()
    net.add_module("body", nn.Embedding(30, 4))
    net.add_module("fc", nn.Linear(4, 5))
    torch.save(torch.ao.quantization.quantize_dynamic(net, {nn.Linear}).state_dict(), tmp_path / "w.pt")
    with pytest.raises(StudyError, match=r"with fc._packed_params"):
        read_classifier(str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("name", "shape"), [("fc.weight", (1, 64)), ("heads.weight", (3, 10, 64)), ("classifier.weight", (5, 64, 3, 3))]
)
def test_a_named_head_of_another_shape_is_not_passed_over(tmp_path, name, shape):
    path = write(tmp_path / "m.safetensors", {"hidden.weight": HIDDEN, name: torch.ones(shape)})
    with pytest.raises(StudyError, match=re.escape(f"is no matrix, got {path!r} with {name} (of {shape})")):
        read_classifier(path)


@pytest.mark.parametrize("config", [{"architectures": ["LlamaForCausalLM"], "vocab_size": 20}, None])
def test_a_shard_alone_gives_a_head_by_its_name_only(tmp_path, config):
    shards = ({"model.embed_tokens.weight": ROWS, "x.weight": torch.ones(6, 6)}, {"lm_head.weight": 2 * ROWS})
    first, second = (
        write(tmp_path / f"model-0000{k}-of-00002.safetensors", t, config) for k, t in enumerate(shards, 1)
    )
    with pytest.raises(StudyError, match="is one of several shards: give "):
        read_classifier(first)
    places = {name: f"model-0000{k}-of-00002.safetensors" for k, t in enumerate(shards, 1) for name in t}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(StudyError, match=r"is one of several shards: give .*index.json"):
        read_classifier(first)
    assert torch.equal(read_classifier(first, "embed_tokens").rows, ROWS.double())
    for path in (second, str(tmp_path)):
        assert torch.equal(read_classifier(path).rows, 2 * ROWS.double())
    alone = write(tmp_path / "model-00001-of-00001.safetensors", {"w": ROWS})
    assert torch.equal(read_classifier(alone).rows, ROWS.double())


def layers(last: nn.Module) -> nn.Sequential:
    net = nn.Sequential()
    net.add_module("body", nn.Linear(5, 6))
    net.add_module("fc", last)
    return net


@pytest.mark.parametrize("is_whole", [True, False])
def test_pruned_rows_are_those_that_the_model_computes_with(tmp_path, is_whole):
    net = layers(nn.Linear(6, 20))
    prune.l1_unstructured(net.fc, "weight", amount=0.5)
    torch.save(net if is_whole else net.state_dict(), tmp_path / "w.pt")
    for name in (None, "fc", "fc.weight_orig"):
        found = read_classifier(str(tmp_path / "w.pt"), name)
        assert torch.equal(found.rows, net.fc.weight.detach().double())
        assert (found.rows == 0).sum() == 60
        is_taken = is_whole and name != "fc.weight_orig"  # a module keeps what it computed last
        assert found.name == ("fc.weight" if is_taken else "fc.weight_orig")
        assert ("it is multiplied by fc.weight_mask (20, 6)" in notes(found)) == (not is_taken)
        assert found.bias is not None


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [parametrizations.orthogonal, parametrizations.spectral_norm, nn.utils.spectral_norm],
    ids=["orthogonal", "spectral", "spectral-old"],
)
def test_other_parametrizations_are_refused_with_the_cure(tmp_path, make):
    net = layers(make(nn.Linear(6, 20)))
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for name in (None, "fc"):
        with pytest.raises(StudyError, match=r"must be stored as the model uses it, got fc.* Before saving call"):
            read_classifier(str(tmp_path / "w.pt"), name)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("shape", [(6, 20), (20, 20)])
@pytest.mark.parametrize("make", [parametrizations.weight_norm, nn.utils.weight_norm], ids=["new", "old"])
def test_a_weight_norm_of_any_dimension_is_applied(tmp_path, make, shape, dim):
    layer = nn.Linear(*shape, bias=False)
    with torch.no_grad():
        make(layer, dim=dim)
        for value in layer.parameters():
            value.mul_(2 + torch.arange(value.numel()).reshape(value.shape) / 7)
        expected = layer(torch.eye(shape[0])).T
    torch.save(layers(layer).state_dict(), tmp_path / "w.pt")
    found = read_classifier(str(tmp_path / "w.pt"), "fc")
    torch.testing.assert_close(found.rows, expected.double(), rtol=1e-5, atol=1e-5)
    assert "is scaled to the lengths in fc." in notes(found)


def test_directions_without_their_lengths_or_with_others_are_refused(tmp_path):
    path = write(tmp_path / "m.safetensors", {"fc.weight_v": ROWS, "x.weight": HIDDEN})
    with pytest.raises(StudyError, match=r"must be stored as the model uses it, got fc\.weight_v"):
        read_classifier(path)
    for shape in ((6,), (2, 1), (20, 6)):
        path = write(tmp_path / "m.safetensors", {"fc.weight_v": ROWS, "fc.weight_g": torch.ones(shape)})
        with pytest.raises(StudyError, match=r"must be stored as the model uses it, got fc\.weight_v"):
            read_classifier(path, "fc.weight_v")


@pytest.mark.parametrize("scale", ["head.scale", "head.logit_scale", "head.weight_scale"])
def test_a_scale_of_logits_is_no_scale_of_numbers_that_are_no_codes(tmp_path, scale):
    tensors = {"body.weight": HIDDEN, "head.weight": ROWS, scale: torch.tensor([16.0])}
    found = read_classifier(write(tmp_path / "m.safetensors", tensors))
    assert torch.equal(found.rows, ROWS.double())
    assert f"{scale} beside it is left out: these are no float8 codes" in notes(found)


def test_scales_of_codes_without_a_layer_are_applied_or_refused(tmp_path):
    scales = torch.linspace(1, 9, 20)
    found = read_classifier(write(tmp_path / "m.safetensors", {"weight": CODES, "weight_scale": scales}))
    assert torch.equal(found.rows, CODES.double() * scales.double()[:, None])
    for name, scale in (
        ("lm_head.weight", "lm_head_weight_scale"),
        ("model.lm_head.weight", "model.lm_head_scale_inv"),
        ("embed.weight", "weight_scale"),
        ("lm_head.weight", "lm_head.scale_weight"),
    ):
        path = write(tmp_path / "m.safetensors", {name: CODES, scale: scales})
        with pytest.raises(StudyError, match=f"the scales of {name} .* must be one array that is known, got {scale}"):
            read_classifier(path, name)
    others = {"logit_scale": torch.ones(()), "body.weight_scale": scales, "lm_head.input_scale": torch.ones(1)}
    found = read_classifier(write(tmp_path / "m.safetensors", {"lm_head.weight": CODES, **others}))
    assert torch.equal(found.rows, CODES.double())


LAST = {  # the nodes after `h`, and what they hold beside `first`
    "einsum": ([node("Einsum", "h", "w", equation="bd,dk->bk")], {"w": ROWS.numpy().T}),
    "reshape": ([node("Reshape", "flat", "shape", output="w"), node("MatMul", "h", "w")], {"flat": ROWS.numpy().ravel()}),
    "activations": ([node("MatMul", "h", "h")], {}),
    "scaled": ([node("Mul", "s", "w", output="t"), node("MatMul", "h", "t")], {"w": ROWS.numpy().T, "s": np.full((6, 1), 2, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("form", LAST)
def test_no_earlier_product_of_an_onnx_model_stands_for_a_last_one_that_is_not_known(tmp_path, form):
    nodes, weights = LAST[form]
    held = {"first": np.ones((6, 6), np.float32), **weights, "shape": np.array([6, 20])}
    path = graph(tmp_path / "m.onnx", [node("MatMul", "x", "first", output="h"), *nodes], held)
    with pytest.raises(StudyError, match="--tensor must be given where no matrix of"):
        read_classifier(path)
    if form == "scaled":
        found = read_classifier(path, "w")
        assert torch.equal(found.rows, ROWS.double())
        assert "Mul of the model before its product is left out" in notes(found)


def test_a_classifier_of_unit_rows_that_torch_exports_is_said_to_be_changed(tmp_path):
    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(ROWS.clone())

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features @ nn.functional.normalize(self.weight).T

    torch.onnx.export(Cosine(), (torch.ones(2, 6),), tmp_path / "m.onnx", dynamo=False, do_constant_folding=False)
    found = read_classifier(str(tmp_path / "m.onnx"), "weight")
    assert torch.equal(found.rows, ROWS.double())
    assert "Div of the model before its product is left out" in notes(found)


@pytest.mark.parametrize("shape", [(20,), (1, 20)])
@pytest.mark.parametrize("kind", ["Add", "Sub"])
def test_the_bias_of_an_onnx_product_has_its_sign(tmp_path, kind, shape):
    bias = np.arange(20, dtype=np.float32).reshape(shape)
    nodes = [node("MatMul", "x", "w", output="z"), node(kind, "z", "b")]
    found = read_classifier(graph(tmp_path / "m.onnx", nodes, {"w": ROWS.numpy().T, "b": bias}))
    assert found.bias is not None
    assert found.bias.tolist() == [(-k if kind == "Sub" else k) for k in range(20)]
    assert numpy_helper.from_array(bias).dims == list(shape)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"bert.embeddings.x": HIDDEN, "cls.predictions.decoder.weight": ROWS, "cls.predictions.bias": ROWS[:, 0]}, "cls.predictions.bias"),
        ({"x.weight": HIDDEN, "lm_head.weight": ROWS, "final_logits_bias": ROWS[:, :1].T}, "final_logits_bias"),
        ({"x.weight": torch.ones(20, 20), "x.bias": ROWS[:, 0], "head.weight": ROWS}, None),
        ({"x.weight": HIDDEN, "head.weight": ROWS, "other_bias": torch.ones(7)}, None),
    ],
)  # fmt: skip
def test_a_bias_under_another_name_is_said(tmp_path, tensors, told):
    found = read_classifier(write(tmp_path / "m.safetensors", tensors))
    assert found.bias is None
    assert (f"{told} may be its bias" in notes(found)) if told else ("may be its bias" not in notes(found))


def test_names_of_tensorflow_are_read_without_the_number_of_the_output(tmp_path):
    np.savez(tmp_path / "w.npz", **{"dense/kernel:0": ROWS.numpy().T, "dense/bias:0": np.arange(20.0)})
    for name in (None, "dense", "dense/kernel", "dense/kernel:0"):
        found = read_classifier(str(tmp_path / "w.npz"), name)
        assert torch.equal(found.rows, ROWS.double())
        assert found.bias is not None


def test_an_adapter_in_another_file_beside_it_is_said(tmp_path):
    path = write(tmp_path / "model.safetensors", {"lm_head.weight": ROWS, "embed.weight": HIDDEN})
    write(tmp_path / "adapter_model.safetensors", {"base_model.model.lm_head.lora_A.weight": HIDDEN})
    for given in (path, str(tmp_path)):
        assert "the adapter adapter_model.safetensors beside it is not merged into it" in notes(read_classifier(given))


def test_a_tied_name_that_safetensors_leaves_out_is_read(tmp_path):
    net = nn.Module()
    net.embed_tokens, net.mid, net.lm_head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 20, bias=False)
    net.lm_head.weight = net.embed_tokens.weight
    save_model(net, str(tmp_path / "m.safetensors"))
    for name in (None, "lm_head", "embed_tokens"):
        found = read_classifier(str(tmp_path / "m.safetensors"), name)
        assert torch.equal(found.rows, net.lm_head.weight.detach().double())
    save_file({"w": ROWS}, tmp_path / "other.safetensors", metadata={"format": "pt", "lm_head.weight": "gone"})
    assert read_classifier(str(tmp_path / "other.safetensors")).name == "w"


def test_the_intercept_of_a_probe_is_said_to_be_left_out(tmp_path):
    np.savez(tmp_path / "probe.npz", coef_=ROWS.numpy(), intercept_=ROWS[:, 0].numpy())
    assert "intercept_" in notes(read_classifier(str(tmp_path / "probe.npz")))


def test_a_file_of_joblib_is_told_from_a_torn_one(tmp_path):
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    joblib.dump({"coef_": ROWS.numpy()}, tmp_path / "lr.joblib")
    with pytest.raises(StudyError, match=r"joblib mixes arrays into the pickle\. Save it with pickle\.dump") as refused:
        read_classifier(str(tmp_path / "lr.joblib"))
    assert "torn" not in str(refused.value)
