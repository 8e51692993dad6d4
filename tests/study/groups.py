"""Real worker groups for the tests: processes that meet over gloo on loopback, run a function and hand back what it gives.

The functions are module-level ones of a test module. Every process is ended by the one that started it.
"""

import io
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed

from study.training.worker_group import PATIENCE, Group, join

SECONDS = 240


def run_group(function: Callable[..., Any], size: int, folder: Any, *arguments: Any) -> list[Any]:
    """What `function(group, *arguments)` gives on each of `size` workers; an error is given back as its traceback."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    meeting = str(folder / f"meeting-{function.__name__}-{size}")
    workers = [
        context.Process(target=_member, args=(rank, size, meeting, pipes[rank][1], function, arguments), daemon=True)
        for rank in range(size)
    ]
    try:
        for worker, (_, sender) in zip(workers, pipes, strict=True):
            worker.start()
            sender.close()
        return [_received(receiver) for receiver, _ in pipes]
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _received(receiver: Any) -> Any:
    assert receiver.poll(SECONDS), "a worker said nothing"
    try:
        return torch.load(io.BytesIO(receiver.recv_bytes()), weights_only=False)
    except EOFError:
        return "died"


def _member(rank: int, size: int, meeting: str, sender: Any, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE
    )
    group: Group = join(rank, size, torch.device("cpu"))
    try:
        given = function(group, *arguments)
    except Exception:  # noqa: BLE001 - handed back for the test to judge
        given = traceback.format_exc()
    content = io.BytesIO()  # not send(): tensors would go through files that end with this process
    torch.save(given, content)
    sender.send_bytes(content.getvalue())
    sender.close()
    distributed.destroy_process_group()
