"""`gnc measure`: collapse metrics of features in a file, or the geometry of the heads kept in a results folder. PyTorch
takes seconds to load, so what needs it is imported inside the functions that compute."""

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnc.cli.geometry_commands import measure_heads
from gnc.cli.output import fact_lines, note_lines, show
from gnc_models.catalog.settings import LARGEST_FEATURE
from gnc_models.progress import amount, under_way
from study.design.errors import StudyError, require

if TYPE_CHECKING:
    from torch import Tensor

    from gnc.files.stored import StoredArray

LARGEST_SET = 1 << 29  # numbers of features that are taken into memory at once: 4 GiB in float64
OF_FEATURES = ("labels", "weights", "tensor", "relabel", "normalization", "temperature", "stream")
UNIT_TOLERANCE = 2e-3  # of a length: float16 and bfloat16 round each coordinate by as much as 1/256


def command_measure(options: argparse.Namespace) -> int:
    """Measure the collapse of features in a file, or the classifiers kept in a results folder."""
    place = Path(options.source)
    if place.is_file() or (place / "features.npy").is_file():
        facts, notes = _measure_file(options)
        show(options, facts | {"notes": notes}, [*fact_lines(facts), *note_lines(notes)])
        return 0
    ignored = [name for name in OF_FEATURES if getattr(options, name)]
    require(not ignored, f"--{(*ignored, '')[0]} must come with features, got the results folder {options.source!r}.")
    heads = measure_heads(options.source)
    show(options, heads, ["\n\n".join("\n".join(fact_lines(one)) for one in heads)])
    return 0


def _measure_file(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from gnc.files.features import class_labels, open_features

    given = options.temperature
    is_possible = given is None or 0 < given < math.inf
    require(is_possible, f"--temperature must be greater than 0 and finite, got {given!r}.")
    require(options.weights or not options.tensor, "--tensor must come with --weights, got it alone.")
    arrays, notes = open_features(options.source, options.labels)
    _check_shapes(options.source, arrays, notes)
    labels, classes = class_labels(arrays["labels"], relabel=options.relabel)
    weights, bias = _head(options, arrays, notes)
    num_classes = int(labels.max()) + 1 if weights is None else len(weights)
    if classes is not None:
        shown = ", ".join(map(str, classes[:3].tolist())) + (", ..." if len(classes) > 3 else "")
        notes.append(f"classes are numbered in the order of their {len(classes)} labels: {shown}")
        rule = f"weights must have one row for each of the {len(classes)} labels with --relabel, got {num_classes}."
        require(num_classes == len(classes), f"{rule} Without it, row k belongs to the label k.")
    _check_labels(labels, num_classes, notes, has_weights=weights is not None)
    is_streamed = options.stream or math.prod(arrays["features"].shape) > LARGEST_SET
    test = {} if is_streamed else _test_set(arrays, classes, num_classes)
    normalization, temperature = _normalization(options, arrays["features"], weights, notes)
    counted, singles = _counted(labels, num_classes, test.get("test_labels"), notes)
    head = {"weights": weights, "bias": bias, "normalization": normalization, "temperature": temperature}
    if is_streamed and given is not None and normalization == "both":
        notes.append("the temperature enters no column of a set that is read in batches, of a head that scales both")
    if bias is not None:
        entered = "no column of a set that is read in batches" if is_streamed else "ncc_agreement and active_classes"
        notes.append(f"the bias enters {entered}; margins are of the rows without it")
    measure = _streamed if is_streamed else _measured
    if is_streamed:
        notes.append("the set is read in batches: columns of single samples and of a test set cannot be had")
    try:
        values = measure(arrays["features"], labels, counted, num_classes, head, test)
    except ValueError as error:
        raise StudyError(str(error)) from None
    sizes = {"num_classes": num_classes, "feature_dim": arrays["features"].shape[1]}
    assumed = {"normalization": normalization, "temperature": temperature, "single_sample_classes": singles}
    return {**sizes, **assumed, **values}, notes


def _measured(
    stored: "StoredArray", labels: "Tensor", counted: "Tensor | None", _: int, head: dict[str, Any],
    test: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Every column, from all samples in memory."""
    from gnc_models.metrics.collapse import measure_collapse

    features = stored.tensor()
    _check_size("features", features)
    return dict(measure_collapse(features, labels, counted=counted, absent_classes=True, **head, **test).values)


def _streamed(
    stored: "StoredArray", labels: "Tensor", counted: "Tensor | None", num_classes: int, head: dict[str, Any], _: Any
) -> dict[str, Any]:
    """The columns that statistics of the classes tell, from one pass over batches."""
    from gnc.files.features import in_batches
    from gnc.meter import CollapseMeter

    settings = {name: head[name] for name in ("normalization", "temperature")}
    meter = CollapseMeter(num_classes, stored.shape[1], **settings)
    with under_way("samples", stored.shape[0]) as loop:
        for batch in in_batches(stored):
            _check_size("features", batch)
            taken = slice(loop.done, loop.done + len(batch))
            enters = slice(None) if counted is None else counted[taken]
            meter.update(batch[enters], labels[taken][enters])
            loop.done += len(batch)
    values = dict(meter.compute(head["weights"], head["bias"]))
    # the meter has not seen the classes of one sample, so what compares rows by their classes' counts is not known
    unknown = [name for name in values if counted is not None and re.search("_rare_|_frequent_|_count_", name)]
    return values | dict.fromkeys(unknown)


def _head(
    options: argparse.Namespace, arrays: "dict[str, StoredArray]", notes: list[str]
) -> "tuple[Tensor | None, Tensor | None]":
    """Rows and bias from the features' file or from the checkpoint; margins are of the rows alone."""
    weights, bias = (arrays[name].tensor() if name in arrays else None for name in ("weights", "bias"))
    if options.weights:
        from gnc.files.classifier import read_classifier

        require(weights is None, f"--weights must not come with an array weights, got both in {options.source!r}.")
        found = read_classifier(options.weights, options.tensor)
        rule = f"bias must be given once, got it in {options.source!r} and in {options.weights!r}."
        require(bias is None or found.bias is None, rule)
        weights, bias = found.rows, found.bias if bias is None else bias
        notes.extend(found.notes)
    dim = arrays["features"].shape[1]
    if weights is None:
        require(bias is None, "bias must come with weights, got it alone. Add the classifier's weights.")
        notes.append("no classifier rows were given, so there are no columns about rows")
        return None, None
    turned = " They look transposed: save weights.T." * (weights.ndim == 2 and len(weights) == dim)
    rule = f"weights must be [classes, {dim}] as the features are, got {tuple(weights.shape)}.{turned}"
    require(weights.ndim == 2 and weights.shape[1] == dim and len(weights) > 0, rule)
    _check_size("weights", weights)
    if bias is None:
        return weights.double(), None
    rule = f"bias must be {len(weights)} finite numbers, one per row of weights"
    is_matched = bias.shape == weights.shape[:1] and not bias.is_complex()
    require(is_matched, f"{rule}, got {tuple(bias.shape)} of {bias.dtype}.")
    return weights.double(), bias.double()


def _normalization(
    options: argparse.Namespace, features: "StoredArray", weights: "Tensor | None", notes: list[str]
) -> tuple[str, float | None]:
    """What the head scales and divides by: as given, else the plain head unless everything is of unit length."""
    normalization, temperature = options.normalization, options.temperature
    rule = f"--temperature must come with weights, got {temperature} without: no column of features alone depends on it"
    require(temperature is None or weights is not None, f"{rule}. Give --weights FILE, or leave it out.")
    if normalization is None:
        from gnc.files.features import in_batches

        is_unit = (weights is None or _are_unit(weights)) and all(map(_are_unit, in_batches(features)))
        normalization = "both" if is_unit else "none"
        cure = "Give --normalization: what does the head scale?"
        rule = f"--temperature must come with features and rows of unit length or --normalization, got {temperature}."
        require(is_unit or temperature is None, f"{rule} {cure}")
        reason = "features and rows are" if is_unit else "features or rows are not"
        notes.append(f"--normalization {normalization} is assumed, since {reason} of unit length")
    rule = "--normalization weights must come with weights, got none. Give --weights FILE."
    require(normalization != "weights" or weights is not None, rule)
    if normalization == "none":
        rule = f"--temperature must not come with --normalization none, got {temperature}."
        require(temperature is None, f"{rule} A plain head divides by nothing: divide its weights and bias instead.")
        return normalization, None
    if temperature is None and weights is not None:
        notes.append("--temperature 1 is assumed")
    return normalization, 1.0 if temperature is None else temperature


def _are_unit(rows: "Tensor") -> bool:
    return bool(((rows.double().norm(dim=1) - 1).abs() < UNIT_TOLERANCE).all())


def _counted(labels: "Tensor", size: int, tested: "Tensor | None", notes: list[str]) -> "tuple[Tensor | None, int]":
    """The samples of classes with two samples or more, None for all; the variability of one sample is not known."""
    counts = labels.bincount(minlength=size)
    singles, several = int((counts == 1).sum()), int((counts > 1).sum())
    single = amount(singles, "class", "classes")
    if singles and several:
        rule = f"at least 2 classes must have two samples or more, got {several} of {several + singles} with samples"
        require(several > 1, f"{rule}. Of one sample the variability is not known: add samples of the other classes.")
        notes.append(f"{single} with one sample left out of every column of samples and class means")
    elif singles:
        notes.append(f"{single} with one sample, and none with more: none is left out, and variability is not known")
    has_mean = counts > (1 if several else 0)
    if tested is not None and (unknown := int((~has_mean[tested]).sum())):
        notes.append(f"{amount(unknown, 'test sample')} of classes without a mean of training samples left out")
    return (has_mean[labels] if singles and several else None), singles


def _test_set(arrays: "dict[str, StoredArray]", classes: Any, num_classes: int) -> "dict[str, Tensor]":
    """The test set's features and labels, numbered as the training labels are."""
    from gnc.files.features import class_labels

    if "test_labels" not in arrays:
        return {}
    labels, _ = class_labels(arrays["test_labels"], relabel=classes is not None, known=classes)
    features = arrays["test_features"].tensor()
    _check_size("test_features", features)
    _check_range("test_labels", labels, num_classes)
    return {"test_features": features.double(), "test_labels": labels}


def _check_shapes(source: str, arrays: "dict[str, StoredArray]", unused: list[str]) -> None:
    """Names and shapes, before any number is read."""
    for name in ("features", "labels"):
        got = "; ".join([f"got {sorted(arrays)}", *unused[:5]]).removesuffix("?")
        end = "?" if unused and "?" in unused[:5][-1] else "."
        cure = " Give the file of the labels with --labels." if name == "labels" else ""
        require(name in arrays, f"{source!r} must hold the array {name!r}, {got}{end}{cure}")
    rule = f"features must be real numbers, got {arrays['features'].dtype}."
    require("complex" not in arrays["features"].dtype, rule)
    together = ("test_features" in arrays) == ("test_labels" in arrays)
    require(together, "test_features and test_labels must be in the file together or not at all, got one of them.")
    shapes = {name: found.shape for name, found in arrays.items()}
    features, labels = shapes["features"], shapes["labels"]
    is_matched = len(features) == 2 and features[1] > 0 and labels == features[:1]
    cure = " Give one row and one label a sample, flattened or pooled." if len(features) > 2 else ""
    cure = cure or " Of one-hot labels give argmax(1), of a column its numbers." * (len(labels) == 2)
    require(is_matched, f"features must be [samples, dim] and labels [samples], got {features} and {labels}.{cure}")
    if "test_labels" in shapes:
        tested, found = shapes["test_features"], shapes["test_labels"]
        rule = f"test_features must be [samples, {features[1]}] as the features are, got {tested}."
        require(len(tested) == 2 and tested[1] == features[1] and tested[0] > 0, rule)
        rule = f"test_labels must be one per row of test_features, got {found} and {tested}."
        require(found == tested[:1], rule)


def _check_size(name: str, values: "Tensor") -> None:
    from gnc.files.stored import check_finite

    require(not values.is_complex(), f"{name} must be real, got {values.dtype}.")
    check_finite(values, name)
    largest, least = float(values.double().abs().max()), 1 / LARGEST_FEATURE
    rule = f"the largest of {name} must be between {least:g} and {LARGEST_FEATURE:g} in size, got {largest:g}."
    require(not largest or least <= largest <= LARGEST_FEATURE, f"{rule} Multiply all by one number.")


def _check_labels(labels: "Tensor", num_classes: int, notes: list[str], *, has_weights: bool) -> None:
    """Labels in range; classes without samples only where rows tell that they are classes."""
    from gnc.files.features import BY_ORDER

    _check_range("labels", labels, num_classes)
    got = f"{num_classes:,} classes and {len(labels):,} samples"
    require(has_weights or num_classes <= len(labels), f"every class must have samples, got {got}. {BY_ORDER}.")
    empty = (labels.bincount(minlength=num_classes) == 0).nonzero().flatten().tolist()
    rule = f"every class must have samples, got none for class {(*empty, None)[0]}. {BY_ORDER}."
    require(has_weights or not empty, rule)
    if empty:
        few = f"{len(empty)} of {num_classes} classes without a sample, the first: {', '.join(map(str, empty[:5]))}"
        notes.append(f"{few}: only their rows count")


def _check_range(name: str, labels: "Tensor", num_classes: int) -> None:
    from gnc.files.features import BY_ORDER

    least, most = int(labels.min()), int(labels.max())
    cure = f"{BY_ORDER}, and row i of weights is that of the label in place i."
    if least < 0:
        cure = "Leave out samples that belong to no class. If the label is that of a class, use --relabel."
    rule = f"{name} must lie in 0..{num_classes - 1}, got {least}..{most}. {cure}"
    require(least >= 0 and most < num_classes, rule)
