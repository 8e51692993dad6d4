"""The classifier of a checkpoint: its rows as the model uses them, its bias, and what was assumed. What stands beside a matrix
counts: scales of float8 codes and weight norms are applied, or the matrix is refused."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gnc.files.formats import beside, index_of_shard, open_arrays
from gnc.files.heads import bias_of, find_head, is_by_columns, loose_biases, parted
from gnc.files.stored import Contents, StoredArray, shown
from gnc_models.shapes import Float
from study.design.errors import StudyError

SCALES = ("_scale_inv", "_scale")  # after the name of the weight; both multiply the codes
BLOCK = 128  # rows and columns of a block where config.json does not say it
OTHER_SCALES = ("scale", "zero_point", "qzeros", "absmax", "SCB", "quant_state")


@dataclass(frozen=True)
class Classifier:
    """Rows of a classifier, one per class, in float64, and what is known about them.
    name, file: the tensor that was taken and where it lies. bias: of the same layer; it is no part of the rows. notes:
    what was assumed, in sentences without a full stop."""

    rows: Float[Tensor, "classes dim"]
    name: str
    file: str
    bias: Float[Tensor, " classes"] | None
    notes: tuple[str, ...]


def read_classifier(path: str, name: str | None = None) -> Classifier:
    """The classifier in a checkpoint, an index of shards or a folder.
    path: any file or folder that `open_arrays` opens. name: of the tensor, perhaps without its first parts; None to
    have it guessed. StudyError: what cannot be read, named or guessed, and codes whose scales are not known."""
    contents = open_arrays(path)
    head, reason = find_head(contents, name)
    stored = head.tensor()
    stored = stored.reshape(stored.shape[:2])  # a 1 x 1 convolution
    rows, notes = _as_used(contents, head, stored)
    if is_by_columns(head):
        rows, notes = rows.T.contiguous(), [*notes, "its columns are the classes, so it is turned"]
    bias = bias_of(contents, head)
    if bias is None and (loose := loose_biases(contents, head)):
        notes.append(f"{', '.join(map(shown, loose[:3]))} may be its bias, under another name, and is left out")
    base, file = parted(head.name)[0].removesuffix("base_layer."), Path(head.file)
    adapters = [n for n in contents.arrays if n.startswith(base) and ".lora_" in f".{n.removeprefix(base)}"]
    if adapters := adapters + [place.name for place in file.parent.glob("adapter_model.*") if place != file]:
        notes.append(f"the adapter {shown(adapters[0])} beside it is not merged into it")
    said = [f"{head} of {head.file}, {reason}", contents.changed.get(head.name, ""), *notes, *contents.notes]
    return Classifier(rows, head.name, head.file, None if bias is None else bias.tensor(), tuple(filter(None, said)))


def _as_used(contents: Contents, head: StoredArray, stored: Tensor) -> tuple[Tensor, list[str]]:
    """Float64 rows with the scales and norms that stand beside them."""
    if parted(head.name)[1] not in ("", "weight", "kernel"):
        return _as_computed(contents, head, stored.double())
    is_codes = head.dtype.startswith("float8")
    beside_it = _scale_names(contents, head.name, others=is_codes)
    if not is_codes:
        return stored.double(), [f"{shown(n)} beside it is left out: these are no float8 codes" for n in beside_it[:1]]
    if not beside_it and (index := index_of_shard(contents.path)):
        rule = f"the scales of {head} must be known, got one shard of several"
        raise StudyError(f"{rule}, and the scales may lie in another. Give {index!r}.")
    if not beside_it:
        return stored.double(), [f"{head.dtype} without scales beside it: the codes are taken as they are"]
    scale = next((contents.arrays[n] for n in beside_it if n in (head.name + end for end in SCALES)), None)
    if scale is None or len(beside_it) > 1 or not scale.is_float:
        rule = f"the scales of {head} must be one array that is known, got {', '.join(map(shown, beside_it))}"
        raise StudyError(f"{rule}. Save the model with its weights dequantised.")
    return _scaled(contents, head, stored.double(), scale), [f"codes of {head.dtype} are multiplied by {scale}"]


def _scaled(contents: Contents, head: StoredArray, codes: Tensor, scale: StoredArray) -> Tensor:
    factors = scale.tensor().double()
    rows, columns = codes.shape
    if factors.numel() == 1:
        return codes * factors.reshape(())
    if factors.shape in ((rows,), (rows, 1)):
        return codes * factors.reshape(rows, 1)
    block = _block(contents, (rows, columns), tuple(factors.shape))
    if block is None:
        rule = f"the blocks of {scale} must be known for {head}, got neither rows nor blocks of {BLOCK}"
        cure = "Give weight_block_size in config.json beside the file, or save the weights dequantised."
        raise StudyError(f"{rule}. {cure}")
    return codes * factors.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]


def _block(contents: Contents, shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of a block: those that config.json states, else the usual ones, if the scales are as many."""
    if len(scales) != 2:
        return None
    stated = (beside(contents.path, "config.json") or {}).get("quantization_config")
    stated = stated.get("weight_block_size") if isinstance(stated, dict) else None
    tried = [tuple(stated)] if isinstance(stated, list) and len(stated) == 2 else [(BLOCK, BLOCK)]
    if stated is None and scales[0] == shape[0] and shape[1] % scales[1] == 0:
        tried.append((1, shape[1] // scales[1]))  # groups within a row
    possible = [block for block in tried if all(type(n) is int and n > 0 for n in block)]
    return next((b for b in possible if tuple(-(-n // part) for n, part in zip(shape, b, strict=True)) == scales), None)


def _as_computed(contents: Contents, head: StoredArray, stored: Tensor) -> tuple[Tensor, list[str]]:
    """The rows that the model computes from what it stores: pruned, or directions times lengths; StudyError for others."""
    layer, form = parted(head.name)
    arrays, known = contents.arrays, ("original0", "original1")
    lengths = form.replace("weight_v", "weight_g").replace("original1", "original0")
    mask, length = arrays.get(f"{layer}weight_mask"), arrays.get(layer + lengths)
    if form == "weight_orig" and mask is not None and mask.shape == head.shape:
        return stored * mask.tensor().double().reshape(stored.shape), [f"it is multiplied by {mask}"]
    shape = (*(length or head).shape, 1, 1)[:2]
    is_norm = lengths != form and shape in ((1, 1), (len(stored), 1), (1, stored.shape[1]))
    steps = [n for n in arrays if n.startswith(f"{layer}parametrizations.weight.") and not n.endswith(known)]
    if length is None or not is_norm or steps:
        rule = f"the weight must be stored as the model uses it, got {head}, from which the model computes it"
        cure = "torch.nn.utils.parametrize.remove_parametrizations (of older layers remove_spectral_norm)"
        raise StudyError(f"{rule}. Before saving call {cure}.")
    norms = stored.norm(dim=[axis for axis in (0, 1) if shape[axis] == 1], keepdim=True)
    rows = stored / norms * length.tensor().double().reshape(shape)
    return rows, [f"it is scaled to the lengths in {shown(length.name)}"]


def _scale_names(contents: Contents, name: str, *, others: bool) -> list[str]:
    """Arrays that by their names scale the weight of this layer, not its inputs and outputs, also those that cannot be
    read. If there are none, with `others`, those of the layers around it, as model.lm_head_weight_scale."""
    layer = parted(name)[0]
    held = [n for n in (*contents.arrays, *contents.skipped) if n != name and any(word in n for word in OTHER_SCALES)]
    held = [n for n in held if not n.rpartition(".")[2].startswith(("input", "output", "activation", "act_"))]
    ours = [n for n in held if n.startswith(layer) and "." not in n.removeprefix(layer).removeprefix("weight.")]
    return ours or [n for n in held if others and "logit" not in n and name.startswith(n[: n.rfind(".") + 1])]
