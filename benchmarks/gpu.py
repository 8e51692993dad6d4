"""One GPU beside the CPU, without Ray: `python -m benchmarks.gpu [--device cpu --small]`, under 8 minutes on one data-centre GPU.

Three parts, each with the seconds it took:

* `agreement`: one short trial in float64 for every member of every family, on the device and on the CPU; the largest relative
  difference over all measured columns of its last row, and the column. The mark is 1e-6. Left out is what draws on the device:
  augmentation and the random starts of attacks.
* `throughput`: a trial of K = 10,000 classes, images per second: this project's epoch, as a share of a plain loop's, and with
  `torch.compile` and bfloat16. The mark is a share of 0.95 at least.
* `margins`: of random rows of (50257, 768) and (10000, 512), the smallest one to 1e-4.

`--small` makes each part small enough for a CPU: it shows that the script runs, and says nothing of a GPU.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch.nn import functional

from gnc_models.catalog.members import CLASSIFIERS, DATASETS, ENCODERS, LOSSES
from gnc_models.catalog.members import FAMILIES as CATALOG
from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.geometry.margins import one_vs_rest_margins
from study.design.config import TrialConfig
from study.design.errors import StudyError, make_config
from study.training.schedules import Pace
from study.training.training import Training
from study.training.trial import Trial

COMMON: dict[str, Any] = {
    "dataset": "glyphs",
    "encoder": "mlp",
    "num_classes": 6,
    "feature_dim": 8,
    "samples_per_class": 6,
}
COMMON |= {"test_samples_per_class": 2, "batch_size": 12, "steps": 6, "precision": "float64", "measure": "final"}
COMMON |= {"learning_rate": 0.02}
FAMILIES: dict[str, list[Any]] = {
    "dataset": [name for name, member in DATASETS.items() if not member.is_stored],
    "encoder": list(ENCODERS),
    "classifier": list(CLASSIFIERS),
    "loss": list(LOSSES),
    "normalization": list(CATALOG["normalization"]),
    "optimizer": list(CATALOG["optimizer"]),
    "budget": ["terminal", "stationary"],
    "layers": ["all"],
    "attack_radii": ["0.01"],
    "imbalance": ["step"],
    "label_noise": [0.2],
}
REQUIRED: dict[Any, dict[str, Any]] = {
    "hug_mgd": {"logdet_eps": 1e-3},
    "supervised_contrastive": {"classifier": "class_mean"},
    "text": {"encoder": "transformer"},
    "transformer": {"dataset": "text"},
}
REQUIRED |= {"indices": {"encoder": "unconstrained"}, "unconstrained": {"dataset": "indices"}}
REQUIRED |= {"terminal": {"max_epochs": 4, "terminal_epochs": 1}, "stationary": {"max_steps": 8}}
DRAWN = ("pgd_accuracy",)  # from random numbers of the device
TIMED = ("wall_seconds", "peak_memory_bytes")
ROUNDING = 1e-12  # of numbers that are 0 but for rounding


def make_agreement_config(family: str, member: Any) -> TrialConfig:
    """A short trial that differs from the common one in this member, and in what it needs."""
    settings = {**COMMON, family: member, **REQUIRED.get(member, {})}
    if family == "budget":
        del settings["steps"]
    if settings["dataset"] == "indices":
        del settings["test_samples_per_class"]
    try:
        return make_config(settings)
    except StudyError:
        return make_config({**settings, "normalization": "none" if member in CLASSIFIERS else "both"})


def apart(found: Any, expected: Any) -> float:
    """The largest relative difference of two values of a column; infinity where one is absent or of another kind."""
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)) and len(found) == len(expected):
        return max((apart(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)
    if isinstance(expected, float) and isinstance(found, float):
        if math.isnan(expected) or math.isnan(found):
            return 0.0 if math.isnan(expected) and math.isnan(found) else math.inf
        return abs(found - expected) / max(abs(expected), abs(found), ROUNDING)
    return 0.0 if found == expected else math.inf


def agreement(device: str, *, small: bool) -> Iterator[str]:
    """A line for each family: how far its members' rows on the device are from those on the CPU."""
    for family, members in FAMILIES.items():
        worst = 0.0, "", ""
        for member in members[:2] if small else members:
            config = make_agreement_config(family, member)
            here, there = (_last_row(config, where) for where in (device, "cpu"))
            for column in here.keys() - {*DRAWN, *TIMED}:
                worst = max(worst, (apart(here[column], there[column]), str(member), column))
        named = f" in {worst[2]} of {worst[1]}" if worst[0] else ""
        yield f"  {family:<16} {worst[0]:.1e}{named}{'' if worst[0] <= 1e-6 else '   ABOVE 1e-6'}"


def _last_row(config: TrialConfig, device: str) -> dict[str, Any]:
    trial = Trial(config, device=device)
    while not trial.is_done:
        trial.run_epoch()
    return asdict(trial.measurements[-1])


def make_many_classes(device: str, *, small: bool, precision: str, classes: int = 10_000) -> Training:
    """A small_resnet on made-up images of so many classes; what the images show does not matter to the time."""
    classes, samples = min(classes, 50) if small else classes, 4
    config = TrialConfig(
        dataset="image_folder",  # whose number of classes has no limit; its images are made below
        folder="made-up",
        num_classes=classes,
        samples_per_class=samples,
        feature_dim=64,
        batch_size=16 if small else 512,
        cross_entropy="chunked",
        precision=precision,
    )
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(classes * samples, 3, 32, 32, generator=draw)
    labels = torch.arange(classes).repeat_interleave(samples)
    names = tuple(map(str, range(classes)))
    return Training(config, Dataset(images, labels, None, None, None, None, names), torch.device(device))


def own_epoch(training: Training) -> None:
    """This project's epoch."""
    paces = [Pace(1e-3, training.config.temperature or 1.0)] * training.steps_per_epoch
    training.train_epoch(1, paces)


def plain_epoch(training: Training) -> None:
    """What one would write by hand, with all logits of a batch at once."""
    training.encoder.train()
    order = torch.randperm(len(training.train_labels), device=training.device)
    for batch in torch.tensor_split(order, training.steps_per_epoch):
        with training._autocast():
            logits = training.classifier(training.encoder(training.train_inputs[batch]))
        loss = functional.cross_entropy(logits.float(), training.train_labels[batch])
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        training.optimizer.step()


def images_per_second(training: Training, *epochs: Callable[[Training], None], times: int) -> list[float]:
    """The median of each way over so many epochs, in turn, after one of each that pays for choice of kernels."""
    found: list[list[float]] = [[] for _ in epochs]
    for turn in range(times + 1):
        for place, epoch in enumerate(epochs):
            started = time.monotonic()
            epoch(training)
            if training.device.type == "cuda":
                torch.cuda.synchronize(training.device)
            if turn:
                found[place].append(len(training.train_labels) / (time.monotonic() - started))
    return [statistics.median(one) for one in found]


def throughput(device: str, *, small: bool) -> Iterator[str]:
    """Lines of images per second, this project's epoch in float32 beside others."""
    times = 1 if small else 5
    for precision in ("float32", "bfloat16"):
        training = make_many_classes(device, small=small, precision=precision)
        own, plain = images_per_second(training, own_epoch, plain_epoch, times=times)
        yield f"  {precision:<16} {own:,.0f} images/s, {own / plain:.3f} of the plain loop's {plain:,.0f}"
        # Inductor needs a C++ compiler and a minute on a CPU, where `eager` shows that the script runs
        training._objective.compile(backend="eager" if small else "inductor")
        (compiled,) = images_per_second(training, own_epoch, times=times)
        yield f"  {'  compiled':<16} {compiled:,.0f} images/s, {compiled / own:.3f} of the same without"


def margins(device: str, *, small: bool) -> Iterator[str]:
    """Lines of the smallest margin of random rows, as an interval."""
    for classes, dim in ((60, 8), (100, 16)) if small else ((10_000, 512), (50_257, 768)):
        rows = functional.normalize(torch.randn(classes, dim, generator=torch.Generator().manual_seed(0)), dim=1)
        started = time.monotonic()
        lower, upper = one_vs_rest_margins(rows.to(device), tolerance=1e-4, mode="min").minimum
        yield f"  ({classes}, {dim}): {lower:.6f} to {upper:.6f} in {time.monotonic() - started:.1f} s"


def main(arguments: list[str] | None = None) -> None:
    """Print every part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="as torch names it")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device must be one that torch has, got cuda. Give --device cpu --small to try the script.")
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    print(f"torch {torch.__version__} on {name}{', small sizes' if options.small else ''}", flush=True)
    for part in (agreement, throughput, margins):
        started = time.monotonic()
        print(part.__name__, flush=True)
        for line in part(options.device, small=options.small):
            print(line, flush=True)
        print(f"  {time.monotonic() - started:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
