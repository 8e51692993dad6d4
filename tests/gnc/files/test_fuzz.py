"""Mutated files of every kind, a few each; `python -m tests.fuzz_files` tries thousands."""

import pytest

from tests.fuzz_files import KINDS, fuzz


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_refused_in_one_line_or_read_and_nothing_in_them_is_run(kind):
    assert sum(fuzz(kind, 50, seed=1).values()) == 50
