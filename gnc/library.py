"""Margins and collapse of arrays in memory, for scripts and notebooks: what `gnc` gives at the command line, as functions.
Knows torch and the mathematics; does not know studies, files or the command line."""

import math
import warnings
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gnc_models.catalog.settings import LARGEST_FEATURE, check_at_least, check_between, check_integer, check_kind
from gnc_models.codes.phases import unconstrained_optimum as known_optimum
from gnc_models.columns import MADE_FROM, facts_needed
from gnc_models.geometry.margins import Margins, Progress, margins_of_directions, one_vs_rest_margins
from gnc_models.metrics.collapse import Collapse, Normalization, measure_collapse
from gnc_models.progress import amount
from gnc_models.references.tables import UnconstrainedOptimum

ArrayLike: TypeAlias = Any  # a torch tensor, a NumPy array, or what numpy.asarray takes


class Measured(dict[str, float | None]):
    """The value of each column by its name, with what was found on the way.

    Attributes:
        notes: sentences on what the values are not, for a reader of the log.
        collapse: margins of every class, class means and what the next measurement can begin from."""

    def __init__(self, collapse: Collapse, notes: Collection[str] = ()) -> None:
        super().__init__(collapse.values)
        self.collapse, self.notes = collapse, list(notes)

    def __missing__(self, name: str) -> float | None:
        from study.design.errors import nearest  # pydantic is for those who study and those who misspell

        raise KeyError(f"column must be one that was measured, got {name!r}. {nearest(name, self)}")


def margins(
    weights: ArrayLike, *, normalize: bool = True, mode: Literal["all", "min"] = "all", tolerance: float = 1e-6,
    warm_start: Margins | None = None, progress: Progress | None = None,
) -> Margins:  # fmt: skip
    """Distance from each classifier row to the convex hull of all the others, as a certified interval.

    Args:
        weights: [classes, dim], one row per class; an array or a tensor of any float type, computed on its device.
        normalize: scale the rows to unit length first; False: the rows as they are, distances in their unit.
        mode: "all" certifies every class; "min" only the smallest margin, which is faster.
        tolerance: relative gap of the bounds; no unit.
        warm_start: what was found for similar rows of the same classes, such as those of the epoch before.
        progress: called after each batch of classes with how many are certified, how many there are, and the interval
            of the smallest margin so far. Where it returns True the search ends; the bounds hold at any time.
    Returns:
        `lower` and `upper`, float64 [classes], `minimum`: the interval of the smallest, and the rows that decide each.
    Raises:
        ValueError: not a matrix of at least 2 rows, a value that is not finite, or a row of zeros to be normalised.
    Source: Jiang et al., arXiv 2310.05351; how it is certified is in docs/margins.md."""
    check_kind("normalize", normalize, bool, "True or False")
    rows = as_floats("weights", weights)
    find = margins_of_directions if normalize else one_vs_rest_margins
    return find(rows, tolerance=tolerance, mode=mode, warm_start=warm_start, progress=progress)


@torch.no_grad()
def measure(
    features: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, bias: ArrayLike | None = None,
    normalization: Normalization = "none", temperature: float | None = None, columns: Collection[str] | None = None,
    test_features: ArrayLike | None = None, test_labels: ArrayLike | None = None, ood_features: ArrayLike | None = None,
    ignore_index: int = -100, tolerance: float = 1e-6,
) -> Measured:  # fmt: skip
    """Every measure of collapse, or those asked for, from features, labels and the classifier.

    Args:
        features: [samples, dim]: what enters the classifier, before any normalization; any float type and device.
        labels: [samples]: integers in 0..classes-1; samples labelled `ignore_index` are left out, of a test set too.
        weights: [classes, dim], the classifier's rows on the same device as the features. None where there are none:
            columns about rows are then left out, which `notes` says, and the classes are those up to the largest label.
        bias: [classes]: it enters the logits. Margins are of the rows without it, and `notes` says so.
        normalization: what the head scales to unit length before the logits: "none" for a plain linear layer, "both"
            for a cosine head, "features" or "weights".
        temperature: what the logits are divided by; None with normalization "none", and only there.
        columns: names of columns or groups (docs/library.md); only what they need is computed, and `notes` names the
            arrays that none of them reads. None for all.
        test_features, test_labels: for the accuracy of the nearest class mean; together or not at all.
        ood_features: features of samples that belong to no class.
        tolerance: relative gap of the certified margins.
    Returns:
        Values by column (docs/rows.md); None where a quantity does not exist. Classes without samples are left out of
        what is measured at class means; their rows enter the margins.
    Raises:
        ValueError: what cannot be measured, with the rule and the value.
    Source: docs/metrics.md names the paper of each formula."""
    check_integer("ignore_index", ignore_index)
    found, classes = _labelled("", features, labels, ignore_index)
    dim = found.shape[-1] if found.ndim == 2 else None
    largest = int(classes.max()) if weights is None and classes.numel() else 0
    if largest >= max(len(found), MOST_MEANS // max(1, dim or 1)):
        cure = "Number the classes: numpy.unique(labels, return_inverse=True)[1]."
        raise ValueError(f"labels must be class numbers from 0 on, got {largest} of {len(found)} samples. {cure}")
    test: tuple[Tensor | None, Tensor | None] = (None, None)
    if test_features is not None and test_labels is not None:
        test = _labelled("test_", test_features, test_labels, ignore_index)
    elif test_features is not None or test_labels is not None:
        raise ValueError("test_features and test_labels must be given together or not at all, got one of them.")
    rows = None if weights is None else as_rows(weights, dim)
    asked: dict[str, Any] = {"normalization": normalization, "temperature": temperature, "columns": columns}
    asked |= {"test_features": test[0], "test_labels": test[1], "tolerance": tolerance}
    for name, values in (("bias", bias), ("ood_features", ood_features)):
        asked[name] = None if values is None else as_floats(name, values)
    collapse = measure_collapse(found, classes, rows, **asked, absent_classes=True)
    given = {"weights": weights, "bias": bias, "test_features": test_features, "ood_features": ood_features}
    unknown = 0 if test[1] is None else int((~torch.isin(test[1], classes)).sum())
    notes = notes_on(collapse.values, torch.bincount(classes), given, unknown)
    facts = facts_needed(() if columns is None else collapse.values)
    if lacking := [
        name for name in ("test_features", "ood_features") if given[name] is None and READ_BY[name] in facts
    ]:
        notes.append(f"Columns that need {' or '.join(lacking)} are None, since it was not given.")
    return Measured(collapse, notes)


def _labelled(kind: str, features: ArrayLike, labels: ArrayLike, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Features and labels on one device, without the samples to ignore."""
    found, classes = as_floats(f"{kind}features", features), as_labels(f"{kind}labels", labels)
    kept = classes != ignore_index
    if classes.shape == found.shape[:1] and not bool(kept.all()):
        if not bool(kept.any()):
            raise ValueError(f"{kind}labels must be of some class, got ignore_index, {ignore_index}, for each sample.")
        found, classes = found[kept.to(found.device)], classes[kept]
    return found, classes.to(found.device)


MOST_MEANS = 1 << 26  # numbers in the class means of labels that no rows vouch for: 512 MiB, unless samples are as many
OF_BIAS = "Margins are of the classifier's rows without the bias; the bias enters the logits only."
READS_LOW = "within-class variability reads low"
READ_BY = {"bias": "bias", "test_features": "test", "ood_features": "ood_features"}  # the fact that each becomes


def notes_on(names: Collection[str], counts: Tensor, given: Mapping[str, ArrayLike], unknown: int = 0) -> list[str]:
    """What a reader of these columns must know of the classes' counts, of the arrays that were given, and of how many test
    samples are of unknown classes."""
    facts, singles = facts_needed(names), int((counts == 1).sum())
    reads_rows = any(MADE_FROM.get(fact) == "rows" for fact in facts)
    unread = [name for name, fact in {"weights": "", **READ_BY}.items() if given.get(name) is not None]
    unread = [name for name in unread if not (reads_rows if name == "weights" else READ_BY[name] in facts)]
    single = amount(singles, "class", "classes")
    notes = (
        (given["weights"] is None, "No classifier rows were given, so there are no columns about rows."),
        (given["bias"] is not None and "bias" not in unread, OF_BIAS),
        (bool(unread), f"No column here depends on {' and '.join(unread)}, which changed nothing."),
        (singles > 0, f"{single} of one sample each, whose variability is not known: {READS_LOW}."),
        ("test" in facts and unknown > 0, f"{amount(unknown, 'test sample')} of classes that training lacks left out."),
    )
    return [note for holds, note in notes if holds]


def unconstrained_optimum(
    num_classes: int, feature_dim: int, *, temperature: float, starts: int = 12, seed: int = 0
) -> UnconstrainedOptimum:
    """The optimum of features that can move freely, at this temperature: what a network that fits everything reaches.

    Args:
        num_classes, feature_dim: K and d, at least 2. temperature: tau, above 0.
        starts: of the search, where the optimum is not tabulated: seconds to minutes.
        seed: of the starts.
    Returns:
        The lowest loss found in nats, the margin of its unit rows, the margin's range over minima near it, and where
        they come from: "closed form", "table", "phases" or "search". A search bounds the loss from above, not the margin.
    Raises:
        ValueError: a size or temperature out of range.
    Source: Jiang et al., arXiv 2310.05351 (the model at finite temperature)."""
    check_at_least(2, num_classes=num_classes, feature_dim=feature_dim)
    check_between("temperature", temperature, 0.0, math.inf)
    known = known_optimum(num_classes, feature_dim, temperature)
    if known is not None:
        return known
    from gnc_models.codes.unconstrained_features import optimise_unconstrained

    found = optimise_unconstrained(num_classes, feature_dim, temperature, starts=starts, seed=seed)
    margins = (found.margin, found.margin_low, found.margin_high)
    return UnconstrainedOptimum(found.loss, *margins, starts=starts, source="search")


def as_floats(name: str, values: ArrayLike) -> Tensor:
    """A tensor that shares memory with `values` where it can; ValueError unless it is of a type that is computed with."""
    tensor = _as_tensor(name, values)
    if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        rule = f"{name} must be floating-point numbers of 2 bytes or more, got {tensor.dtype}"
        raise ValueError(f"{rule}. Convert them first; multiply codes by their scales.")
    if tensor.dtype == torch.float64 and tensor.numel():
        largest = max(-float(tensor.min()), float(tensor.max()))
        rule = f"{name} must be at most {LARGEST_FEATURE:g} in size, got {largest:g}"
        if LARGEST_FEATURE < largest < math.inf:
            raise ValueError(f"{rule}, whose squares no float holds. Multiply all by one number.")
    return tensor


def as_rows(weights: ArrayLike, dim: int | None) -> Tensor:
    """Classifier rows as wide as the features, where their width is known; ValueError says where they look transposed."""
    rows = as_floats("weights", weights)
    if dim is not None and rows.ndim == 2 and rows.shape[1] != dim:
        turned = " They look transposed: give weights.T." if len(rows) == dim else ""
        raise ValueError(f"weights must be [classes, {dim}] as the features are, got {tuple(rows.shape)}.{turned}")
    return rows


def as_labels(name: str, values: ArrayLike) -> Tensor:
    """Labels as int64; ValueError for floating-point or boolean ones, of which one cannot say what class they mean."""
    tensor = _as_tensor(name, values)
    is_other = tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
    if is_other or (tensor.dtype == torch.uint64 and bool((tensor.to(torch.int64) < 0).any())):
        raise ValueError(f"{name} must be integers below 2^63, one per sample, got {tensor.dtype}. Give class numbers.")
    return tensor.to(torch.int64)


def _as_tensor(name: str, values: ArrayLike) -> Tensor:
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_meta or values.is_nested:
            kind = "nested tensors" if values.is_nested else values.device if values.is_meta else values.layout
            raise ValueError(f"{name} must be a dense tensor with values, got one of {kind}. Use to_dense() first.")
        return values.detach()
    if isinstance(values, np.ma.MaskedArray) and values.mask.any():
        raise ValueError(f"{name} must have no masked values, got {values.mask.sum()}. Leave these samples out.")
    try:
        array = np.asarray(values)
    except ValueError:
        rule = f"{name} must be one tensor or array of numbers, got a list whose entries differ in shape"
        raise ValueError(f"{rule}. Join batches first: torch.cat(batches).") from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise ValueError(f"{name} must be a tensor or an array of numbers, got {array.dtype} of {type(values)}.")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing here writes
        return torch.from_numpy(np.ascontiguousarray(array))
