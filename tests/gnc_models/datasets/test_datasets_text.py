"""Text: the library's own source, the same in every process; which contexts are drawn, marked, and left uncertain."""

import math
import os
import platform
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from gnc_models.datasets.made import text
from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.samples.draws import Draw
from gnc_models.datasets.samples.shaping import mark_contexts

TELL = """
from gnc_models.datasets.registry import make_dataset
data = make_dataset("text", num_classes=300, samples_per_class=5, test_samples_per_class=2, data_seed=1,
                    context_length=6)
print(data.digest, data.source, sep="|")
"""


def make(corpus=None, **changed):
    settings = {"num_classes": 300, "samples_per_class": 5, "test_samples_per_class": 2, "data_seed": 1}
    settings |= {"context_length": 6} | changed
    if corpus is None:
        return make_dataset("text", **settings)
    length = settings.pop("context_length")
    return text.make_text(Draw(**settings), context_length=length, corpus=corpus)


# --- the standard library ---


def test_two_processes_read_the_same_text_and_say_which_python():
    data = make()
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TELL], capture_output=True, text=True, check=True, env=environment, timeout=200
    )
    assert done.stdout.strip() == f"{data.digest}|{data.source}"
    assert data.source.startswith(f"Python {platform.python_version()}, ")


def test_standard_library_has_thousands_of_classes_with_a_long_tail():
    data = make(num_classes=4000, samples_per_class=25)
    counts = torch.bincount(data.train_labels)
    assert len(counts) == len(data.class_names) == len(set(data.class_names)) == 4000
    assert counts.sum() == 100_000 == len(data.train_inputs)
    assert counts.min() >= 2
    assert counts.max() > 1000 * counts.min()
    assert data.train_inputs.shape == (100_000, 6)
    assert data.test_inputs.shape == (8000, 6)
    assert data.train_inputs.dtype == torch.int64
    assert data.vocabulary == 4001
    assert 0 <= data.train_inputs.min() <= data.train_inputs.max() == 4000
    assert data.train_labels.tolist() == sorted(data.train_labels.tolist())
    assert 0 < data.label_entropy < math.log(4000)
    assert 0 < data.single_continuation.float().mean() < 1
    # code is what it says: these follow one another in every Python file
    assert {"self", "def", "(", ")", ":", "import", "return"} <= set(data.class_names[:100])


def test_longer_contexts_leave_less_uncertain():
    short, long = (make(context_length=length) for length in (1, 6))
    assert short.label_entropy > long.label_entropy
    assert short.single_continuation.sum() < long.single_continuation.sum()


def test_labels_of_fewer_classes_are_those_of_more_and_fewer_contexts_lie_inside_more():
    small, more_classes, more_samples = make(), make(num_classes=500), make(samples_per_class=9)
    assert small.class_names == more_classes.class_names[:300]

    def rows(data):
        return Counter(map(tuple, torch.cat([data.train_inputs, data.train_labels[:, None]], 1).tolist()))

    assert rows(small) <= rows(more_samples)
    assert torch.equal(small.test_inputs, more_samples.test_inputs)
    assert make(data_seed=2).digest != small.digest


def test_noise_on_the_labels_is_what_marks_and_entropy_speak_of():
    plain, data = make(samples_per_class=40), make(samples_per_class=40, label_noise=0.3)
    single, entropy = mark_contexts(data.train_inputs, data.train_labels)
    assert torch.equal(data.single_continuation, single)
    assert data.label_entropy == entropy
    assert entropy > plain.label_entropy
    assert torch.equal(data.test_labels, plain.test_labels)


# --- a corpus made up here ---


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """20 files of words, where file i alone holds the word `only_i`, and what their tokens are."""
    folder, chance = tmp_path_factory.mktemp("corpus"), random.Random(0)
    names, files = [f"m{i:02}.py" for i in range(20)], []
    for i, name in enumerate(names):
        words = [chance.choice(["a", "b", "b", "c", "c", "c", "d", "=", "==", "(", f"only_{i}"]) for _ in range(150)]
        (folder / name).write_text(" ".join(words[:40]) + "\n    " + "\t".join(words[40:]) + "\n")
        files.append(words)
    return text.read_corpus(folder, names), files


def training_files(files, data_seed):
    """All but the first fifth of the seed's order."""
    order = np.random.default_rng([data_seed, 0]).permutation(len(files))
    return [file for i, file in enumerate(files) if i not in order[: math.ceil(len(files) / 5)]]


def spell(data):
    """Contexts and labels as words, `?` where the word is no class."""
    names = [*data.class_names, "?"]
    return [tuple(names[token] for token in row) for row in data.train_inputs], [
        names[label] for label in data.train_labels
    ]


def test_corpus_has_the_tokens_of_its_files(corpus):
    read, files = corpus
    assert [read.tokens[token] for token in read.ids] == [word for file in files for word in file]
    assert np.diff(read.starts).tolist() == [150] * 20


def test_tokens_are_words_and_runs_of_one_mark():
    found = [match.group() for match in text._TOKEN.finditer('x_1 **= 3.14 # näive!="""a"""\n\t...->')]
    expected = ["x_1", "**", "=", "3", ".", "14", "#", "näive", "!", "=", '"""', "a", '"""', "...", "-", ">"]
    assert found == expected


def test_generated_files_are_left_out(tmp_path):
    (tmp_path / "a.py").write_text('"""A table.\n\nGenerated by a tool."""\nx = 1\n')
    (tmp_path / "b.py").write_text("y = 2\n" * 5 + "# generated too late to count\n")
    (tmp_path / "c.py").write_bytes(b"z = '\xe9'\n")
    read = text.read_corpus(tmp_path, ["a.py", "b.py", "c.py"])
    assert "x" not in read.tokens
    assert {"y", "z", "\ufffd"} <= set(read.tokens)
    assert ", 2 files, " in read.source


def test_classes_are_the_tokens_that_most_often_follow_a_training_context(corpus):
    read, files = corpus
    for seed in range(3):
        counts = Counter(word for file in training_files(files, seed) for word in file[3:])
        expected = sorted(counts, key=lambda word: (-counts[word], word))[:12]
        data = make(read, num_classes=12, samples_per_class=3, data_seed=seed, context_length=3)
        assert list(data.class_names) == expected


def test_every_sample_is_an_occurrence_and_none_is_drawn_twice(corpus):
    read, files = corpus
    data = make(read, num_classes=12, samples_per_class=60, context_length=3)
    drawn = Counter(zip(*spell(data), strict=True))
    known = set(data.class_names)
    held = Counter(
        (tuple(word if word in known else "?" for word in file[i - 3 : i]), file[i])
        for file in training_files(files, 1)
        for i in range(3, len(file))
    )
    assert sum(drawn.values()) == 720
    assert drawn <= held


def test_all_contexts_there_are_can_be_drawn_and_not_one_more(corpus):
    read, files = corpus
    known = make(read, num_classes=8, samples_per_class=3).class_names
    most = sum(word in known for file in training_files(files, 1) for word in file[6:]) // 8
    data = make(read, num_classes=8, samples_per_class=most)
    assert len(data.train_labels) == 8 * most
    with pytest.raises(ValueError, match=rf"^samples_per_class must be at most {most} for 8 classes, .*got {most + 1}"):
        make(read, num_classes=8, samples_per_class=most + 1)
    with pytest.raises(ValueError, match=r"^test_samples_per_class must be at most \d+ for 8 classes, .*got 400"):
        make(read, num_classes=8, test_samples_per_class=400)


def test_every_class_has_two_contexts_and_the_rest_follow_their_frequency(corpus):
    read, files = corpus
    fewest = make(read, num_classes=20, samples_per_class=2, context_length=3)
    assert torch.bincount(fewest.train_labels).tolist() == [2] * 20
    data = make(read, num_classes=20, samples_per_class=50, context_length=3)
    counts = torch.bincount(data.train_labels).numpy()
    assert counts.min() >= 2
    held = Counter(word for file in training_files(files, 1) for word in file[3:])
    held = np.array([held[name] for name in data.class_names])
    expected = 2 + (held - 2) * (1000 - 40) / (held - 2).sum()
    # about half of all is drawn: a count's standard deviation is at most half the root of its mean... of 300: 9
    assert np.abs(counts - expected).max() < 5 * 9


def test_words_of_one_file_are_never_in_training_and_test(corpus):
    read, _ = corpus
    for seed in range(3):
        data = make(read, num_classes=22, samples_per_class=20, data_seed=seed, context_length=4)
        own = torch.tensor([k for k, name in enumerate(data.class_names) if name.startswith("only_")])
        assert len(own) == 15  # of the 16 training files, beside the 7 words of all
        assert torch.isin(data.train_inputs, own).any()
        assert not torch.isin(data.test_inputs, own).any()
        assert not torch.isin(data.test_labels, own).any()


def ref_marks(contexts, labels):
    follow = {}
    for context, label in zip(contexts, labels, strict=True):
        follow.setdefault(context, Counter())[label] += 1
    entropy = 0.0
    for counts in follow.values():
        total = sum(counts.values())
        entropy -= sum(n / len(labels) * math.log(n / total) for n in counts.values())
    return [len(follow[context]) == 1 for context in contexts], entropy


@pytest.mark.parametrize("context_length", [1, 2, 3])
def test_marks_and_entropy_agree_with_counting(corpus, context_length):
    data = make(corpus[0], num_classes=12, samples_per_class=60, context_length=context_length)
    marks, entropy = ref_marks(*spell(data))
    assert data.single_continuation.tolist() == marks
    assert data.label_entropy == pytest.approx(entropy, rel=1e-12)
    assert (0 < sum(marks) < len(marks)) == (context_length > 1)


def test_entropy_written_out():
    contexts = torch.tensor([[1, 2], [1, 2], [1, 2], [1, 2], [2, 1], [2, 1]])
    single, entropy = mark_contexts(contexts, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert single.tolist() == [False] * 4 + [True] * 2
    assert entropy == pytest.approx(4 / 6 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4)))
    _, entropy = mark_contexts(contexts, torch.tensor([3, 3, 3, 3, 1, 1]))
    assert (entropy, math.copysign(1, entropy)) == (0, 1)


def test_numbers_out_of_range_are_refused(corpus):
    with pytest.raises(ValueError, match="samples_per_class must be at least 2 for text, got 1"):
        make(corpus[0], samples_per_class=1)
    with pytest.raises(
        ValueError, match=r"num_classes must be at most 23, the tokens that follow 2 contexts .*got 300"
    ):
        make(corpus[0])


def test_library_without_its_source_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match=f"text needs the standard library's source in {tmp_path}"):
        make()
    assert not list(Path(tmp_path).iterdir())
