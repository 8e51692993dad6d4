"""Which matrix of a checkpoint is the classifier: by the name that is given, or by a guess that says its reason. Knows names,
shapes and config.json; does not know how values are stored."""

import difflib
import re
from dataclasses import replace
from typing import Any

from gnc.files.formats import beside, index_of_shard
from gnc.files.stored import Contents, StoredArray, listing, shown
from study.design.errors import StudyError

# the last named part of what frameworks call a classifier
HEADS = re.compile(
    "(linear_|cls_|class_|classification_|lm_)?heads?|fc(_out)?|classifiers?|embed_out|logits|cls|score|output(_layer)?|predictions|decoder"
    "|(last|final)_layer|class_embed|proj_out"
)
# of a head that is a module of several layers; its `dense` is no such layer, since it feeds another or a tied embedding
INSIDE = frozenset(("out_proj", "linear", "proj"))
EMBEDDING = re.compile(r"embed|(^|\.)(wte|wpe|shared|word_emb|tok_emb)|position", re.IGNORECASE)
NO_WEIGHTS = re.compile(r"(^|\.)(optimizer|optim|exp_avg|exp_avg_sq|momentum_buffer|max_exp_avg_sq)", re.IGNORECASE)
AVERAGED = re.compile(r"(^|\.|_)(ema|swa|averaged?|teacher|shadow)", re.IGNORECASE)
PREFIXES = frozenset(("module", "_orig_mod", "model", "state_dict", "model_state_dict"))
# the weight of a layer, or what it is computed from where the layer prunes or normalises it
FORMS = ("weight", "kernel", "weight_orig", "weight_v", *(f"parametrizations.weight.original{n}" for n in ("", 1)))
FORM = re.compile(rf"(?:^|(?<=[./_]))({'|'.join(map(re.escape, reversed(FORMS)))})(:0)?$")
ENDINGS = frozenset(part for form in FORMS for part in form.split("."))
PACKED = frozenset(("qweight", "weight_packed", "_packed_params"))  # of codes that are no matrix of numbers
TIED = re.compile("CausalLM|LMHead|MaskedLM|ConditionalGeneration|PreTraining")  # whose head is tied by default
HEADLESS = re.compile(r"Classification|Answering|(?<!LMHead)Model\b")  # architectures without one to tie


def find_head(contents: Contents, name: str | None) -> tuple[StoredArray, str]:
    """The matrix that is meant, and in words why it is taken.
    StudyError: no matrix, none of that name, or no certain guess; it names the candidates, the likeliest first."""
    ranked = sorted(filter(is_matrix, contents.arrays.values()), key=_rank)
    if name is not None:
        return _named(contents, ranked, name)
    if not ranked:
        held = listing(contents.arrays.values(), contents.skipped) or "no tensors"
        rule = "FILE must hold a floating-point matrix of at least 2 rows"
        raise StudyError(f"{rule}, got {contents.path!r} without one: {held}.{_elsewhere(contents)}")
    found, reason = _guess(contents, ranked)
    if found.name != contents.head and (hidden := _heads_not_read(contents)) and not _head_parts(found.name):
        rule = f"--tensor must be given where what is called a classifier is no matrix, got {contents.path!r} with "
        cure = (
            ". Save the model with its weights dequantised and dense, fetch the file that is absent, or name another."
        )
        raise StudyError(f"{rule}{', '.join(hidden[:3])}{cure}")
    return found, reason


def _heads_not_read(contents: Contents) -> list[str]:
    """What is named as a classifier's weight and is no matrix here: of codes, one logit or several heads, not read."""
    others = (found for found in contents.arrays.values() if found.shape[1:] and not is_matrix(found))
    kinds = {found.name: f"of {found.shape if found.is_float else found.dtype}" for found in others}
    weights = re.compile(rf"(?:^|\.)(?:{'|'.join(ENDINGS | PACKED)})[.\d]*$")
    named = {name: why for name, why in (kinds | contents.skipped).items() if weights.search(_dotted(name))}
    return [f"{shown(name)} ({why})" for name, why in named.items() if _head_parts(name)]


def is_matrix(found: StoredArray) -> bool:
    """Whether it may be a classifier: floating-point, at least 2 rows; a 1 x 1 convolution is one too."""
    shape = found.shape
    return found.is_float and len(shape) >= 2 and shape[0] >= 2 and shape[1] >= 1 and set(shape[2:]) <= {1}


def _named(contents: Contents, ranked: list[StoredArray], name: str) -> tuple[StoredArray, str]:
    """By the whole name, then without prefixes of wrappers, then by an ending that one name alone has."""
    everything = contents.arrays
    wanted = _bare(name)
    ends = (wanted, *(f"{wanted}.{form}" for form in FORMS))
    bare = [full for full in everything if _bare(full) in ends]
    ended = [full for full in everything if any(f".{_dotted(full)}".endswith(f".{end}") for end in ends)]
    for how, found in (("", [name] * (name in everything)), (" without prefixes", bare), (" by its end", ended)):
        matrices = [everything[full] for full in sorted(found) if is_matrix(everything[full])]
        if len({parted(one.name)[0] for one in matrices}) == 1:  # beside it may be what it was computed from
            return matrices[0], f"by its name{how}"
        if len(matrices) > 1:
            held = listing(matrices)
            raise StudyError(f"--tensor must name one tensor of {contents.path!r}, got {name!r}, the end of {held}.")
        if found:
            rule = "--tensor must name a floating-point matrix of at least 2 rows"
            raise StudyError(f"{rule}, got {everything[found[0]]}.{_scaled_hint(contents, found[0])}")
    for other, reason in contents.skipped.items():
        if other == name or _bare(other) in ends:
            raise StudyError(f"--tensor must name a tensor that can be read, got {shown(other)!r}: {reason}.")
    short = {_bare(full): full for full in reversed(everything)}
    hint = "".join(f" Did you mean {shown(short[near])!r}?" for near in difflib.get_close_matches(wanted, short, n=1))
    held = f" The matrices are, likeliest heads first: {listing(ranked) or 'none'}."
    where = f"--tensor must name a tensor of {contents.path!r}, got {name!r}."
    raise StudyError(f"{where}{hint}{held}{_elsewhere(contents)}")


def _guess(contents: Contents, ranked: list[StoredArray]) -> tuple[StoredArray, str]:
    """The matrix whose place, name or size says that it is the head; StudyError where that leaves a doubt."""
    found, reason = (ranked, "") if len(ranked) == 1 and contents.head != "" else _likeliest(contents, ranked)
    if len(found) == 1 and (_head_parts(found[0].name) or not _elsewhere(contents)):
        tied = ", an embedding, which is the head only where both are tied" * _is_embedding(found[0])
        others = [str(other) for other in ranked if other is not found[0]]
        return found[0], f"guessed {reason}; the next likeliest is {others[0]}" if others else f"the only matrix{tied}"
    advice = " An embedding is the head only where both are tied." if _is_embedding(ranked[0]) else ""
    rule = f"--tensor must be given where no matrix of {contents.path!r} is surely the classifier"
    absent = {name: why for name, why in contents.skipped.items() if why.endswith("is absent")}
    raise StudyError(f"{rule}; likeliest first: {listing(ranked, absent)}.{advice}{_elsewhere(contents)}")


def _likeliest(contents: Contents, ranked: list[StoredArray]) -> tuple[list[StoredArray], str]:
    """The matrices that may be the head, one of them if there is no doubt, and what tells it."""
    if contents.head is not None:
        return [contents.arrays[contents.head]] if contents.head else [], "as the last matrix product of the model"
    config = beside(contents.path, "config.json") or {}
    classes = _classes_of(config)
    heads = [found for found in ranked if _head_parts(found.name)]
    for tier in sorted({_rank(found)[0] for found in heads}):
        named = _last_of_numbered([found for found in heads if _rank(found)[0] == tier])
        # the width of another: a hidden layer that feeds it
        last = [f for f in named if all(rows_of(f) != sum(o.shape[:2]) - rows_of(o) for o in named if o is not f)]
        most = max(map(rows_of, last or named)) if classes is None else classes
        if sized := [found for found in named if rows_of(found) == most]:
            return sized, "by its name"
    # Hugging Face writes the setting only where it differs from the architecture's default
    kind = str(config.get("architectures", ""))
    is_tied = config.get("tie_word_embeddings", TIED.search(kind) is not None) is True and not HEADLESS.search(kind)
    if is_tied and "vocab_size" in config:
        tied = [found for found in ranked if _is_embedding(found) and rows_of(found) == classes]
        return tied, "since config.json ties the head to the embedding"
    # with a head of another count there is a doubt: perhaps config.json is of another model
    sized = [found for found in ranked if rows_of(found) == classes and not (heads or _is_embedding(found))]
    return sized, "since config.json states as many classes"


def _last_of_numbered(named: list[StoredArray]) -> list[StoredArray]:
    """Without classifier.3 where there is classifier.6: the last layer gives the logits. Each layer once."""
    last: dict[str, tuple[int, StoredArray]] = {}
    for found in named:
        layer = parted(found.name)[0]
        base = re.sub(r"[./]\d+[./]$", "", layer)
        number = int(layer[len(base) + 1 : -1] or 0)
        last[base] = max(last.get(base, (-1, found)), (number, found), key=lambda one: one[0])
    return [found for _, found in last.values()]


def _rank(found: StoredArray) -> tuple[int, int, str]:
    """Likeliest first: named heads, decoders, plain matrices, embeddings; averages after their like, optimisers last."""
    said = set(_head_parts(found.name))
    kind = 0 if said - {"decoder"} else 2 if said else 6 if _is_embedding(found) else 4
    kind += AVERAGED.search(_dotted(found.name)) is not None
    return 9 if NO_WEIGHTS.search(_dotted(found.name)) else kind, -rows_of(found), found.name


def rows_of(found: StoredArray) -> int:
    return found.shape[1] if is_by_columns(found) else found.shape[0]


def is_by_columns(found: StoredArray) -> bool:
    """Whether the classes are the columns: so ONNX's graph says, and JAX and Keras call such a matrix a kernel."""
    return found.is_transposed or _parts(found.name)[-1] == "kernel"


def _dotted(name: str) -> str:
    """The name with dots between its parts, where JAX has strokes, and without TensorFlow's number of an output."""
    return name.replace("/", ".").removesuffix(":0")


def _parts(name: str) -> list[str]:
    return _dotted(name).split(".")


def _head_parts(name: str) -> list[str]:
    """The names of classifiers among the last parts of a weight's name; none where it is no classifier's."""
    parts = [part for part in _parts(name) if part not in ENDINGS | PACKED]
    while len(parts) > 1 and parts[-1].isdigit():
        parts.pop()
    # a part inside a numbered block is no head of the network
    if not parts or any(part.isdigit() for part in parts[1:]) or NO_WEIGHTS.search(_dotted(name)):
        return []
    said = [part for part in parts[-2:] if HEADS.fullmatch(part)]
    return said if parts[-1] in INSIDE or parts[-1] in said else []


def _is_embedding(found: StoredArray) -> bool:
    return EMBEDDING.search(_dotted(found.name)) is not None


def _classes_of(config: dict[str, Any]) -> int | None:
    labels = config.get("id2label")
    known = [config.get("num_labels"), config.get("num_classes"), len(labels) if isinstance(labels, dict) else None]
    kind = str(config.get("architectures", ""))
    if "Classification" not in kind:  # a language model may state labels that it does not use
        known.insert(0 if TIED.search(kind) else 3, config.get("vocab_size"))
    return next((number for number in known if isinstance(number, int)), None)


def _bare(name: str) -> str:
    parts = _parts(name)
    while len(parts) > 1 and parts[0] in PREFIXES:
        parts = parts[1:]
    return ".".join(parts)


def _scaled_hint(contents: Contents, name: str) -> str:
    held = [other for other in contents.arrays if other != name and other.startswith(parted(name)[0])]
    scales = [other for other in held if re.search("scale|(SCB|absmax|qzeros)$", other)]
    return f" It is quantised, with {shown(scales[0])} beside it: save the model dequantised." if scales else ""


def _elsewhere(contents: Contents) -> str:
    index = index_of_shard(contents.path)
    return f" {contents.path!r} is one of several shards: give {index!r}." if index else ""


def parted(name: str) -> tuple[str, str]:
    """The name's layer and the form of its weight; the whole name and "" where it is no weight of a layer."""
    found = FORM.search(name)
    return (name[: found.start()], found[1]) if found else (name, "")


def bias_of(contents: Contents, head: StoredArray) -> StoredArray | None:
    """The bias that the format says, or that stands beside the head under the same name."""
    base = "" if len(_parts(head.name)) == 1 else parted(head.name)[0]  # the arrays of a .npz
    alone = f"{base}bias{':0' * head.name.endswith(':0')}"
    name, sign = contents.biases.get(head.name, (alone, 1))
    if (bias := contents.arrays.get(name)) is None or bias.shape not in ((rows_of(head),), (1, rows_of(head))):
        return None
    return replace(bias, load=lambda: bias.tensor().double().flatten() * sign) if bias.is_float else None


def loose_biases(contents: Contents, head: StoredArray) -> list[str]:
    """What is called a bias, has one number per class, and stands beside no weight: perhaps the head's own."""
    layers = {layer for layer, form in map(parted, contents.arrays) if form}
    shapes = ((rows_of(head),), (1, rows_of(head)))
    vectors = [name for name, found in contents.arrays.items() if found.is_float and found.shape in shapes]
    return [
        name
        for name in vectors
        if (own := re.fullmatch("(.*?)(?:bias|intercept_)(:0)?", name)) and own[1] not in layers
    ]
