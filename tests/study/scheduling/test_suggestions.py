"""An adaptive search against the store: its past is read back, unfinished suggestions go on, means over seeds count."""

import dataclasses

import pytest

from study.design.errors import StudyError, make_config
from study.design.study_file import Study, parse_study
from study.scheduling.optuna_sampler import BAD, COMPLETE, RUNNING, STOPPED
from study.scheduling.suggestions import Suggestions, complete_study
from study.store.store import Store
from tests.study.conftest import made_up_measurement, made_up_record
from tests.study.design.test_search import OPTUNA, RATE, STUDY


def search_study(search: str = RATE, tune: str = OPTUNA) -> Study:
    return parse_study(STUDY.format(search=search, tune=tune))


def finish(store: Store, config, loss: float | None, state: str = "complete", **record) -> None:
    rows = [made_up_measurement(epoch, train_loss=loss if epoch == 2 else 9.0 - epoch) for epoch in range(3)]
    store.write_fragment(config, rows, made_up_record(state=state, **record))


def drain(study: Study, store: Store, loss=lambda config: config.learning_rate, spent=frozenset(), most=10**6) -> list:
    """Run the search with made-up outcomes; the trials it ran."""
    search, ran = Suggestions(study, store, spent=set(spent)), []
    while len(ran) < most and (config := search.next()) is not None:
        finish(store, config, loss(config))
        search.ended(config.key, "complete")
        ran.append(config)
    return ran


def past(study: Study, store: Store, spent=frozenset()) -> list:
    """What the search knows of each suggestion of its first cell."""
    search = Suggestions(study, store, spent=set(spent))
    return [search._past(suggestion) for suggestion in search._known[study.cells[0]].values()]


def test_each_cell_gets_its_suggestions_once_a_seed_and_a_second_run_none(store):
    study = search_study()
    ran = drain(study, store)
    assert len(ran) == len({config.key for config in ran}) == 20
    assert {(c.num_classes, c.seed) for c in ran} == {(6, 0), (6, 1), (12, 0), (12, 1)}
    assert len({c.cell for c in ran}) == 10
    assert drain(study, store) == []
    assert {c.key for c in complete_study(study, store).configs} == {c.key for c in ran}


def test_a_search_broken_off_and_continued_is_the_search_run_through(store, tmp_path):
    tune = OPTUNA + "\nstartup = 2"
    whole = drain(search_study(RATE, tune), store)
    broken = type(store)(type(store.storage)(tmp_path / "broken"))
    first = drain(search_study(RATE, tune), broken, most=9)
    more = drain(search_study(RATE, tune), broken)
    assert [c.key for c in first + more] == [c.key for c in whole]


def test_a_metric_of_ones_own_is_searched_for(store, tmp_path):
    (tmp_path / "own.py").write_text("def share(features, labels, weights):\n    return 1.0\n")
    text = STUDY.format(search=RATE, tune=OPTUNA.replace('"train_loss"', '"share"'))
    study = parse_study(text.replace("[fixed]", '[fixed]\nmetrics = ["own.py:share"]'), folder=tmp_path)
    search = Suggestions(study, store, spent=set())
    first = [search.next(), search.next()]  # one suggestion, with two seeds
    for config, value in zip(first, (1.0, 4.0), strict=True):
        rows = [made_up_measurement(epoch, custom={"share": value + epoch}) for epoch in range(3)]
        store.write_fragment(config, rows, made_up_record())
    (known,) = past(study, store)
    assert (known.state, known.goals, known.curve) == (COMPLETE, (4.5,), {0: 2.5, 1: 3.5, 2: 4.5})
    with pytest.raises(StudyError, match=r"\[tune\] metric .*got 'share'"):
        parse_study(text, folder=tmp_path)


def test_more_samples_only_add(store):
    first = drain(search_study(), store)
    more = drain(search_study(RATE, OPTUNA.replace("5", "8")), store)
    assert len(more) == 12
    assert {c.key for c in first}.isdisjoint({c.key for c in more})


def test_a_suggestion_whose_seed_is_missing_goes_on_before_anything_new(store):
    study = search_study()
    search = Suggestions(study, store, spent=set())
    first = search.next()
    finish(store, first, 0.5)  # the run ends here: seed 1 was queued, never run
    again = Suggestions(study, store, spent=set()).next()
    assert (again.cell, again.seed) == (first.cell, 1)
    assert past(study, store)[0].state == RUNNING


def test_a_suggestion_is_told_the_mean_over_its_seeds(store):
    study = search_study(RATE, OPTUNA.replace("5", "1"))
    drain(study, store, loss=lambda config: 1.0 + config.seed)
    [known] = past(study, store)
    assert known.state == COMPLETE
    assert known.goals == (1.5,)


def test_trials_of_another_study_in_this_space_count_and_others_do_not(store):
    study = search_study()
    inside = {"learning_rate": 0.1, "seed": 0}
    for settings in (inside, {**inside, "seed": 1}, {**inside, "learning_rate": 0.9}, {**inside, "width": 7}):
        finish(store, make_config({**dict(study.cells[0].settings), **settings}), 0.3)
    finish(store, make_config({**dict(study.cells[0].settings), **inside, "seed": 2}), 0.1)  # a seed of no interest
    assert [(known.values, known.state, known.goals) for known in past(study, store)] == [
        ({"learning_rate": 0.1}, COMPLETE, (0.3,))
    ]
    assert len(drain(study, store)) == 18


def test_diverged_failed_and_unmeasured_suggestions_are_avoided_and_not_repeated(store, capsys):
    study = search_study(RATE, OPTUNA.replace("5", "3"))
    search = Suggestions(study, store, spent=set())
    trials = [search.next() for _ in range(12)]
    of_first_cell = [c for c in trials if c.num_classes == 6]
    finish(store, of_first_cell[0], None, "diverged")
    finish(store, of_first_cell[1], 0.5)
    failed = of_first_cell[2].key
    finish(store, of_first_cell[3], 0.5)
    finish(store, of_first_cell[4], 0.5)
    rows = [dataclasses.replace(made_up_measurement(2), train_loss=None)]
    store.write_fragment(of_first_cell[5], rows, made_up_record())
    assert [known.state for known in past(study, store, spent={failed})] == [BAD, BAD, BAD]
    assert "train_loss is null in trial" in capsys.readouterr().err
    left = drain(study, store, spent={failed})
    assert {config.num_classes for config in left} == {12}


def test_stopped_trials_are_done_for_the_rule_that_stopped_them_only(store):
    tune = OPTUNA.replace("5", "1") + '\nscheduler = "asha"\n'
    study = search_study(RATE, tune)
    search = Suggestions(study, store, spent=set())
    first, second = search.next(), search.next()
    finish(store, first, 0.4, "stopped", stopped_by=study.search.scheduler.digest)
    finish(store, second, 0.6)
    [known] = past(study, store)
    assert known.state == STOPPED
    assert known.curve == {0: 9.0, 1: 8.0, 2: 0.5}
    other = search_study(RATE, tune + "grace_epochs = 4\n")
    assert past(other, store)[0].state == RUNNING
    assert Suggestions(other, store, spent=set()).next() == first


def test_a_space_used_up_is_said_and_ends_the_search(store, capsys):
    study = search_study("optimizer = { choice = ['sgd', 'adamw'] }")
    ran = drain(study, store, loss=lambda config: 0.5)
    assert len({config.cell for config in ran}) == 4
    assert "No untried values left for" in capsys.readouterr().err


@pytest.mark.parametrize("torn", [b"", b"{", b"[1, 2"])
def test_a_torn_suggestion_is_named_and_its_trials_still_count(store, torn):
    study = search_study()
    ran = drain(study, store, most=2)
    store.storage.write(f"suggestions/{ran[0].cell}.json", torn)
    assert past(study, store)[0].goals == (ran[0].learning_rate,)
    told: list[str] = []
    store.suggestions(told.append)
    assert told == [f"suggestions/{ran[0].cell}.json"]


def test_a_command_that_opens_a_study_is_told_torn_suggestions_and_checkpoints(store):
    ran = drain(search_study(), store, most=1)
    names = [f"checkpoints/{ran[0].key}/00000001.checkpoint", f"suggestions/{ran[0].cell}.json"]
    for name in names:
        store.storage.write(name, b"{")
    told: list[str] = []
    store.check_checkpoints(told.append)
    complete_study(search_study(), store, told.append)
    assert told == names
