"""--where: what it selects, that nulls select nothing, and what is refused; never evaluated as Python."""

import itertools

import pytest

from study.design.errors import StudyError
from study.design.where import parse_selection
from tests.study.conftest import made_up_config

CONFIGS = [
    made_up_config(num_classes=k, feature_dim=d, normalization=n, seed=s)
    for k, d, n, s in itertools.product((12, 100, 200), (2, 3), ("both", "none"), (0, 1))
]
SETTINGS = [config.settings() for config in CONFIGS]


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
    selection = parse_selection(text)
    assert [selection(s) for s in SETTINGS] == [meaning(s) for s in SETTINGS]


def test_a_setting_without_effect_is_in_no_comparison():
    """temperature has no effect with normalization none."""
    with_temperature = [s["temperature"] is not None for s in SETTINGS]
    assert any(with_temperature)
    assert not all(with_temperature)
    for text in ("temperature > 0", "temperature <= 5 and temperature > 0", "temperature != 7.5", "temperature is not None",
                 "not temperature is None", "temperature not in [9]", "temperature != None"):  # fmt: skip
        assert [parse_selection(text)(s) for s in SETTINGS] == with_temperature, text
    for text in ("temperature is None", "temperature == None", "not temperature > 0", "None is temperature"):
        assert [not parse_selection(text)(s) for s in SETTINGS] == with_temperature, text


def test_a_bool_setting_stands_for_itself():
    decayed = [made_up_config(decay_normalised=value).settings() for value in (True, False)]
    assert [parse_selection("decay_normalised")(s) for s in decayed] == [True, False]
    assert [parse_selection("decay_normalised == False")(s) for s in decayed] == [False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_clases <= 100", "got 'num_clases'. Did you mean 'num_classes'?"),
        ("dataset == 'glyps'", "dataset in --where must be one it has, got 'glyps'. Did you mean 'glyphs'?"),
        ("dataset in ['glyphs', 'mnits']", "Did you mean 'mnist'?"),
        ("num_classes == '100'", "compare like with like, got \"num_classes beside '100'\""),
        ("dataset < 'm'", "compare only numbers by size"),
        ("1 < 2", "name a setting in every comparison"),
        ("num_classes", "be built of comparisons"),
        ("num_classes <=", "must be an expression over settings"),
        ("", "must be an expression over settings"),
        ("num_classes + 1 > 3", "compare settings with numbers"),
        ("num_classes in 5", "have a list of values after in"),
        ("num_classes is 5", "use is for None only"),
        ("num_classes < None", "compare None with a setting by is or is not"),
        ("__import__('os').system('true')", "be built of comparisons"),
        ("num_classes.__class__ == 1", "compare settings with numbers"),
        ("(lambda: True)()", "be built of comparisons"),
        ("[num_classes for x in y] == 1", "compare settings with numbers"),
        ("num_classes == 1 if True else 2", "be built of comparisons"),
        ("num_classes == (y := 2)", "compare settings with numbers"),
        ("num_classes < 1" + " and num_classes < 1" * 2000, "more than 10000 characters"),
        ("not " * 2400 + "decay_normalised", "must be an expression over settings"),
        ("num_classes < 1\0", "must be an expression over settings"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(text, words):
    with pytest.raises(StudyError) as refused:
        parse_selection(text)
    assert words in str(refused.value)
