"""What a finished trial leaves beside its rows: per-class margins, and tensors of the head or the whole model.
Knows the trial's tensors; does not know where they are stored."""

import json
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import save

from study.store.schemas import MARGINS_SCHEMA
from study.training.trial import Trial

HISTOGRAM_BINS = 50  # of the histogram of all classes' margins in the table's metadata
ALL_MARGINS, FEWEST_MARGINS = 10_000, 1_000  # up to 10,000 classes all margins are stored, else the 1,000 smallest


def margins_table(trial: Trial) -> pa.Table:
    """Per-class margins of the last measured epoch under MARGINS_SCHEMA, smallest first."""
    assert trial.collapse is not None
    margins, weights = trial.collapse.margins, trial.training.classifier.weight.detach().double()
    order = torch.argsort(margins.lower, stable=True).tolist()
    order = order if len(order) <= ALL_MARGINS else order[:FEWEST_MARGINS]
    unit = torch.nn.functional.normalize(weights, dim=1)
    counts, names = torch.bincount(trial.training.train_labels, minlength=len(weights)), trial.dataset.class_names
    of_all = {"samples": counts, "norm": weights.norm(dim=1), "lower": margins.lower, "upper": margins.upper}
    columns: dict[str, list[Any]] = {name: values.tolist() for name, values in of_all.items()}
    rows = []
    for k in order:
        cosines = unit @ unit[k]
        cosines[k] = -2.0
        found = {"nearest_class": int(cosines.argmax()), "support": list(map(int, margins.support[k]))}
        own = {name: values[k] for name, values in columns.items()}
        rows.append({"class_index": k, "class_name": names[k], **own, **found})
    table = pa.Table.from_pylist(rows, schema=MARGINS_SCHEMA)
    in_bin, edges = torch.histogram(((margins.lower + margins.upper) / 2).cpu(), bins=HISTOGRAM_BINS)
    histogram = json.dumps({"counts": in_bin.int().tolist(), "edges": edges.tolist()})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"histogram": histogram.encode()})


def head_file(trial: Trial, keep: str) -> bytes | None:
    """A safetensors file of the head and class means, with keep = "model" of all tensors too; None with "nothing"."""
    if keep == "nothing":
        return None
    assert trial.collapse is not None  # the last epoch is always measured
    weights, means = trial.training.classifier.weight.detach(), trial.collapse.class_means.to(torch.float32)
    tensors = {"weights": weights.cpu().contiguous(), "class_means": means.cpu().contiguous()}
    whole = trial.training.tensors() if keep == "model" else {}
    return save(tensors | {f"model.{name}": value for name, value in whole.items()})
