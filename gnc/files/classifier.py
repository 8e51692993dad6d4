"""The classifier of a checkpoint: its rows as the model uses them, its bias, and what was assumed. What stands beside a matrix
counts: scales of float8 codes and weight norms are applied, or the matrix is refused."""

from dataclasses import dataclass

from torch import Tensor

from gnc.files.formats import beside, index_of_shard, open_arrays
from gnc.files.heads import bias_of, find_head, is_by_columns
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
    base = head.name.removesuffix("weight").removesuffix("base_layer.")
    if adapter := [n for n in contents.arrays if n.startswith(base) and ".lora_" in f".{n.removeprefix(base)}"]:
        notes.append(f"the adapter {shown(adapter[0])} beside it is not merged into it")
    notes = [f"{head} of {head.file}, {reason}", *notes, *contents.notes]
    return Classifier(rows, head.name, head.file, None if bias is None else bias.tensor().double(), tuple(notes))


def _as_used(contents: Contents, head: StoredArray, stored: Tensor) -> tuple[Tensor, list[str]]:
    """Float64 rows with the scales and norms that stand beside them."""
    if length := _weight_norm(contents, head):
        lengths = length.tensor().double().reshape(-1)
        if len(lengths) not in (1, len(stored)):
            raise StudyError(f"{shown(length.name)} must be one length per row of {head}, got {length.shape}.")
        directions = stored.double()
        rows = directions / directions.norm(dim=1, keepdim=True) * lengths.unsqueeze(1)
        return rows, [f"rows are scaled to the lengths in {shown(length.name)}"]
    beside_it = _scale_names(contents, head.name)
    if not beside_it:
        if head.dtype.startswith("float8"):
            if index := index_of_shard(contents.path):
                rule = f"the scales of {head} must be known, got one shard of several"
                raise StudyError(f"{rule}, and the scales may lie in another. Give {index!r}.")
            return stored.double(), [f"{head.dtype} without scales beside it: the codes are taken as they are"]
        return stored.double(), []
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
    fits = [b for b in possible if tuple(-(-size // part) for size, part in zip(shape, b, strict=True)) == scales]
    return fits[0] if fits else None


def _weight_norm(contents: Contents, head: StoredArray) -> StoredArray | None:
    """The lengths that torch's weight_norm keeps apart from the directions, in its older and newer form."""
    for direction, length in (("weight_v", "weight_g"), ("weight.original1", "weight.original0")):
        if head.name.endswith(direction):
            return contents.arrays.get(head.name.removesuffix(direction) + length)
    return None


def _scale_names(contents: Contents, name: str) -> list[str]:
    """Arrays of the same layer whose names say that they scale its weight, also those that cannot be read."""
    layer = name.removesuffix("weight")
    held = [other for other in (*contents.arrays, *contents.skipped) if other != name]
    ours = [other.removeprefix(layer) for other in held if layer.endswith(".") and other.startswith(layer)]
    ours = [rest for rest in ours if "." not in rest.removeprefix("weight.") and any(w in rest for w in OTHER_SCALES)]
    # what scales the layer's inputs and outputs has no part in its weight
    return [layer + rest for rest in ours if not rest.startswith(("input", "output", "activation", "act_"))]
