"""What Ray tells of a trial's process: that it was asked to end, that its node is being drained, how it died.
Knows Ray; does not know the store or what a trial is."""

import re
import signal
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError

from study.execution.signals import REQUESTS, Polled, Preempted
from study.store.storage import FolderError

DRAIN_POLL_SECONDS = 2.0
NODE_LOST = ("its node has died", "node was terminated", "node is draining")  # as Ray words it


class ListensForSignals:
    """Mixed into Tune's actor, whose setup runs in the main thread, the only one in which signals can be handled."""

    def setup(self, config: dict[str, Any]) -> None:
        """Handle SIGTERM in place of Ray, which would end the process at once, in the middle of a trial."""
        REQUESTS.listen(signal.SIGTERM)
        super().setup(config)  # type: ignore[misc]


def draining() -> Polled:
    """Says that the node of this process is being drained, as before a spot machine is taken away; empty until then."""
    node = ray.get_runtime_context().get_node_id()
    words = "its machine is being taken away (the node is draining)"
    return Polled(lambda: words if node in _draining_nodes() else "", DRAIN_POLL_SECONDS)


def _draining_nodes() -> Collection[str]:
    """Ids of the nodes that are drained. Ray has no public name for this, so its errors are no trial's failure."""
    try:
        return cast(Collection[str], ray._private.state.state.get_draining_nodes())  # as Ray Train asks
    except Exception as error:  # noqa: BLE001 - whatever another version of Ray makes of it
        problem = f"Ray {ray.__version__} does not say which machines are taken away: {error}"
        comfort = "A trial whose machine is lost continues from its last checkpoint."
        warnings.warn(f"{problem}. {comfort}", RuntimeWarning, stacklevel=2)
        return ()


def error_of(trial: Any) -> Exception | None:
    """What Tune caught of a trial that has just failed; its own reader looks where the file is not copied to yet."""
    path = getattr(trial, "pickled_error_file", None)  # not public: without it, what caused the failure is unknown
    if path is None or not Path(path).exists():
        return None
    return cast(Exception, ray.cloudpickle.loads(Path(path).read_bytes()))


def how_it_ended(error: Exception | None) -> tuple[str, bool | None]:
    """The reason in words, and whether it is the trial's own failure; None where the error does not say."""
    workers = getattr(error, "worker_failures", None)  # of Ray Train's error where workers of a trial failed
    if workers:
        return min(map(how_it_ended, workers.values()), key=lambda end: {False: 0, None: 1, True: 2}[end[1]])
    if isinstance(error, FolderError):  # its machine sees another folder
        return _own_words(error), False
    if isinstance(error, Preempted):
        return f"preempted: {_own_words(error)}", False
    if isinstance(error, NodeDiedError) or (isinstance(error, RayActorError) and _is_node_lost(error)):
        return "the machine it ran on was lost", False
    if isinstance(error, OutOfMemoryError):
        return "its machine ran out of memory and Ray ended the trial's process", None
    if isinstance(error, RayActorError):
        return "the trial's process died (killed, out of memory, or crashed)", None
    if error is None:
        return "the trial ended with an error that Ray did not keep", None
    return f"{type(error).__name__}: {_own_words(error)}", True


def _is_node_lost(error: RayActorError) -> bool:
    words = str(error)
    return error.preempted or isinstance(error, ActorUnavailableError) or any(lost in words for lost in NODE_LOST)


def _own_words(error: Exception) -> str:
    """The last line without the error's name; before it Ray puts the traceback of the worker."""
    lines = str(error).strip().splitlines()
    return re.sub(r"^[\w.]+: ", "", lines[-1]) if lines else ""
