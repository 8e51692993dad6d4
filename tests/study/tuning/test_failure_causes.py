"""What Ray's errors say of a trial's end: the trial's own failure, the machine's, or not to be told."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError

from study.execution.signals import Preempted
from study.store.storage import FolderError
from study.tuning.failure_causes import how_it_ended


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
        (None, "did not keep", True),
    ],
)
def test_an_error_is_told_in_words_and_charged_only_where_it_is_the_trials_own(error, words, is_charged):
    reason, charged = how_it_ended(error)
    assert words in reason
    assert charged is is_charged
