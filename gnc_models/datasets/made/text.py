"""The running Python's own standard library as next-token classification: thousands of real classes, no download.
A class is a token, a sample the tokens before one of its occurrences. Classes follow the language's long tail."""

import hashlib
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.datasets.samples.draws import Draw
from gnc_models.datasets.samples.shaping import mark_contexts
from gnc_models.datasets.stored.layouts import MissingData, missing_data, standard_library

# Streams of random numbers; a stream's number never changes, or stored digests would.
_FILES, _TRAIN, _TEST = 0, 1, 2
# A word (letters, digits, underscores) or a run of one and the same other mark; white space separates.
_TOKEN = re.compile(r"\w+|([^\w\s])\1*")
_LEAST_CONTEXTS = 2  # of each class in training, so that it has a mean and a spread
_TEST_FILES = 5  # one file in so many is for testing

# Not every machine has these: tests, and what systems package separately or change.
_LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "idlelib", "lib2to3", "tkinter"}
    | {"turtle.py", "turtledemo", "ensurepip", "distutils", "venv", "pydoc_data"}
    | {"sitecustomize.py", "usercustomize.py"}
)
_GENERATED = re.compile(r"\bgenerated\b", re.IGNORECASE)  # in a file's first lines: tables, not language


@dataclass(frozen=True)
class Corpus:
    """Files as one row of token numbers `[tokens]`; file i is `ids[starts[i] : starts[i + 1]]`."""

    tokens: tuple[str, ...]
    ids: np.ndarray
    starts: np.ndarray
    source: str


@cache
def read_standard_library() -> Corpus:
    """The standard library's own modules, without tests, generated tables and what systems package separately."""
    folder = standard_library()
    # only the library's own names, so that nothing installed beside them is read or even walked through
    own = [path for path in folder.iterdir() if path.name.removesuffix(".py") in sys.stdlib_module_names]
    files = [file for path in own for file in ([path] if path.suffix == ".py" else path.rglob("*.py"))]
    names = [file.relative_to(folder) for file in files]
    return read_corpus(folder, sorted(name.as_posix() for name in names if not _LEFT_OUT & set(name.parts)))


def read_corpus(folder: Path, names: Sequence[str]) -> Corpus:
    """The tokens of these files in this order, without generated files; bytes that are not UTF-8 become one mark."""
    numbers: dict[str, int] = {}
    digest, rows = hashlib.sha256(), []
    for name in names:
        content = (folder / name).read_bytes()
        text = content.decode("utf-8", errors="replace")
        if _GENERATED.search("\n".join(text.split("\n", 5)[:5])):
            continue
        digest.update(f"{name} {len(content)};".encode() + content)
        rows.append([numbers.setdefault(match.group(), len(numbers)) for match in _TOKEN.finditer(text)])
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.array([number for row in rows for number in row], dtype=np.int64)
    version = f"Python {platform.python_version()}, {len(rows)} files, {len(ids)} tokens, sha256 {digest.hexdigest()}"
    return Corpus(tuple(numbers), ids, np.concatenate([[0], lengths.cumsum()]), version)


def make_text(wanted: Draw, *, context_length: int, corpus: Corpus | None = None) -> Dataset:
    """Contexts int64 `[samples, context_length]` of a corpus, by default the standard library, and their next tokens.
    Training contexts are from some files, test contexts from one in five. The library is the same for one Python
    version, which stands in `source`. The classes are the tokens that most often follow a whole context in the training
    files, ties by their text, so a class has the same label for any larger `num_classes`. Contexts never reach over a
    file's start. Tokens outside the classes end no context, and within contexts all become one, numbered `num_classes`.
    There are `samples_per_class` contexts to a class on average: two of each class, then the first ones of an order
    over all, so that classes are as frequent as in the files."""
    num_classes, samples_per_class, test_samples_per_class, data_seed = wanted
    if corpus is None:
        if missing := missing_data("text", None):
            raise MissingData(missing)
        corpus = read_standard_library()
    if samples_per_class < _LEAST_CONTEXTS:
        raise ValueError(f"samples_per_class must be at least {_LEAST_CONTEXTS} for text, got {samples_per_class!r}.")
    train_places, test_places = _split_places(corpus, data_seed, context_length)
    classes = _common_tokens(corpus, corpus.ids[train_places], num_classes)
    numbers = np.full(len(corpus.tokens), num_classes)
    numbers[classes] = np.arange(num_classes)
    ids = numbers[corpus.ids]

    def draw(places: np.ndarray, stream: int, samples: int, setting: str) -> np.ndarray:
        """The places whose token is a class, in an order of all places that does not depend on the classes."""
        ordered = np.random.default_rng([data_seed, stream]).permutation(places)
        found = ordered[ids[ordered] < num_classes]
        if (most := len(found) // num_classes) < samples:
            rule = f"{setting} must be at most {most} for {num_classes} classes"
            raise ValueError(f"{rule}, for the corpus has {len(found)} such contexts, got {samples!r}.")
        return found

    train = draw(train_places, _TRAIN, samples_per_class, "samples_per_class")
    test = draw(test_places, _TEST, test_samples_per_class, "test_samples_per_class")
    trained = _contexts(ids, _rare_first(ids, train, num_classes * samples_per_class), context_length)
    tested = _contexts(ids, test[: num_classes * test_samples_per_class], context_length)
    single, entropy = mark_contexts(*trained)
    names = tuple(corpus.tokens[token] for token in classes)
    known: dict[str, Any] = {"single_continuation": single, "label_entropy": entropy, "vocabulary": num_classes + 1}
    return Dataset(*trained, *tested, None, None, names, source=corpus.source, **known)


def _split_places(corpus: Corpus, data_seed: int, context_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the tokens that a whole context precedes, in the training files and in the test files."""
    lengths = np.diff(corpus.starts)
    order = np.random.default_rng([data_seed, _FILES]).permutation(len(lengths))
    is_test = np.zeros(len(lengths), dtype=bool)
    is_test[order[: -(-len(lengths) // _TEST_FILES)]] = True
    place = np.arange(len(corpus.ids))
    whole = place - np.repeat(corpus.starts[:-1], lengths) >= context_length
    of_test = np.repeat(is_test, lengths)
    return place[whole & ~of_test], place[whole & of_test]


def _common_tokens(corpus: Corpus, labels: np.ndarray, num_classes: int) -> list[int]:
    counts = np.bincount(labels, minlength=len(corpus.tokens))
    often = np.flatnonzero(counts >= _LEAST_CONTEXTS).tolist()
    if num_classes > len(often):
        what = f"the tokens that follow {_LEAST_CONTEXTS} contexts of the training files"
        raise ValueError(f"num_classes must be at most {len(often)}, {what}, got {num_classes!r}.")
    return sorted(often, key=lambda token: (-counts[token], corpus.tokens[token]))[:num_classes]


def _rare_first(ids: np.ndarray, places: np.ndarray, total: int) -> np.ndarray:
    """The first contexts of each class, then the others in their order, up to `total`."""
    by_class = np.argsort(ids[places], kind="stable")
    counts = np.bincount(ids[places])
    rank = np.empty(len(places), dtype=np.int64)
    rank[by_class] = np.arange(len(places)) - np.repeat(counts.cumsum() - counts, counts)
    return np.concatenate([places[rank < _LEAST_CONTEXTS], places[rank >= _LEAST_CONTEXTS]])[:total]


def _contexts(ids: np.ndarray, places: np.ndarray, context_length: int) -> tuple[Tensor, Tensor]:
    """Contexts and labels of these places, sorted by class."""
    places = places[np.argsort(ids[places], kind="stable")]
    return torch.from_numpy(ids[places[:, None] - np.arange(context_length, 0, -1)]), torch.from_numpy(ids[places])
