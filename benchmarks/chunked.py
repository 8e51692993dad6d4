"""Peak memory and CPU time of a step over many classes: `python -m benchmarks.chunked [--classes 100000] ...`.

One line per way to compute the cross-entropy, each in its own process on one thread: `chunked` (this project's), `torch`
(torch.nn.functional.linear_cross_entropy on normalised rows, where this torch has it) and, where asked, `dense`, which
holds several matrices of batch x classes. A step is loss, gradient and SGD with Nesterov momentum on the rows of a linear
classifier with normalization "both". `peak_above` is the peak of the resident memory over that before the rows were
made, less rows, gradient and momentum; the mark is 1 GiB at 100,000 classes, 512 dimensions and a batch of 8,192.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from gnc_models.classifiers.classifier import Classifier, make_classifier
from gnc_models.losses.loss import make_loss

TEMPERATURE = 0.05
WAYS = ("chunked", "torch", "dense")


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the peak since it was last reset) of this process, from Linux's /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}.")


def loss_function(way: str, classes: int, dim: int) -> Callable[[Tensor, Tensor, Classifier, float], Tensor]:
    """The loss of a batch by that way."""
    if way != "torch":
        return make_loss("cross_entropy", num_classes=classes, feature_dim=dim, cross_entropy=way)

    def of_torch(features: Tensor, labels: Tensor, classifier: Classifier, temperature: float) -> Tensor:
        scaled, rows = classifier.scaled(features)
        options = torch.nn.LinearCrossEntropyOptions()
        return functional.linear_cross_entropy(scaled / temperature, rows, labels, options=options)

    return of_torch


def measure(way: str, classes: int, dim: int, batch: int, steps: int) -> dict[str, float | str]:
    """Peak memory over all steps and the least CPU seconds of one."""
    torch.manual_seed(0)
    loss_of = loss_function(way, classes, dim)
    train(loss_of, 8, dim, 4, 1)  # what the first use of the libraries takes is not the step's
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    loss, seconds = train(loss_of, classes, dim, batch, steps)
    above = resident_bytes("VmHWM") - before - 3 * 4 * classes * dim
    return {"way": way, "peak_above_mib": above / 2**20, "seconds": seconds, "first_loss": loss}


def train(
    loss_of: Callable[[Tensor, Tensor, Classifier, float], Tensor], classes: int, dim: int, batch: int, steps: int
) -> tuple[float, float]:
    """Some steps on one random batch: the first loss, the least CPU seconds of a step."""
    classifier = make_classifier("linear", classes, dim, normalization="both", temperature=TEMPERATURE, init_norm=0.5)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    features = torch.randn(batch, dim, requires_grad=True)
    labels = torch.randint(classes, (batch,))
    seconds, losses = [], []
    for _ in range(steps):
        begin = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        features.grad = None
        loss = loss_of(features, labels, classifier, TEMPERATURE)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.process_time() - begin)
    return losses[0], min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time of cross-entropy over many classes.")
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, action="append", help="default: chunked and torch")
    parser.add_argument("--here", action="store_true", help="in this process, one way only; prints JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (given.classes, given.dim, given.batch, given.steps)
    if given.here:
        print(json.dumps(measure(given.way[0], *sizes)))
        return
    for way in given.way or WAYS[:2]:
        if way == "torch" and not hasattr(functional, "linear_cross_entropy"):
            print("torch: this version has no linear_cross_entropy")
            continue
        names = ("--classes", "--dim", "--batch", "--steps")
        options = [word for name, size in zip(names, sizes, strict=True) for word in (name, str(size))]
        command = [sys.executable, "-m", "benchmarks.chunked", "--here", "--way", way, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{way}: ended with {done.returncode}: {done.stderr[-300:]}", flush=True)
            continue
        facts = json.loads(done.stdout)
        print(
            f"{way}: peak {facts['peak_above_mib']:.0f} MiB above rows, gradient and momentum, "
            f"{facts['seconds']:.1f} CPU s per step, loss {facts['first_loss']:.5f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
