"""The workers of one trial: which share of a batch each takes, what they exchange, how they decide together.
Knows torch.distributed; does not know Ray, training, or how the processes were started. One worker is a group too."""

import datetime
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")

# The others wait while worker 0 measures, which can take hours; a dead worker is noticed by its closed connections.
PATIENCE = datetime.timedelta(days=2)
LOST = ("onnection closed by peer", "onnection reset", "roken pipe", "onnection refused", "NCCL", "Socket")


class PeerFailed(RuntimeError):
    """Raised by the other workers when worker 0 failed, whose own error says why."""


@dataclass(frozen=True)
class Group:
    """A trial's workers as one of them sees them."""

    rank: int = 0  # of this worker; worker 0 leads: it measures, writes and decides
    size: int = 1  # workers of the trial
    exchange: distributed.ProcessGroup | None = None  # what tensors travel through; None: torch's default group

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, samples: int) -> slice:
        """This worker's share of so many samples in order; shares differ by at most one sample."""
        return _share(samples, self.rank, self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """In place: the sum of all workers' tensors of this shape."""
        if self.size > 1:
            distributed.all_reduce(tensor, group=self.exchange)
        return tensor

    def gather(self, own: Tensor, samples: int) -> Tensor:
        """All workers' shares of `samples` rows in order; differentiable: slopes of all workers' losses add up."""
        return own if self.size == 1 else cast(Tensor, _Gather.apply(own, samples, self))

    def agree(self, value: Value) -> Value:
        """Worker 0's value, on every worker; the values of the others are ignored."""
        if self.size == 1:
            return value
        shared: list[Any] = [value if self.leads else None]
        distributed.broadcast_object_list(shared, src=0)
        return cast(Value, shared[0])

    def everyone(self, value: Value) -> list[Value]:
        values: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def lead(self, find: Callable[[], Value], *, shared: type[Exception]) -> Value:
        """What `find` returns on worker 0, on every worker; only worker 0 calls it.
        What it raises is raised on worker 0, and on the others too if it is a `shared` error, else PeerFailed there."""
        if self.size == 1:
            return find()
        value, error = None, None
        try:
            value = find() if self.leads else None
        except Exception as raised:  # noqa: BLE001 - told to the others first, then raised
            error = raised.with_traceback(None)
        told = error if error is None or isinstance(error, shared) else PeerFailed(f"worker 0 failed: {error}")
        value, told = self.agree((value, told))
        if told is not None:
            raise error or told
        return cast(Value, value)


ALONE = Group()


def join(rank: int, size: int, device: torch.device) -> Group:
    """The group of a trial's workers, torch's default group being one over gloo; ValueError if some have no GPU.
    Tensors on GPUs travel through NCCL, decisions through gloo."""
    if size == 1:
        return ALONE
    # torch says once per process that a 1x1 convolution's gradient is laid out otherwise; the numbers are the same.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    kinds = Group(rank, size).everyone(device.type)
    if len(set(kinds)) > 1:
        raise ValueError(f"workers of a trial must all have a GPU or none, got {kinds}. Set gpus in [resources].")
    exchange: distributed.ProcessGroup | None = None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        made = distributed.new_group(backend="nccl", timeout=PATIENCE)
        exchange = made if isinstance(made, distributed.ProcessGroup) else None  # a number stands for "not a member"
    return Group(rank, size, exchange)


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error only says that another worker is gone, so that the cause is to be looked for there."""
    if isinstance(error, PeerFailed | distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)


def _share(samples: int, rank: int, size: int) -> slice:
    each, more = divmod(samples, size)
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


class _Gather(torch.autograd.Function):
    """Shares padded to the largest, exchanged, cut and joined; backwards the sum of all slopes, this worker's part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, samples: int, group: Group) -> Tensor:
        ctx.group, ctx.part = group, group.share(samples)
        shares = [_share(samples, rank, group.size) for rank in range(group.size)]
        lengths = [share.stop - share.start for share in shares]
        padded = own.new_zeros(max(lengths), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(parts, padded, group=group.exchange)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.group.sum(slope.clone().contiguous())[ctx.part], None, None
