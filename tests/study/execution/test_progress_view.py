"""The time left in words."""

import pytest

from study.execution import progress_view
from study.execution.progress_view import Pace, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "less than 1 s"),
        (0.6, "1 s"),
        (59, "59 s"),
        (60, "1 min 00 s"),
        (3600, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    assert duration(seconds) == words


def test_the_time_left_is_in_proportion_and_nothing_is_said_at_the_end(monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress_view.time, "monotonic", lambda: now)
    pace = Pace()
    assert pace.left(0.0) == "estimating time left"
    assert pace.left(0.2) == "estimating time left"
    now = 10.0
    assert pace.left(0.6) == "10 s left"  # 0.4 took 10 s, 0.4 is left
    assert pace.left(0.999) == "less than 1 s left"
    assert pace.left(1.0) == ""
