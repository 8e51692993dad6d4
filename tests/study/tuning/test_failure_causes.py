"""What Ray's errors say of a trial's end: the trial's own failure, the machine's, or not to be told."""

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError

from study.execution.signals import Preempted
from study.store.storage import FolderError
from study.tuning import failure_causes
from study.tuning.failure_causes import draining, error_of, how_it_ended
from study.tuning.resources import TESTED_RAY, ray_problem


@pytest.mark.parametrize(
    ("error", "words", "is_charged"),
    [
        (Preempted("the process received SIGTERM"), "preempted: the process received SIGTERM", False),
        (NodeDiedError("gone"), "the machine it ran on was lost", False),
        (RayActorError(preempted=True), "the machine it ran on was lost", False),
        (RayActorError(error_msg="The actor died because its node has died."), "was lost", False),
        (ActorUnavailableError("no answer", None), "was lost", False),
        (FolderError("folder must be shared, got another"), "folder must be shared", False),
        (ActorDiedError(), "process died", None),
        (OutOfMemoryError("low"), "ran out of memory", None),
        (ValueError("a\nb: c"), "ValueError: c", True),
        (None, "did not keep", None),
    ],
)
def test_an_error_is_told_in_words_and_charged_only_where_it_is_the_trials_own(error, words, is_charged):
    reason, charged = how_it_ended(error)
    assert words in reason
    assert charged is is_charged


@pytest.mark.xdist_group("ray")
def test_a_ray_without_its_private_name_for_draining_nodes_fails_no_trial(monkeypatch):
    """As after an upgrade of Ray: the name is gone from the real object, or raises."""
    state = ray._private.state.state
    monkeypatch.setattr(failure_causes, "DRAIN_POLL_SECONDS", 0.0)
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        ask = draining()
        assert ask() == ""
        with monkeypatch.context() as upgraded:
            upgraded.delattr(type(state), "get_draining_nodes")
            with pytest.warns(RuntimeWarning, match="does not say which machines are taken away"):
                assert ask() == ""
        here = ray.get_runtime_context().get_node_id()
        monkeypatch.setattr(type(state), "get_draining_nodes", lambda self: {here: 0})
        assert "is being taken away" in ask()
    finally:
        ray.shutdown()


def test_a_ray_that_names_no_file_of_the_error_leaves_the_cause_unknown():
    assert error_of(SimpleNamespace()) is None


def test_only_a_release_of_ray_between_the_tested_ones_is_without_a_warning():
    newest = TESTED_RAY[1]
    assert ray_problem() is None
    assert ray_problem(f"{newest}.9") is None
    for version in ("2.9.3", "3.0.0.dev0", "2.1000.1"):
        assert ray_problem(version).startswith(f"Ray {version} is not among the tested versions, 2.50 to {newest}")
