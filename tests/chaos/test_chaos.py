"""Faults of `python -m tests.chaos` that once broke something, and one of each kind that needs no Ray, at fixed seeds."""

import pytest

from study.store.store import Store
from tests.chaos.__main__ import KINDS, disturb, plan
from tests.chaos.scene import make_undisturbed

FAILED_ONCE = (
    "two-at-once:1005",  # one process removed the checkpoints' folder while the other wrote into it
)
ONE_EACH = ("torn-checkpoint:7", "torn-fragment:7", "disk-full-to-the-end:7")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    return make_undisturbed(tmp_path_factory.mktemp("chaos") / "undisturbed")


@pytest.mark.timeout(900)
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("fault", [*FAILED_ONCE, *ONE_EACH])
def test_after_a_fault_a_rerun_ends_with_the_tables_of_an_undisturbed_run(fault, tmp_path, undisturbed):
    outcome, notes = disturb(fault, tmp_path / "scene", undisturbed, on_ray=False)
    if outcome.startswith("skipped"):
        pytest.skip(outcome)
    assert outcome == "ok", notes


def test_a_seed_names_the_same_faults_and_every_kind_has_its_turn():
    faults = plan(len(KINDS), 3)
    assert faults == plan(len(KINDS), 3)
    assert {fault.partition(":")[0] for fault in faults} == set(KINDS)
    assert plan(100, 3)[: len(KINDS)] == faults
    assert set(plan(5, 3)).isdisjoint(plan(5, 4))
