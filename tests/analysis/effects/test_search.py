"""What a search found, on a made-up one whose margin depends on the learning rate alone."""

import math

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects.search import groups_of, importances, rungs, search_of, stopped_trials
from analysis.figures.panels import render
from analysis.figures.search import block_history, block_importance, block_parallel, numbers_parallel, places_of
from analysis.report.report import write_report
from analysis.rows.frames import load_study
from study.design.search import GRID


@pytest.fixture
def found(search_store):
    frame = load_study(search_store)
    search = search_of(search_store.study)
    return frame, search, groups_of(frame.final, search)


def test_the_best_so_far_never_falls_and_ends_at_the_best(found):
    frame, _, (group,) = found
    assert len(group.trials) == frame.final.num_rows
    assert (np.diff(group.best) >= 0).all()
    assert group.best[-1] == group.goal.max()
    ended = dict(zip(frame.final["trial"].to_pylist(), frame.final["finished_at"].to_pylist(), strict=True))
    assert [ended[trial] for trial in group.trials] == sorted(ended.values())


def test_the_setting_that_matters_is_called_important_by_both_evaluators(found):
    _, search, groups = found
    (importance,) = importances(groups, search)
    assert set(importance.shares) == {"fANOVA", "PED-ANOVA"}
    for shares in importance.shares.values():
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["learning_rate"] > 0.7


def test_what_distinguishes_the_stopped_trials_comes_first(found):
    frame, search, _ = found
    first, second = stopped_trials(frame.trials, search)
    assert (first.setting, first.above) == ("learning_rate", 1.0)  # every stopped one lies above every other
    assert first.p < 1e-4
    assert first.stopped > 1 > first.complete
    assert second.setting == "weight_decay"
    assert second.p > 0.001
    assert stopped_trials(frame.trials.slice(0, 0), search) == []


def test_rungs_double_and_count_every_trial_once_where_it_was_stopped(found):
    frame, search, _ = found
    ladder = rungs(frame, search)
    assert [rung.epoch for rung in ladder] == [1, 2, 4]  # trials measure epochs 0 to 7
    stopped = sum(state == "stopped" for state in frame.trials["state"].to_pylist())
    assert [rung.stopped for rung in ladder] == [0, stopped, 0]
    assert [rung.reached for rung in ladder] == [40, 40, 40 - stopped]
    assert ladder[1].stopped_at < ladder[1].went_on_at
    assert rungs(frame, GRID) == []


def test_places_on_an_axis_are_to_scale_and_its_ends_are_written(found):
    at, ends = places_of([0.01, 0.1, 1.0], "log_uniform")
    assert at == pytest.approx([0, 0.5, 1])
    assert ends == {0.0: "0.01", 1.0: "1"}
    at, names = places_of(["a", "b", "a"], "choice")
    assert at.tolist() == [0.25, 0.75, 0.25]
    assert list(names.values()) == ["a", "b"]
    _, search, (group,) = found
    numbers = numbers_parallel(group, search)
    assert numbers.trials[-1] == group.trials[int(np.argmax(group.goal))]
    assert (np.diff(numbers.places["margin_min_lower"]) >= 0).all()


def test_the_report_of_a_search_opens_with_it_and_every_dot_names_its_trial(search_store, found):
    _, _, (group,) = found
    summary = write_report(search_store)
    assert summary.figures[:3] == ("history", "parallel", "importance")
    page = search_store.written["report.html"].decode()
    assert page.index('<div id="history">') < page.index('<div id="codes">')
    assert all(f"<title>{trial}" in page for trial in group.trials)
    assert "The rungs of the scheduler" in page


def test_a_search_that_measured_nothing_says_so_in_a_sentence(search_store, found):
    frame, search, _ = found
    place = frame.final.schema.get_field_index("margin_min_lower")
    nothing = pa.nulls(frame.final.num_rows, pa.float64())
    empty = frame.final.set_column(place, frame.final.schema.field(place), nothing)
    groups = groups_of(empty, search)
    assert (
        block_history(groups).missing == "No complete trial has measured margin_min_lower, so there is no best value."
    )
    assert block_parallel(groups, search).missing.startswith("No group of the search has 8 complete trials")
    assert block_importance(list(importances(groups, search)), search).panels == ()
    assert groups_of(frame.final.slice(0, 0), search) == []


def test_panels_of_a_search_draw_what_their_numbers_say(found):
    _, search, groups = found
    blocks = [block_history(groups), block_parallel(groups, search)]
    blocks.append(block_importance(list(importances(groups, search)), search))
    for block in blocks:
        (drawn,) = render(block)
        assert math.isfinite(drawn.width)
        assert "nan" not in drawn.body.lower().replace("dominant-baseline", "")
