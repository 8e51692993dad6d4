"""--where over settings and over tables: what it selects, that nothing is compared with null, and what is refused."""

import itertools
import json

import pyarrow as pa
import pytest

from analysis.rows.frames import final_rows
from gnc.cli.main import main
from study.design.errors import StudyError
from study.design.where import parse_selection, rows_where
from study.store.schemas import FRAGMENT_SCHEMA
from tests.study.conftest import finish, made_up_config

CONFIGS = [
    made_up_config(num_classes=k, feature_dim=d, normalization=n, seed=s)
    for k, d, n, s in itertools.product((12, 100, 200), (2, 3), ("both", "none"), (0, 1))
]
SETTINGS = [config.settings() for config in CONFIGS]


def chosen(text, settings=SETTINGS):
    """Which trials an expression means, as the commands ask and as the analysis asks: both must agree."""
    selection = parse_selection(text)
    by_settings = [selection(s) for s in settings]
    rows = [s | {"epoch": index} for index, s in enumerate(settings)]
    kept = rows_where(pa.Table.from_pylist(rows, schema=FRAGMENT_SCHEMA), text)["epoch"].to_pylist()
    assert [index in kept for index in range(len(rows))] == by_settings
    return by_settings


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("num_classes <= 100", lambda s: s["num_classes"] <= 100),
        ("50 < num_classes <= 100", lambda s: 50 < s["num_classes"] <= 100),
        ("seed in [0] and not feature_dim == 2", lambda s: s["seed"] == 0 and s["feature_dim"] != 2),
        ("seed not in (1, 2) or num_classes > 150", lambda s: s["seed"] == 0 or s["num_classes"] > 150),
        ("normalization == 'both'", lambda s: s["normalization"] == "both"),
        ("normalization in {'both', 'features'}", lambda s: s["normalization"] == "both"),
        ("num_classes >= feature_dim", lambda s: True),
        ("learning_rate > -1e-3", lambda s: True),
        ("  num_classes == 12  ", lambda s: s["num_classes"] == 12),
    ],
)
def test_an_expression_selects_what_it_says(text, meaning):
    assert chosen(text) == [meaning(s) for s in SETTINGS]


def test_a_setting_without_effect_is_in_no_comparison():
    """temperature has no effect with normalization none."""
    with_temperature = [s["temperature"] is not None for s in SETTINGS]
    assert any(with_temperature)
    assert not all(with_temperature)
    for text in ("temperature > 0", "temperature <= 5 and temperature > 0", "temperature != 7.5", "temperature is not None",
                 "not temperature is None", "temperature not in [9]", "temperature != None"):  # fmt: skip
        assert chosen(text) == with_temperature, text
    for text in ("temperature is None", "temperature == None", "not temperature > 0", "None is temperature"):
        assert [not one for one in chosen(text)] == with_temperature, text


@pytest.mark.parametrize(
    "text", ["not temperature > 0.5", "5 < num_classes <= 100 and seed not in [1]", "temperature is None"]
)
def test_commands_and_analysis_mean_the_same_trials(tmp_path, store, capsys, text):
    for config in CONFIGS:
        finish(store, config, epochs=1)
    assert main(["status", store.uri, "--all", "--json", "--where", text]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] == rows_where(final_rows(store), text).num_rows == sum(chosen(text)) > 0


def test_a_column_without_a_value_is_in_no_comparison():
    table = pa.table({"k": [1, 2, 3, None], "name": ["a", "b", "c", "d"], "row": range(4)})
    for text, kept in {
        "k == 2": [1], "k >= 2 and not (name == 'c')": [1], "name in ['a', 'c'] or k == 2": [0, 1, 2], "k is None": [3],
        "k != 2": [0, 2], "not k == 2": [0, 2, 3], "1 < k < 3": [1], "k not in [1]": [1, 2], "not k > 2": [0, 1, 3],
    }.items():  # fmt: skip
        assert rows_where(table, text)["row"].to_pylist() == kept, text


def test_a_bool_setting_stands_for_itself():
    decayed = [made_up_config(decay_normalised=value).settings() for value in (True, False)]
    assert chosen("decay_normalised", decayed) == [True, False]
    assert chosen("decay_normalised == False", decayed) == [False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_clases <= 100", "got 'num_clases'. Did you mean 'num_classes'?"),
        ("dataset == 'glyps'", "dataset in --where must be one it has, got 'glyps'. Did you mean 'glyphs'?"),
        ("dataset in ['glyphs', 'mnits']", "Did you mean 'mnist'?"),
        ("num_classes == '100'", "compare like with like, got \"num_classes beside '100'\""),
        ("dataset < 'm'", "compare only numbers by size"),
        ("1 < 2", "name a setting or column in every comparison"),
        ("num_classes", "be built of comparisons"),
        ("num_classes <=", "must be an expression over names"),
        ("", "must be an expression over names"),
        ("num_classes + 1 > 3", "compare names with numbers"),
        ("num_classes in 5", "have a list of values after in"),
        ("num_classes is 5", "use is for None only"),
        ("num_classes < None", "compare None with a name by is or is not"),
        ("__import__('os').system('true')", "be built of comparisons"),
        ("num_classes.__class__ == 1", "compare names with numbers"),
        ("(lambda: True)()", "be built of comparisons"),
        ("[num_classes for x in y] == 1", "compare names with numbers"),
        ("num_classes == 1 if True else 2", "be built of comparisons"),
        ("num_classes == (y := 2)", "compare names with numbers"),
        ("num_classes < 1" + " and num_classes < 1" * 2000, "more than 10000 characters"),
        ("not " * 2400 + "decay_normalised", "must be an expression over names"),
        ("num_classes < 1\0", "must be an expression over names"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(text, words):
    with pytest.raises(StudyError) as refused:
        parse_selection(text)
    assert words in str(refused.value)
