"""What a measurement of collapse costs beside the training it watches: `python -m benchmarks.measure`, CPU seconds, one thread.

Random rows, class means around them and 20 samples around each mean, at (K, d) = (1000, 512) and (100, 64): every column
by `gnc.measure`; then a meter with variability, duality and the smallest margin, its first epoch (cold) and three more
(warm), between which rows and means move by a tenth of their length. A meter's seconds are those of its updates, in
batches of 100, and of `compute`. Each figure is the median of three runs, and all of them take turns with the batches of training.

The epochs beside them are plain ones of ResNet-18 on 20,000 images of 32 x 32 with a linear head of 1,000 classes in 512
dimensions, SGD, batches of 100, with torchvision's own stem (which shrinks images by 4) and with the stem for small images
that studies use. In each run four batches of each are timed and multiplied by 50.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import gnc
from gnc_models.encoders.registry import make_encoder

SIZES = ((1000, 512), (100, 64))
SAMPLES, BATCH, IMAGES, BATCHES = 20, 100, 20_000, 4
THREE = ("variability", "duality", "minimum")
MOVED = 0.1  # of the length of each row and mean, from one epoch to the next

Epoch = tuple[Tensor, Tensor, Tensor]  # features, labels, rows


def make_epochs(num_classes: int, feature_dim: int, *, seed: int) -> Iterator[Epoch]:
    """One epoch after another of a classifier that moves, in float32 as a network gives it."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_classes, feature_dim, generator=generator)
    means = rows + 0.5 * torch.randn(rows.shape, generator=generator)
    while True:
        labels = torch.randperm(num_classes * SAMPLES, generator=generator) % num_classes
        features = means[labels] + 0.3 * torch.randn(len(labels), feature_dim, generator=generator)
        yield features, labels, rows
        rows, means = (x + MOVED * torch.randn(x.shape, generator=generator) for x in (rows, means))


def spent(step: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    step()
    return time.process_time() - before


def meter_seconds(epochs: Iterator[Epoch], size: tuple[int, int], count: int) -> list[float]:
    """CPU seconds of a meter in each of the first epochs."""
    meter = gnc.CollapseMeter(*size, columns=THREE)

    def measure(features: Tensor, labels: Tensor, rows: Tensor) -> None:
        for part, classes in zip(features.split(BATCH), labels.split(BATCH), strict=True):
            meter.update(part, classes)
        meter.compute(rows)
        meter.reset()

    return [spent(lambda: measure(*next(epochs))) for _ in range(count)]


def make_training(encoder: nn.Module) -> Callable[[], None]:
    """A function that trains on the next batches."""
    network = nn.Sequential(encoder, nn.Linear(512, 1000))
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH)

    def train() -> None:
        for _ in range(BATCHES):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()

    return train


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--without-epochs", action="store_true", help="no training beside, and no shares of it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    training = (
        {}
        if options.without_epochs
        else {
            "an epoch of ResNet-18": make_training(resnet18(num_classes=512)),
            "the same, its stem for small images": make_training(
                make_encoder("resnet18", input_shape=(3, 32, 32), feature_dim=512)
            ),
        }
    )
    for run in range(options.runs + 1):  # the first run is left out: it loads libraries
        seconds = {name: spent(train) * IMAGES / (BATCH * BATCHES) for name, train in training.items()}
        for size in SIZES:
            features, labels, rows = next(make_epochs(*size, seed=run))
            seconds[f"{size}: every column"] = spent(lambda: gnc.measure(features, labels, rows))  # noqa: B023
            cold, *warm = meter_seconds(make_epochs(*size, seed=run), size, 4)
            seconds |= {f"{size}: the three, cold": cold, f"{size}: the three, warm": statistics.median(warm)}
        for name, value in seconds.items() if run else ():
            found.setdefault(name, []).append(value)
    middle = {name: statistics.median(values) for name, values in found.items()}
    for name, value in middle.items():
        shares = "".join(f" {100 * value / middle[epoch]:7.2f} % of {epoch}" for epoch in training)
        print(f"{name:<36} {value:9.3f} s{shares}")


if __name__ == "__main__":
    main()
