"""Collapse in the log of a real Hugging Face Trainer, of a classifier and of a causal language model."""

import json

import pytest
import torch

import gnc
from tests.gnc.processes import in_two_processes
from tests.gnc.test_library import run_example
from tests.study.tuning.test_loggers import read_events

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'gnc-study[test-adapters]'"
)
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'gnc-study[test-adapters]'")
from gnc.adapters.transformers import CollapseCallback

TOKENS = 11
SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_trainer(model, rows, folder, **options):
    """Two epochs with a learning rate of 0, so that every batch is seen by the same network."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=0.0,
        report_to="tensorboard",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return transformers.Trainer(model, arguments, train_dataset=rows)


def train(model, rows, folder, **options):
    trainer = make_trainer(model, rows, folder)
    trainer.add_callback(CollapseCallback(trainer, **options))
    trainer.train()
    return trainer


def make_classifier():
    """A classifier without dropout, and rows for it."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=TOKENS, num_labels=3, hidden_dropout_prob=0.0, **SMALL)
    config.attention_probs_dropout_prob = 0.0
    model = transformers.BertForSequenceClassification(config)
    inputs, labels = torch.randint(TOKENS, (24, 5)), torch.arange(24) % 3
    rows = [{"input_ids": row, "labels": int(label)} for row, label in zip(inputs, labels, strict=True)]
    return model, rows, inputs, labels


def test_a_classifiers_collapse_is_in_tensorboard_and_in_the_history(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    model, rows, inputs, labels = make_classifier()
    trainer = train(model, rows, tmp_path, head="classifier")
    features = model.bert(inputs)[1]
    expected = gnc.measure(features, labels, model.classifier.weight, columns=["gnc1_rank", "minimum", "gnc3"])
    history = [told for told in trainer.state.log_history if "collapse/gnc1_rank" in told]
    events = read_events(tmp_path / "events")
    again = make_trainer(model, rows, tmp_path)
    run_example("gnc.adapters.transformers", {"trainer": again})
    assert [told["collapse/gnc3"] for told in again.state.log_history if "collapse/gnc3" in told] == [
        pytest.approx(expected["gnc3"], rel=1e-5) for _ in range(2)
    ]
    events = {tag: found[:2] for tag, found in events.items()}
    assert len(history) == 2
    for name, value in expected.items():
        assert history[-1][f"collapse/{name}"] == pytest.approx(value, rel=1e-5)
        (tag,) = [tag for tag in events if tag.endswith(f"collapse/{name}")]
        assert [point for _, point in events[tag]] == pytest.approx([value] * 2, rel=1e-5)


def test_a_causal_models_features_meet_the_next_token_at_a_tied_head(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=TOKENS, tie_word_embeddings=True, **SMALL)
    model = transformers.LlamaForCausalLM(config)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    inputs = torch.randint(TOKENS - 2, (12, 7))  # two tokens are never seen
    labels = inputs.clone()
    labels[:, :3] = -100  # a prompt
    rows = [{"input_ids": row, "labels": label} for row, label in zip(inputs, labels, strict=True)]
    trainer = train(model, rows, tmp_path, columns=None)
    features = model.model(inputs)[0][:, :-1].reshape(-1, 8)
    expected = gnc.measure(features, labels[:, 1:].reshape(-1), model.lm_head.weight)
    told = trainer.state.log_history[-2]
    assert len([name for name in told if name.startswith("collapse/")]) > 30
    for name, value in told.items():
        if name.startswith("collapse/"):
            assert value == pytest.approx(expected[name.removeprefix("collapse/")], rel=1e-4, abs=1e-6), name


TEXT = {"vocab_size": 40, "num_key_value_heads": 2, **SMALL}
IMAGES = SMALL | {"image_size": 28, "patch_size": 14}


@pytest.mark.parametrize("kind", ["Llava", "GPT2DoubleHeads", "T5"])
def test_labels_are_shifted_exactly_where_the_models_own_loss_does(kind):
    torch.manual_seed(0)
    if kind == "Llava":
        parts = {
            "text_config": transformers.LlamaConfig(**TEXT),
            "vision_config": transformers.CLIPVisionConfig(**IMAGES),
        }
        model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(image_token_id=39, **parts))
    elif kind == "T5":
        sizes = {
            "vocab_size": 40,
            "d_model": 8,
            "d_ff": 16,
            "num_layers": 1,
            "num_heads": 2,
            "d_kv": 4,
            "dropout_rate": 0.0,
        }
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(decoder_start_token_id=0, **sizes))
    else:
        config = transformers.GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2, num_labels=1)
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = config.summary_first_dropout = 0.0
        model = transformers.GPT2DoubleHeadsModel(config)
    callback, tokens = CollapseCallback(None, head="lm_head"), torch.randint(3, 30, (4, 6))
    callback.on_train_begin(None, None, None, model=model.train())
    told = model(input_ids=tokens, labels=tokens)
    callback.on_train_end(None, None, None)
    at = slice(0, None) if kind == "T5" else slice(1, None)  # the labels that meet a prediction
    logits = told.logits if kind == "T5" else told.logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, at].flatten())
    assert told.loss.item() == pytest.approx(loss.item(), rel=1e-4)
    counts = callback._meter._meter.counts
    assert torch.equal(counts, torch.bincount(tokens[:, at].flatten(), minlength=len(counts)))


def test_label_smoothing_takes_the_labels_and_a_warning_says_so(tmp_path):
    config = transformers.BertConfig(vocab_size=TOKENS, num_labels=3, **SMALL)
    model = transformers.BertForSequenceClassification(config)
    callback = CollapseCallback(None, head="classifier")
    callback.on_train_begin(None, None, None, model=model)
    model.train()(input_ids=torch.randint(TOKENS, (2, 5)))
    with pytest.warns(UserWarning, match="labels must be given to the model, got .*input_ids"):
        callback.on_epoch_end(None, None, None)
    callback.on_train_end(None, None, None)
    assert not model.classifier._forward_pre_hooks


def share(rank, folder):
    """One of the processes of DDP."""
    model, rows, _, _ = make_classifier()
    trainer = make_trainer(model, rows, folder, ddp_backend="gloo")
    trainer.add_callback(CollapseCallback(trainer, head="classifier"))
    trainer.train()
    print(json.dumps(trainer.state.log_history), flush=True)


@pytest.mark.workers
def test_two_processes_tell_what_one_does(tmp_path):
    model, _, inputs, labels = make_classifier()
    expected = gnc.measure(model.bert(inputs)[1], labels, model.classifier.weight)
    first, second = (json.loads(said.splitlines()[-1]) for said in in_two_processes(f"{__name__}:share", tmp_path))
    epochs = [told for told in first if "collapse/gnc1_rank" in told]
    assert len(epochs) == 2
    for name, value in epochs[-1].items():
        if name.startswith("collapse/"):
            assert value == pytest.approx(expected[name.removeprefix("collapse/")], rel=1e-5), name
    assert not any("collapse/gnc1_rank" in told for told in second)  # one process logs
