"""`gnc best`: means over seeds, what does not take part, and a study file that names the same trials."""

import json
import math
import re
import statistics

import numpy as np
import pytest

from gnc.cli.main import main
from study.design.study_file import parse_study
from study.store.store import Store
from study.upkeep.best import METRICS, Goal, choose_goals, default_by, find_best, next_study, on_front, toml_value
from tests.study.conftest import made_up_config, made_up_measurement, made_up_record, remove_rows

STUDY = """
name = "rates"
keep = "nothing"
[fixed]
temperature = 0.1
augmentation = "shift"
[grid]
num_classes = [12, 24]
learning_rate = [0.05, 0.1, 0.2]
seed = [0, 1, 2]
[grid.zip]
feature_dim = [3, 4]
samples_per_class = [16, 24]
[resources]
cpus = 2.0
"""


ACCURACY = [Goal("test_accuracy", "max", "")]


def finish(store: Store, config, value: float | None, **record) -> None:
    rows = [made_up_measurement(e, test_accuracy=v) for e, v in enumerate((9.0, value))]  # only the last row counts
    store.write_fragment(config, rows, made_up_record(**record))


def accuracy(config) -> float:
    """Best at 0.1 for 12 classes and at 0.2 for 24, with noise that the mean over seeds averages."""
    best = 0.1 if config.num_classes == 12 else 0.2
    return 1 - abs(config.learning_rate - best) + 0.01 * (config.seed - 1) * config.feature_dim


@pytest.fixture
def filled(store) -> Store:
    store.write_study(STUDY)
    for config in parse_study(STUDY).configs:
        finish(store, config, accuracy(config))
    return store


def test_the_best_of_each_cell_is_found_with_its_error(filled, capsys):
    by = "num_classes,feature_dim"
    assert main(["best", filled.uri, "--metric", "test_accuracy", "--by", by, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(w["by"]["num_classes"], w["by"]["feature_dim"]) for w in found["winners"]] == [
        (12, 3),
        (12, 4),
        (24, 3),
        (24, 4),
    ]
    assert [w["chosen"]["learning_rate"] for w in found["winners"]] == [0.1, 0.1, 0.2, 0.2]
    first = found["winners"][0]
    values = [1 + 0.03 * s for s in (-1, 0, 1)]
    assert found["goals"] == [{"metric": "test_accuracy", "mode": "max", "says": "as its column says"}]
    assert first["mean"]["test_accuracy"] == pytest.approx(1)
    assert first["standard_error"]["test_accuracy"] == pytest.approx(statistics.stdev(values) / math.sqrt(3))
    assert (first["seeds"], first["candidates"]) == ([0, 1, 2], 3)
    assert (
        main(
            [
                "best",
                filled.uri,
                "--metric",
                "test_accuracy",
                "--mode",
                "min",
                "--by",
                by,
                "--where",
                "num_classes == 12",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "K=12 d=3:  0.9 +- 0.017  3 seeds, best of 3:  n=16 learning_rate=0.2" in out
    assert "K=24" not in out


def test_by_default_a_cell_is_a_point_of_the_grid(filled, capsys):
    study = parse_study(STUDY)
    assert default_by(study) == ("num_classes", "learning_rate", "feature_dim", "samples_per_class")
    over = STUDY + '[tune]\nscheduler = "asha"\nstop_metric = "test_accuracy"\nover = ["learning_rate"]\n'
    assert default_by(parse_study(over)) == ("num_classes", "feature_dim", "samples_per_class")
    assert main(["best", filled.uri, "--metric", "test_accuracy"]) == 0
    out = capsys.readouterr().out
    assert out.count("the only one") == 12
    assert "Every cell has one candidate, so nothing was chosen." in out


@pytest.mark.parametrize("state", ["diverged", "stopped"])
def test_candidates_with_an_unfinished_trial_do_not_take_part(filled, state, capsys):
    config = next(
        c for c in parse_study(STUDY).configs if (c.num_classes, c.feature_dim, c.learning_rate) == (12, 3, 0.1)
    )
    remove_rows(filled, config.key)
    finish(filled, config, 1.0, state=state)
    best = find_best(filled, ACCURACY, by=["num_classes", "feature_dim"])
    assert best.winners[0].chosen["learning_rate"] == 0.05
    assert best.unfinished == 1
    assert main(["best", filled.uri, "--metric", "test_accuracy"]) == 0
    assert "1 candidate left out: trials diverged" in capsys.readouterr().out


def test_candidates_that_are_as_good_are_counted(store, capsys):
    for learning_rate in (0.1, 0.2, 0.3):
        finish(store, made_up_config(learning_rate=learning_rate), 0.5 if learning_rate < 0.3 else 0.4)
    command = ["best", store.uri, "--all", "--by", "num_classes", "--metric", "test_accuracy"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "best of 3, and 1 more as good:" in out
    assert "Of those as good as each other one is named" in out


def test_trials_without_the_metric_are_counted_not_averaged(filled):
    config = parse_study(STUDY).configs[0]
    finish(filled, config, None)
    best = find_best(filled, ACCURACY, by=["num_classes"])
    assert best.unmeasured == 1


@pytest.mark.parametrize("by", ["num_classes,feature_dim", "num_classes", "feature_dim,num_classes,learning_rate"])
def test_the_next_study_names_the_same_trials_or_other_seeds_of_them(filled, tmp_path, capsys, by):
    path = tmp_path / "next.toml"
    command = ["best", filled.uri, "--metric", "test_accuracy", "--by", by, "--write", str(path)]
    assert main([*command, "--json"]) == 0
    winners = json.loads(capsys.readouterr().out)["winners"]
    again = parse_study(path.read_text())
    assert {key for winner in winners for key in winner["keys"]} == {config.key for config in again.configs}
    path.unlink()
    assert main([*command, "--seeds", "5,3,4", "--json"]) == 0
    capsys.readouterr()
    assert path.read_text().startswith(f"# gnc run {path}\n")
    study = parse_study(path.read_text())
    assert {config.cell for config in study.configs} == {config.cell for config in again.configs}
    assert len(study.configs) == 3 * len(winners)
    assert {config.seed for config in study.configs} == {3, 4, 5}  # none of those that chose
    assert (study.name, study.keep, study.resources.cpus) == ("rates-best", "nothing", 2.0)
    for line in (
        "dataset = ",
        "encoder = ",
        "temperature = 0.1 ",
        "momentum = 0.9 ",
    ):  # defaults too: it says what was best
        assert f"\n{line}" in path.read_text()
    assert re.search(r"^learning_rate = .*# Peak learning rate\.$", path.read_text(), flags=re.MULTILINE)
    assert main(["check", str(path), filled.uri, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 3 * len(winners)
    assert main(command) == 2
    assert "--write must name a new file" in capsys.readouterr().err


def test_winners_with_other_settings_or_seeds_become_blocks_of_their_own(store):
    """temperature has no effect with normalization none, so that lists cannot move together."""
    for config in (
        made_up_config(normalization="none", seed=0),
        made_up_config(normalization="both", temperature=0.3, seed=0),
        made_up_config(normalization="both", temperature=0.3, seed=1),
    ):
        finish(store, config, 0.5)
    best = find_best(store, ACCURACY, by=["normalization"])
    text = next_study(best, study=None)
    assert text.count("[[grid]]") == 2
    assert len(parse_study(text).configs) == 3
    assert len(parse_study(next_study(best, study=None, seeds=[7])).configs) == 2


def test_a_winner_of_one_trial_is_a_study_of_one(store):
    config = made_up_config()
    finish(store, config, 0.5)
    text = next_study(find_best(store, ACCURACY, by=["num_classes"]), study=None)
    assert [c.key for c in parse_study(text).configs] == [config.key]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--metric must be given where no [tune] names one, got none. Write --metric test_accuracy."),
        (["--metric", "step"], "--mode must be given for step, of which neither much nor little is better by itself"),
        (["--metric", "test_accuracy", "--mode", "max", "--mode", "min"], "--mode must be given once for each of 1"),
        (["--metric", "test_accuracy", "--study", "rate"], "got 'rate'. Did you mean 'rates'?"),
        (
            ["--metric", "tset_accuracy"],
            "--metric must hold known keys only, got 'tset_accuracy'. Did you mean 'test_accuracy'?",
        ),
        (["--metric", "test_accuracy", "--by", "num_clases"], "Did you mean 'num_classes'?"),
        (
            ["--metric", "test_accuracy", "--by", "seed"],
            "--by must name settings that make a cell, got 'seed'. Means are taken over the seeds.",
        ),
        (["--metric", "test_accuracy", "--all"], "--by must be given"),
        (["--metric", "test_accuracy", "--seeds", "a", "--write", "x.toml"], "--seeds must be whole numbers"),
    ],
)
def test_wrong_input_is_refused(filled, capsys, arguments, words):
    assert main(["best", filled.uri, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_nothing_to_write_is_refused(store, tmp_path, capsys):
    store.write_study(STUDY)
    assert main(["best", store.uri, "--metric", "test_accuracy", "--write", str(tmp_path / "n.toml")]) == 2
    assert "--write must have a best trial to write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", [True, 1, -1e-05, 1e16, 0.1, 'a "quoted" \\ word', "line\nbreak \x7f é", ["a", 1], {"b": [2.5]}]
)
def test_values_survivetoml_value(value):
    import tomllib

    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


@pytest.mark.parametrize(
    ("metric", "mode"), [("gnc1_rank", "min"), ("margin_min_lower", "max"), ("test_accuracy", "max")]
)
def test_a_column_says_whether_much_or_little_of_it_is_better(metric, mode):
    assert choose_goals([metric], [], None) == (Goal(metric, mode, "as its column says"),)
    assert choose_goals([metric], ["max"], None) == (Goal(metric, "max", "as asked"),)


def test_every_direction_is_min_or_max_and_references_have_none():
    assert {column.better for column in METRICS.values()} == {"min", "max", ""}
    assert not any(
        METRICS[name].better for name in ("epoch", "step", "reference_margin_lower", "random_margin", "ufm_margin")
    )


def test_the_metrics_and_modes_of_a_search_are_those_of_its_study():
    tune = '[search]\nweight_decay = { choice = [0.0, 0.1] }\n[tune]\nmethod = "optuna"\nnum_samples = 2\n'
    study = parse_study(STUDY + tune + 'metric = ["test_accuracy", "step"]\nmode = ["min", "max"]\n')
    goals = choose_goals([], [], study)
    assert [(goal.metric, goal.mode, goal.says) for goal in goals] == [
        ("test_accuracy", "min", "as [tune] says"),
        ("step", "max", "as [tune] says"),
    ]
    assert choose_goals(["gnc1_rank"], [], study)[0].mode == "min"


def test_several_metrics_give_what_no_other_candidate_beats_in_all(store, capsys):
    """Against the definition, for values with ties."""
    store.write_study(STUDY)
    tried = [(0.1, 0.5), (0.3, 0.5), (0.3, 0.2), (0.2, 0.9), (0.5, 0.9), (0.5, 0.9), (0.6, 1.0)]
    for index, (accuracy, variability) in enumerate(tried):
        row = made_up_measurement(1, test_accuracy=accuracy, gnc1_rank=variability)
        store.write_fragment(made_up_config(weight_decay=0.1 * index), [row], made_up_record())
    unbeaten = {one for one in tried if not any(o[0] >= one[0] and o[1] <= one[1] and o != one for o in tried)}
    command = ["best", store.uri, "--all", "--metric", "test_accuracy", "--metric", "gnc1_rank", "--by", "num_classes"]
    assert main([*command, "--json"]) == 0
    winners = json.loads(capsys.readouterr().out)["winners"]
    found = [(w["mean"]["test_accuracy"], w["mean"]["gnc1_rank"]) for w in winners]
    assert set(found) == unbeaten
    assert found == sorted(found, reverse=True)
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("Best is the largest test_accuracy (as its column says) and the smallest gnc1_rank (as its")
    assert out.count("best of 7") == len(winners) == 4


def test_a_metric_of_ones_own_is_compared_where_its_mode_is_given(store, capsys):
    for index, value in enumerate((0.5, 0.7)):
        row = made_up_measurement(1, custom={"spread": value})
        store.write_fragment(made_up_config(weight_decay=0.1 * index), [row], made_up_record())
    command = ["best", store.uri, "--all", "--by", "num_classes", "--mode", "min", "--metric"]
    assert main([*command, "spread"]) == 0
    assert "K=24:  0.5  1 seed" in capsys.readouterr().out
    assert main([*command, "spraed"]) == 2
    assert "Did you mean 'spread'?" in capsys.readouterr().err


def test_a_metric_that_nobody_measured_is_said_in_one_sentence(filled, tmp_path, capsys):
    command = ["best", filled.uri, "--by", "num_classes", "--metric", "unseen_accuracy"]
    for one in parse_study(STUDY).configs:
        remove_rows(filled, one.key)
        filled.write_fragment(one, [made_up_measurement(1, unseen_accuracy=None)], made_up_record())
    assert main(command) == 1
    told = "None can be named: unseen_accuracy was measured in none of the 36 finished trials."
    assert told in capsys.readouterr().out
    assert main([*command, "--write", str(tmp_path / "n.toml")]) == 2


def test_a_cell_without_a_temperature_has_a_name(store, capsys):
    finish(store, made_up_config(normalization="none", temperature=None), 0.5)
    assert main(["best", store.uri, "--all", "--by", "temperature", "--metric", "test_accuracy"]) == 0
    assert "tau=none:  0.5" in capsys.readouterr().out


def ref_on_front(points):
    def beaten(p):
        return any((q >= p).all() and (q > p).any() for q in points)

    return np.array([not beaten(p) for p in points])


@pytest.mark.parametrize("goals", [2, 3])
def test_the_front_is_that_of_the_definition_ties_included(goals):
    points = np.random.default_rng(2).integers(0, 6, size=(60, goals)).astype(float)
    np.testing.assert_array_equal(on_front(points), ref_on_front(points))
