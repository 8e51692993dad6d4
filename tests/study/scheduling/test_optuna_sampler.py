"""What Optuna suggests next: a function of what is known, near what was good, away from what was bad."""

import math
import statistics

import pytest

from study.design.search import Search, make_distribution
from study.scheduling.optuna_sampler import BAD, COMPLETE, RUNNING, STOPPED, Known, next_values

SPACE = (
    ("learning_rate", make_distribution("learning_rate", {"log_uniform": [1e-4, 1.0]})),
    ("depth", make_distribution("depth", {"int_uniform": [1, 8]})),
    ("optimizer", make_distribution("optimizer", {"choice": ["sgd", "adamw"]})),
)
ONE = Search("optuna", SPACE, num_samples=40, metrics=("a",), modes=("min",), startup=8)
TWO = Search("optuna", SPACE, num_samples=40, metrics=("a", "b"), modes=("min", "max"), startup=8)


def loss(values) -> float:
    """Least at rate 0.01, depth 3, sgd."""
    return (
        math.log10(values["learning_rate"] / 0.01) ** 2
        + (values["depth"] - 3) ** 2 / 9
        + (values["optimizer"] != "sgd")
    )


def run(search: Search, outcome, count: int = 40) -> list[Known]:
    known: list[Known] = []
    for index in range(count):
        known.append(outcome(next_values(search, "cell", index, known)))
    return known


def complete(values) -> Known:
    return Known(values, COMPLETE, (loss(values),))


def test_the_first_suggestions_are_the_random_draws_and_all_depend_on_what_is_known_alone():
    first, again = run(ONE, complete), run(ONE, complete)
    assert [k.values for k in first[:8]] == [ONE.draw(i) for i in range(8)]
    assert first == again
    assert next_values(ONE, "cell", 8, first[:8]) != next_values(ONE, "other cell", 8, first[:8])
    assert next_values(ONE, "cell", 8, first[:8]) != next_values(ONE, "cell", 8, first[:7])
    assert all(value == float(f"{value:.6g}") for value in (k.values["learning_rate"] for k in first))


def test_suggestions_gather_where_the_loss_is_low():
    found = run(ONE, complete)
    random = [loss(ONE.draw(index)) for index in range(40)]
    assert statistics.median(k.goals[0] for k in found[20:]) < statistics.median(random) / 3


@pytest.mark.parametrize("search", [ONE, TWO])
def test_suggestions_keep_away_from_what_diverged(search):
    """Nothing but divergence tells the rates apart."""

    def outcome(values) -> Known:
        if values["learning_rate"] > 0.01:
            return Known(values, BAD)
        return Known(values, COMPLETE, (float(values["depth"]),) * len(search.metrics))

    found = run(search, outcome)
    draws = sum(search.draw(index)["learning_rate"] > 0.01 for index in range(40)) / 40
    assert sum(k.state == BAD for k in found[20:]) / 20 < draws / 2


def test_stopped_suggestions_count_by_how_far_they_came():
    def outcome(values) -> Known:
        if loss(values) > 1:
            return Known(values, STOPPED, (loss(values),), {1: loss(values) + 1, 2: loss(values)})
        return complete(values)

    found = run(ONE, outcome)
    assert sum(k.state == STOPPED for k in found[20:]) < sum(k.state == STOPPED for k in found[:20])


def test_two_goals_spread_over_their_front():
    """Goals pull the rate both ways: loss least at 1e-3, gain most at 1e-1, every rate between is on the front."""

    def outcome(values) -> Known:
        place = math.log10(values["learning_rate"])
        return Known(values, COMPLETE, ((place + 3) ** 2, -((place + 1) ** 2)))

    places = [math.log10(k.values["learning_rate"]) for k in run(TWO, outcome, 60)[20:]]
    assert sum(-3.3 < place < -0.7 for place in places) > 0.8 * len(places)
    assert max(places) - min(places) > 1.2


def test_running_suggestions_are_not_repeated():
    known = run(ONE, complete, 20)
    running = []
    for index in range(20, 26):
        running.append(Known(next_values(ONE, "cell", index, [*known, *running]), RUNNING))
    assert len({k.values["learning_rate"] for k in running}) == 6
