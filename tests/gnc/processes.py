"""Two processes of one training, started as `torchrun` would start them."""

import os
import subprocess
import sys
from pathlib import Path


def in_two_processes(call: str, *arguments: object) -> list[str]:
    """What each prints of `module:function` called with its rank and the arguments."""
    module, _, function = call.partition(":")
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(30_000 + os.getpid() % 20_000),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    started = []
    for rank in range(2):
        code = f"from {module} import {function}; {function}({rank}, *{tuple(map(str, arguments))!r})"
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env=shared | ranks,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, error) in zip(started, said, strict=True):
        assert process.returncode == 0, error
    return [out for out, _ in said]
