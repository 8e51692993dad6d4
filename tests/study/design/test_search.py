"""[search] and [tune]: what is drawn, what is refused, and that more draws change no earlier one."""

import math

import pytest

from study.design.errors import StudyError
from study.design.search import make_distribution, random_share
from study.design.study_file import parse_study

STUDY = """
name = "s"
[fixed]
dataset = "synthetic"
encoder = "mlp"
samples_per_class = 16
steps = 50
batch_size = 32
[grid]
num_classes = [6, 12]
feature_dim = [3]
seed = [0, 1]
[search]
{search}
[tune]
{tune}
"""
RATE = "learning_rate = { log_uniform = [0.02, 0.5] }"
RANDOM = 'method = "random"\nnum_samples = 5'
OPTUNA = 'method = "optuna"\nnum_samples = 5\nmetric = "train_loss"\nmode = "min"'


def study(search: str = RATE, tune: str = RANDOM):
    return parse_study(STUDY.format(search=search, tune=tune))


def keys(*arguments) -> list[str]:
    return [config.key for config in study(*arguments).configs]


@pytest.mark.parametrize(
    ("given", "low", "middle", "high"),
    [
        ({"uniform": [0.0, 0.3]}, 0.0, 0.15, 0.3),
        ({"log_uniform": [0.01, 1.0]}, 0.01, 0.1, 1.0),
        ({"int_uniform": [3, 7]}, 3, 5, 7),
        ({"log_int_uniform": [2, 50]}, 2, 9, 50),
        ({"choice": ["sgd", "adamw", "x"]}, "sgd", "adamw", "x"),
    ],
)
def test_a_distribution_runs_from_its_low_end_to_its_high_one(given, low, middle, high):
    distribution = make_distribution("x", given)
    found = [distribution.at(share) for share in (0.0, 0.5, 1 - 1e-12)]
    assert (
        found == pytest.approx([low, middle, high], rel=1e-5)
        if isinstance(low, float)
        else found == [low, middle, high]
    )
    assert all(distribution.holds(value) for value in found)
    assert not distribution.holds(None)


def test_whole_numbers_are_equally_likely_and_drawn_numbers_have_six_digits():
    dice = make_distribution("x", {"int_uniform": [1, 6]})
    counts = [sum(dice.at(k / 6000) == face for k in range(6000)) for face in range(1, 7)]
    assert counts == [1000] * 6
    drawn = [make_distribution("x", {"log_uniform": [1e-5, 1.0]}).at(random_share(0, "x", i)) for i in range(200)]
    assert all(value == float(f"{value:.6g}") for value in drawn)
    logs = [math.log10(value) for value in drawn]
    assert sum(logs) / 200 == pytest.approx(-2.5, abs=0.3)  # standard error 0.1


def test_more_draws_and_more_settings_only_add():
    five, nine = keys(), keys(RATE, RANDOM.replace("5", "9"))
    assert len(five) == 5 * 4
    assert set(five) < set(nine)
    rates = {config.learning_rate for config in study().configs}
    both = study(RATE + "\nweight_decay = { uniform = [0.0, 0.001] }")
    assert {config.learning_rate for config in both.configs} == rates
    assert {config.learning_rate for config in study(RATE, RANDOM + "\nsearch_seed = 1").configs}.isdisjoint(rates)


def test_every_cell_and_seed_gets_the_same_draws():
    by_cell: dict[tuple, set] = {}
    for config in study().configs:
        by_cell.setdefault((config.num_classes, config.seed), set()).add(config.learning_rate)
    assert len(by_cell) == 4
    assert len({frozenset(rates) for rates in by_cell.values()}) == 1


def test_an_adaptive_study_knows_its_cells_and_how_many_trials_it_comes_to():
    found = study(RATE, OPTUNA)
    assert [cell.seeds for cell in found.cells] == [(0, 1), (0, 1)]
    assert found.configs == ()
    assert found.num_planned == 2 * 2 * 5
    assert found.varied == ("num_classes", "learning_rate", "seed")


@pytest.mark.parametrize(
    ("search", "tune", "words"),
    [
        (RATE, 'method = "grid"', "must be left out with method .grid."),
        ("", RANDOM, "must hold at least one distribution"),
        (RATE, 'method = "bayes"', "method must be 'grid', 'random' or 'optuna', got 'bayes'. It is: how trials"),
        (RATE, 'method = "random"', "num_samples must be given"),
        (RATE, RANDOM.replace("5", "0"), "num_samples must be at least 1, got 0. It is: how often"),
        (RATE, 'method = "optuna"\nnum_samples = 3', "metric and mode must be given together"),
        (RATE, OPTUNA.replace("train_loss", "trian_loss"), "Did you mean 'train_loss'"),
        (RATE, OPTUNA.replace('"min"', '"low"'), "mode must be 'min' or 'max', got 'low'"),
        (RATE, OPTUNA.replace('"train_loss"', '["train_loss", "gnc3"]'), "given together"),
        (RATE, RANDOM + "\nnum_sample = 3", "Did you mean 'num_samples'"),
        ("learning_rate = 0.1", RANDOM, "must be a table with one distribution, got 0.1"),
        ("learning_rate = { log_unifrom = [0.1, 1.0] }", RANDOM, "Did you mean 'log_uniform'"),
        ("learning_rate = { log_uniform = [0.0, 1.0] }", RANDOM, "two numbers above 0"),
        ("learning_rate = { uniform = [1.0, 0.1] }", RANDOM, "the lower first, got .1.0, 0.1."),
        ("width = { int_uniform = [8.5, 12] }", RANDOM, "two whole numbers"),
        ('optimizer = { choice = ["sgd"] }', RANDOM, "at least two different values"),
        ("learning_rat = { uniform = [0.1, 1.0] }", RANDOM, "Did you mean 'learning_rate'"),
        ("steps = { int_uniform = [8, 12] }", RANDOM, "either in .search. or in .fixed."),
        ("seed = { int_uniform = [8, 12] }", RANDOM, "either in .search. or in"),
        ("data_seed = { int_uniform = [8, 12] }", RANDOM, "once per seed"),
        ("samples_per_class = { int_uniform = [1, 9] }", RANDOM, "either in"),
        (RATE, RANDOM + '\nscheduler = "asha"', "stop_metric must be given"),
        (RATE, OPTUNA + '\nscheduler = "asha"\nmin_trials = 2', "min_trials must be left out with scheduler 'asha'"),
        (RATE, OPTUNA + "\ngrace_epochs = 2", "must be left out without a scheduler"),
        (RATE, OPTUNA + '\nscheduler = "asha"\nreduction_factor = 1', "reduction_factor must be greater than 1, got 1"),
        (RATE, OPTUNA + '\nscheduler = "asha"\nover = ["num_clases"]', "Did you mean 'num_classes'"),
        ("", 'scheduler = "asha"\nstop_metric = "train_loss"\nstop_mode = "min"', "over must be given"),
        ("width = { int_uniform = [0, 8] }", OPTUNA, "width must be at least 1"),
    ],
)
def test_a_wrong_search_is_refused_in_words(search, tune, words):
    with pytest.raises(StudyError, match=words):
        study(search, tune)


def test_a_rule_is_the_same_however_many_trials_there_are():
    asha = OPTUNA + '\nscheduler = "asha"\n'
    rules = [study(RATE, asha + more).search.scheduler.digest for more in ("", "startup = 3", "grace_epochs = 2")]
    assert rules[0] == rules[1] != rules[2]
