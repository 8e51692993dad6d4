"""The proposed study: what it says is open, and a file that is the study with the missing trials added."""

import math
import tomllib

import pytest

from analysis.report.findings import find
from analysis.report.next_study import between, next_study
from analysis.rows.frames import load_study
from study.design.study_file import parse_study

STUDY = """
name = "sizes"
[fixed]
feature_dim = 3
[grid]  # of three class counts
num_classes = [12, 24, 48]
temperature = [0.1]
seed = [0, 1]
"""


def proposed(store, text: str | None, missing: int = 0):
    store.study = text
    frame = load_study(store)
    return next_study(frame if not missing else frame.__class__(**vars(frame) | {"missing": missing}), find(frame))


def test_class_counts_that_an_exponent_lacks_are_added_to_the_study_as_it_was_run(make_store):
    found = proposed(make_store([(3, k, 0.1, "both", s) for k in (12, 24, 48) for s in (0, 1)]), STUDY)
    assert "at d = 3: that needs five class counts" in found.unknown
    before, after = parse_study(STUDY), parse_study(found.text)
    keys = [{config.key for config in study.configs} for study in (before, after)]
    assert keys[0] < keys[1]
    added = [config for config in after.configs if config.key not in keys[0]]
    assert sorted({config.num_classes for config in added}) == [17, 34]
    assert {(config.feature_dim, config.temperature) for config in added} == {(3, 0.1)}
    assert sorted(config.seed for config in added) == [0, 0, 1, 1]


@pytest.mark.parametrize(("have", "count"), [([12, 24, 48], 2), ([8, 12], 3), ([5], 4), ([2, 3], 3)])
def test_new_class_counts_lie_far_from_those_there_are(have, count):
    found = between(have, count)
    assert len(set(found)) == count
    assert not set(found) & set(have)
    assert min(found) >= 2
    if count <= max(have) - min(have) - len(have) + 1:
        assert min(have) < min(found) <= max(found) < max(have)
    assert between([12, 48], 1) == [24]
    assert abs(math.log(24 / 12) - math.log(48 / 24)) < 1e-9


def test_seeds_that_a_verdict_lacks_are_added_once_every_trend_has_its_class_counts(make_store):
    counts = (12, 17, 24, 34, 48)
    text = STUDY.replace("[12, 24, 48]", str(list(counts))).replace("[0.1]", "[0.1, 0.3]").replace("[0, 1]", "[0]")
    found = proposed(make_store([(3, k, t, "both", 0) for k in counts for t in (0.1, 0.3)]), text)
    assert "whether the values of temperature differ by more than chance: a verdict needs 5 seeds" in found.unknown
    study = parse_study(found.text)
    assert len(study.configs) == 50
    assert {config.seed for config in study.configs} == set(range(5))


def test_unfinished_trials_come_first_and_the_study_itself_settles_them(make_store):
    found = proposed(make_store([(3, 12, 0.1, "both", 0)]), STUDY, missing=5)
    assert found.unknown == "5 trials of the study have not finished."
    assert found.text == STUDY


@pytest.mark.parametrize("text", [None, "name = [", 'name = "other"\n[fixed]\nfeature_dim = 2\n[grid]\nseed = [0]\n'])
def test_without_a_study_that_made_these_trials_nothing_is_proposed(make_store, text):
    found = proposed(make_store([(3, k, 0.1, "both", 0) for k in (12, 24)]), text)
    assert found.text is None
    assert found.unknown.endswith(".")


def test_the_best_of_a_search_is_judged_by_seeds_that_did_not_choose_it(search_store):
    found = proposed(search_store, search_store.study)
    assert "whether the best settings were lucky: that needs 5 seeds that had no part in the choice" in found.unknown
    document = tomllib.loads(found.text)
    assert "search" not in document
    study = parse_study(found.text)
    assert study.name == "little-search-best"
    assert len(study.configs) == 5
    rows = load_study(search_store).final.to_pylist()
    best = max(rows, key=lambda row: row["margin_min_lower"])
    assert {config.learning_rate for config in study.configs} == {best["learning_rate"]}
    assert not {config.seed for config in study.configs} & {row["seed"] for row in rows}
    assert best["cell"] in {config.cell for config in study.configs}
