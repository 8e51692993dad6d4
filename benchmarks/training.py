"""Training's own cost: `python -m benchmarks.training [--epochs 7]`, ratios of CPU seconds per epoch on one thread.

One line per network, the same glyphs, batches, classifier, loss and optimiser in turn:

* `plain`: a plain PyTorch loop over the same tensors, nothing changed at random, against this project's epoch without
  augmentation. The mark is 1.05 at most.
* `loader`: `torch.utils.data.DataLoader` (in this process, since both have one core) over what torchvision's own data sets
  do for each sample, an image of PIL, `RandomCrop` and `ToTensor`, against this project's epoch with the same change of
  a whole batch. The mark is 3 at least.

* `streamed`: this project's epoch on the same inputs, converted batch by batch by the loader of data that do not fit in memory, here in
  this process, against held ones. What other processes add is what reading a sample costs, over their number.

Epochs alternate, and each figure is the median of the ratios of neighbours.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, RandomCrop, ToTensor

from gnc_models.datasets.samples.streamed import stream
from study.design.config import TrialConfig
from study.training.data import load_dataset
from study.training.schedules import Pace
from study.training.training import Training

NETWORKS = {"mlp": {"width": 128, "depth": 2}, "small_resnet": {"width": 4}, "small_resnet, default": {}}
CLASSES, SAMPLES, BATCH = 100, 24, 64


class _Samples(Dataset):
    """Images one by one as torchvision's MNIST gives them, each moved by itself."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self._images, self._labels = (inputs[:, 0] * 255).to(torch.uint8).numpy(), labels
        self._transform = Compose([RandomCrop(tuple(inputs.shape[2:]), padding=1), ToTensor()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def make_training(network: str, augmentation: str) -> Training:
    """A network with its data, ready to train; the same for each way."""
    config = TrialConfig(
        dataset="glyphs",
        num_classes=CLASSES,
        samples_per_class=SAMPLES,
        encoder=network.split(",")[0],
        feature_dim=10,
        batch_size=BATCH,
        augmentation=augmentation,
        steps=1,
        **NETWORKS[network],
    )
    return Training(config, load_dataset(config), torch.device("cpu"))


def own_epoch(training: Training) -> Callable[[], None]:
    """This project's epoch."""
    paces = [Pace(1e-3, training.config.temperature or 1.0)] * training.steps_per_epoch
    return lambda: training.train_epoch(1, paces) and None


def plain_epoch(training: Training) -> Callable[[], None]:
    """What one would write by hand over the same tensors."""

    def run() -> None:
        training.encoder.train()
        for batch in torch.tensor_split(torch.randperm(len(training.train_labels)), training.steps_per_epoch):
            _step(training, training.train_inputs[batch], training.train_labels[batch])

    return run


def loader_epoch(training: Training) -> Callable[[], None]:
    """The same with a DataLoader and a change of each sample."""
    samples = _Samples(training.train_inputs, training.train_labels)
    loader = DataLoader(samples, batch_size=BATCH, shuffle=True)

    def run() -> None:
        training.encoder.train()
        for inputs, labels in loader:
            _step(training, inputs, labels)

    return run


def streamed(training: Training) -> Training:
    """The same data, network and order of batches, with training inputs that are read whenever they are needed."""
    dataset = load_dataset(training.config)
    inputs = dataset.train_inputs
    assert isinstance(inputs, Tensor)

    def read(places: np.ndarray) -> np.ndarray:
        return inputs[torch.from_numpy(places)].numpy()

    source = stream(read, lambda raw, _: torch.from_numpy(raw), len(inputs), 0)
    return Training(training.config, replace(dataset, train_inputs=source), torch.device("cpu"))


def _step(training: Training, inputs: Tensor, labels: Tensor) -> None:
    loss = torch.nn.functional.cross_entropy(training.classifier(training.encoder(inputs)), labels)
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    training.optimizer.step()


def ratio(numerator: Callable[[], None], denominator: Callable[[], None], epochs: int) -> tuple[float, float]:
    """Median ratio of CPU seconds of neighbouring epochs, and the median seconds of the denominator."""
    seconds: list[tuple[float, float]] = []
    for epoch in range(epochs + 1):
        pair = tuple(_seconds(run) for run in (numerator, denominator))
        if epoch:  # the first pays for allocation and choice of kernels
            seconds.append(pair)  # type: ignore[arg-type]
    return statistics.median(a / b for a, b in seconds), statistics.median(b for _, b in seconds)


def _seconds(run: Callable[[], None]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    """Print both ratios of each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=7, help="of each way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"glyphs, K = {CLASSES}, {SAMPLES} samples per class, batches of {BATCH}, one thread")
    for network in NETWORKS:
        plain_training, moved = make_training(network, "none"), make_training(network, "shift")
        own, seconds = ratio(own_epoch(plain_training), plain_epoch(plain_training), options.epochs)
        loader, moved_seconds = ratio(loader_epoch(moved), own_epoch(moved), options.epochs)
        streaming, _ = ratio(own_epoch(streamed(plain_training)), own_epoch(plain_training), options.epochs)
        print(
            f"{network:<22} own / plain {own:.3f} ({seconds:.2f} s per epoch)   loader / own {loader:.2f} "
            f"({moved_seconds:.2f} s per epoch)   streamed / held {streaming:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
