"""Hundreds of trials in one `gnc run` on real Ray: what the driver keeps of each."""

import pytest

from benchmarks.overhead import TRIVIAL, run_study

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

TRIALS, EARLY = 400, 100
MOST_A_TRIAL = 1 << 19  # bytes; measured: a third of it. A kept network, data set or history of figures is more


def test_the_driver_keeps_little_of_a_finished_trial(tmp_path):
    run, store = run_study(TRIVIAL.format(seeds=list(range(TRIALS))), tmp_path / "run", TRIALS)
    assert store.read_trials().num_rows == TRIALS
    under_way = [(done, held) for done, held in run.memory if EARLY <= done < TRIALS]  # afterwards it seals
    (early, before), (late, after) = under_way[0], under_way[-1]
    assert late > early, "looked too seldom"
    assert after - before < MOST_A_TRIAL * (late - early), f"{before} bytes at {early} trials, {after} at {late}"
