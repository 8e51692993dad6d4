"""A trained head for the benchmarks: rows of a cosine classifier after stochastic gradient descent, kept in the cache.

    python -m benchmarks.trained_head 10000 64

Inputs: class c lies at `g[c // 20] + 0.6 e[c]` in 128 dimensions (groups g of 20 look-alike classes, offsets e, both
standard normal), a sample adds normal noise of standard deviation 0.3. Network: linear, ReLU, linear, 256 wide, to d
features; cosine head at temperature 0.1; cross-entropy over all classes. SGD with Nesterov momentum 0.9, batch 512,
learning rate 0.3 falling to 0 along a cosine, weight decay 1e-5, float32, one thread, seed 0: the rows are as crowded
as training leaves them, some classes close to merged and others far apart.
"""

import argparse
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gnc_models.classifiers.classifier import LinearClassifier
from gnc_models.user_cache import read_or_make

INPUT_DIM, HIDDEN, GROUP = 128, 256, 20
STEPS, BATCH = 1500, 512


def trained_rows(num_classes: int, feature_dim: int) -> Tensor:
    """Unit rows of the head in float64; trained on the first call, read from the user's cache after that."""

    def make() -> dict[str, np.ndarray]:
        rows, accuracy = train_head(num_classes, feature_dim)
        return {"rows": rows.numpy(), "accuracy": np.array(accuracy)}

    name = f"trained-head-{num_classes}-{feature_dim}-{STEPS}"
    rows = read_or_make(name, make=make, pick=lambda arrays: arrays["rows"])
    return normalize(torch.from_numpy(rows).double(), dim=1)


def train_head(num_classes: int, feature_dim: int) -> tuple[Tensor, float]:
    """The head's rows as trained, and the accuracy on the last 20 batches."""
    torch.manual_seed(0)
    groups = torch.randn(math.ceil(num_classes / GROUP), INPUT_DIM)
    centres = groups[torch.arange(num_classes) // GROUP] + 0.6 * torch.randn(num_classes, INPUT_DIM)
    encoder = nn.Sequential(nn.Linear(INPUT_DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, feature_dim))
    head = LinearClassifier(num_classes, feature_dim, normalization="both", temperature=0.1, init_norm=0.5)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    right = 0
    for step in range(STEPS):
        labels = torch.randint(num_classes, (BATCH,))
        logits = head(encoder(centres[labels] + 0.3 * torch.randn(BATCH, INPUT_DIM)))
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer.step()
        schedule.step()
        right += int((logits.argmax(1) == labels).sum()) if step >= STEPS - 20 else 0
    return head.weight.detach(), right / (20 * BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one head and say how well it classifies.")
    parser.add_argument("num_classes", type=int)
    parser.add_argument("feature_dim", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, accuracy = train_head(given.num_classes, given.feature_dim)
    print(
        f"accuracy {accuracy:.3f}, row norms {float(rows.norm(dim=1).min()):.3g} to {float(rows.norm(dim=1).max()):.3g}"
    )


if __name__ == "__main__":
    main()
