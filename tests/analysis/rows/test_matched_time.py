"""Variability read where trials are alike: equal steps after 99 % accuracy, equal excess loss."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.rows.frames import load_study, values
from analysis.rows.measures import at_equal_loss_excess, at_equal_steps, terminal_courses


def with_column(table: pa.Table, name: str, numbers) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), pa.array(list(numbers), table.schema.field(index).type))


@pytest.fixture
def frame(make_store):
    """Two trials: gnc1_rank = 100 / step; the second is slower to reach the terminal phase and to lose its loss."""
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 24)])
    rows = store.results
    slow = values(rows, "num_classes") == 24
    step = values(rows, "step")
    rows = with_column(rows, "gnc1_rank", np.where(step > 0, 100 / np.maximum(step, 1), 200.0))
    rows = with_column(rows, "terminal", step >= np.where(slow, 480, 120))
    rows = with_column(rows, "loss_excess", np.where(slow, 2.0, 1.0) * 10 / np.maximum(step, 1))
    store.results = rows
    return load_study(store)


def by_size(table: pa.Table, name: str) -> dict[int, float]:
    return dict(zip(table["num_classes"].to_pylist(), table[name].to_pylist(), strict=True))


def test_steps_count_from_the_first_terminal_epoch(frame):
    courses = terminal_courses(frame.rows, frame.final)
    sizes = dict(zip(frame.final["trial"].to_pylist(), frame.final["num_classes"].to_pylist(), strict=True))
    steps = np.split(courses.steps, courses.bounds[1:-1])
    found = {sizes[key]: own.tolist() for key, own in zip(courses.trials.to_pylist(), steps, strict=True)}
    assert found == {12: [0, 120, 360, 840, 1380], 24: [0, 480, 1020]}


def test_equal_steps_reads_every_trial_at_the_shortest_terminal_time(frame):
    matched = at_equal_steps(frame.rows, frame.final)
    assert matched[1] == "1020 steps after 99 %"
    found = by_size(matched[0], "gnc1_rank")
    assert found[24] == pytest.approx(100 / 1500)
    # 1020 steps after step 120 lie between the epochs at steps 960 and 1500, on a line in log measure against steps
    share = (1020 - 840) / (1380 - 840)
    assert found[12] == pytest.approx(np.exp((1 - share) * np.log(100 / 960) + share * np.log(100 / 1500)))


def test_equal_excess_loss_reads_every_trial_where_the_worst_one_ends(frame):
    matched = at_equal_loss_excess(frame.rows, frame.final)
    assert matched[1] == "loss_excess 0.0133"
    found = by_size(matched[0], "gnc1_rank")
    assert found[24] == pytest.approx(100 / 1500)
    assert found[12] == pytest.approx(100 / 750, rel=0.02)  # its excess is 10 / step: 0.0133 at step 750


def test_a_trial_that_never_reached_the_terminal_phase_is_null(frame):
    slow = values(frame.rows, "num_classes") == 24
    rows = with_column(frame.rows, "terminal", values(frame.rows, "terminal") & ~slow)
    matched = at_equal_steps(rows, frame.final)
    assert by_size(matched[0], "gnc1_rank")[24] is None
    assert by_size(matched[0], "gnc1_rank")[12] == pytest.approx(100 / 1500)


def test_without_a_tabulated_optimum_there_is_no_equal_excess(frame):
    rows = with_column(frame.rows, "loss_excess", [None] * frame.rows.num_rows)
    assert at_equal_loss_excess(rows, frame.final) is None


def test_without_terminal_trials_there_is_no_shared_moment(frame):
    rows = with_column(frame.rows, "terminal", [False] * frame.rows.num_rows)
    assert at_equal_steps(rows, frame.final) is None
    assert at_equal_loss_excess(rows, frame.final) is None
