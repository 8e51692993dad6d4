"""Study files: what they expand to, and what is refused before anything starts."""

from pathlib import Path

import pytest

from study.design.errors import StudyError, make_config
from study.design.study_file import parse_study, read_study

STUDIES = Path(__file__).parents[3] / "studies"
HEAD = 'name = "s"\n[fixed]\nfeature_dim = 3\n'


def test_grid_is_the_product_and_zipped_lists_move_together():
    study = parse_study(
        'name = "s"\n[grid]\nnum_classes = [20, 50]\n[grid.zip]\nfeature_dim = [3, 10]\ntemperature = [0.05, 0.1]'
    )
    cells = [(c.num_classes, c.feature_dim, c.temperature) for c in study.configs]
    assert cells == [(20, 3, 0.05), (20, 10, 0.1), (50, 3, 0.05), (50, 10, 0.1)]
    assert study.varied == ("num_classes", "feature_dim", "temperature")


def test_several_blocks_are_united_and_a_cell_in_two_blocks_is_one():
    study = parse_study(f"{HEAD}[[grid]]\nnum_classes = [20, 50]\n[[grid]]\nnum_classes = [50, 100]")
    assert [c.num_classes for c in study.configs] == [20, 50, 100]


@pytest.mark.parametrize("code", ["simplex", "best", None])
def test_trials_that_differ_in_the_seed_are_those_that_are_made_one_by_one(code):
    classifier = f'classifier = "fixed"\ncode = "{code}"\n' if code else ""
    study = parse_study(
        f"{HEAD}{classifier}[grid]\nseed = [7, 0, 12]\nnum_classes = [4, 3]\nlearning_rate = [0.1, 1.0]"
    )
    assert len(study.configs) == 12
    for config in study.configs:
        alone = make_config({name: value for name, value in config.settings().items() if value is not None})
        assert alone == config
        assert (alone.key, alone.cell, alone.settings()) == (config.key, config.cell, config.settings())
    assert study.varied == ("num_classes", "learning_rate", "seed")


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            "num_classes = [20]\nseed = [0, -1, 2, true]",
            r"2 of .*\n  seed must be at least 0, got -1.*\n  seed must be an integer, got True",
        ),
        (f"num_classes = [20]\nseed = [0, {1 << 63}]", "seed must be below 2\\^63, got 9223372036854775808"),
        ("num_classes = [20.0]\nseed = [3]", "num_classes must be a.* integer, got 20.0"),
    ],
)
def test_a_trial_like_one_before_it_is_refused_where_it_is_wrong(block, words):
    with pytest.raises(StudyError, match=words):
        parse_study(f"{HEAD}[[grid]]\nnum_classes = [20]\nseed = [5]\n[[grid]]\n{block}")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_opens_with_its_command(path):
    study = read_study(path)
    assert study.configs
    assert f"gnc run studies/{path.name}" in study.text.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "must be valid TOML"),
        ("[grid]\nseed = [0]", "name must be given: a word of letters"),
        ('name = "a b"\n[grid]\nseed = [0]', "name must be a word"),
        (f"{HEAD}[gird]\nseed = [0]", "got 'gird'. Did you mean 'grid'?"),
        (f"{HEAD}[grid]\nsede = [0]", "got 'sede'. Did you mean 'seed'?"),
        (f"{HEAD}[grid]\n", "got an empty grid"),
        (f"{HEAD}[grid]\n[grid.zip]\n", "got an empty grid"),
        ('name = "s"\ngrid = 5', "must be tables of lists, got 5"),
        (f"{HEAD}[grid]\nnum_classes = [20]\nzip = 3", "must be tables of lists"),
        ('name = "s"\nfixed = 3\n[grid]\nseed = [0]', "fixed must be a table, got 3"),
        ('name = "s"\ndescription = 3\n[grid]\nseed = [0]', "description must be a string, got 3"),
        ('name = "../x"\n[grid]\nseed = [0]', "name must be a word"),
        (f"{HEAD}[grid]\nnum_classes = [20]\nseed = [{2**63}]", "seed must be below 2.63"),
        (HEAD, "got an empty grid"),
        (f"{HEAD}[grid]\nseed = []", "seed in .grid. must hold at least one value"),
        (f"{HEAD}[grid]\nseed = 3", "seed in .grid. must be a list, got 3"),
        (f"{HEAD}[grid]\nnum_classes = [20, 50, 20]", "num_classes in .grid. must be distinct, got 20 twice"),
        (f"{HEAD}[grid]\nfeature_dim = [3]", "either in .fixed. or in .grid."),
        (f"{HEAD}[grid.zip]\nnum_classes = [20, 50]\nseed = [1]", "lists of equal length"),
        (f"{HEAD}[grid.zip]\nnum_classes = [20, 50, 20]\nseed = [1, 1, 1]", "rows of .grid.zip. must be distinct"),
        (f"{HEAD}[grid]\nseed = [0]\n[grid.zip]\nseed = [1]", "either in .grid. or in .grid.zip."),
        (
            f"{HEAD}[grid]\nnum_classes = [20]\n[resources]\ncpus = 0",
            r"\[resources\] cpus must be greater than 0, got 0. It is: CPUs",
        ),
        (f"{HEAD}[grid]\nnum_classes = [20]\n[resources]\ngpu = 1", r"\[resources\] must hold .* Did you mean 'gpus'?"),
        (f"{HEAD}[grid]\nnum_classes = [20]\n[tune]\nmetod = 1", r"\[tune\] must hold .* Did you mean 'method'?"),
        (f"{HEAD}[grid]\nnum_classes = [20]\n[log]\ncallbacks = 1", r"\[log\] callbacks must be a list, got 1"),
        (f"{HEAD}[grid]\nnum_classes = [20]\n[log]\ncallbacks = [1]", r"\[log\] callbacks must be a string, got 1"),
        (f'{HEAD}[grid]\nnum_classes = [20]\n[log]\ncallbacks = ["wand"]', "Did you mean 'wandb'?"),
        (f"{HEAD}[grid]\nnum_classes = [20]\n[report]\npredict = [3]", r"\[report\] predict must be a table, got 3"),
        (f"{HEAD}[grid]\nnum_classes = [20]\n[report]\npredict = [{{feature_dim = 3}}]", "must give num_classes"),
        (f"tune = 3\n{HEAD}[grid]\nnum_classes = [20]", "tune must be a table, got 3"),
        (f'keep = "all"\n{HEAD}[grid]\nnum_classes = [20]', "keep must be"),
        (f"{HEAD}[grid]\nnum_classes = [20]\ntemperature = [nan]", "temperature must be finite"),
    ],
)
def test_a_wrong_study_is_refused_in_words(text, words):
    with pytest.raises(StudyError, match=words):
        parse_study(text)


def test_all_refused_trials_are_told_together_and_cut_at_five():
    with pytest.raises(StudyError) as refusal:
        parse_study(f"{HEAD}[grid]\nnum_classes = [20, 1, 0, -1, -2, -3, -4]")
    assert "6 of the study's trials cannot be run" in str(refusal.value)
    assert "... 6 in all" in str(refusal.value)
    assert "got -3" in str(refusal.value)
    assert "got -4" not in str(refusal.value)


def test_the_refusal_names_the_file(tmp_path):
    (tmp_path / "x.toml").write_text("name = 3")
    with pytest.raises(StudyError) as refusal:
        read_study(tmp_path / "x.toml")
    assert refusal.value.__notes__ == [f"in study file {tmp_path / 'x.toml'}"]
    with pytest.raises(StudyError, match="must be a readable TOML file"):
        read_study(tmp_path / "absent.toml")


def test_all_that_is_wrong_with_a_file_is_told_at_once():
    text = """
name = "two words"
keep = "everything"
[fixed]
tau = 0.1
learning_rate = -1.0
input_dim = 3
[grid]
num_clases = [3, 4]
seed = [0, 0]
bs = [3]
feature_dim = [3]
[resources]
cpu = 3
[search]
lr = { uniform = [0.1, 0.2] }
wd = { uniform = [0.1] }
[tune]
method = "random"
num_samples = 2
"""
    with pytest.raises(StudyError) as refusal:
        parse_study(text)
    told = str(refusal.value)
    for words in (
        "name must be a word",
        "keep must be 'head', 'model' or 'nothing'",
        "[resources] must hold known keys only, got 'cpu'. Did you mean 'cpus'?",
        "[grid] must hold known keys only, got 'num_clases'. Did you mean 'num_classes'?",
        "seed in [grid] must be distinct",
        "got 'bs'. Did you mean 'batch_size'?",
        "got 'lr'. Did you mean 'learning_rate'?",
        "got 'wd'. Did you mean 'weight_decay'?",
        "'tau' is no setting. Did you mean 'temperature'?",
        "input_dim must be left out unless dataset is 'synthetic'",
        "learning_rate must be greater than 0, got -1.0",
    ):
        assert told.count(words) == 1, words
    assert "must be given" not in told  # num_classes is there, under a name that was refused


def test_every_rule_that_settings_break_together_is_told():
    with pytest.raises(StudyError) as refusal:
        parse_study(f'{HEAD}num_classes = 1400\nloss = "cosface"\nnormalization = "none"\n[grid]\nbatch_size = [10**6]'
                    .replace("10**6", "1000000"))  # fmt: skip
    told = str(refusal.value)
    for words in ("num_classes must be at most", "normalization must be 'both'", "batch_size must be at most"):
        assert told.count(words) == 1


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        ("epochs = 5", "epochs"),
        ("steps = 9", "steps"),
        ("terminal_epochs = 3", "terminal"),
        ("max_steps = 9", "stationary"),
    ],
)
def test_a_length_of_training_chooses_its_budget(given, budget):
    short, long = (
        parse_study(f"{HEAD}{given}\n{named}[grid]\nnum_classes = [20]").configs[0].key
        for named in ("", f'budget = "{budget}"\n')
    )
    assert short == long


def test_a_search_needs_no_grid():
    text = HEAD + 'num_classes = 20\n[search]\nlearning_rate = {{ log_uniform = [0.02, 0.5] }}\n[tune]\nmethod = "{}"\n'
    random = parse_study(text.format("random") + "num_samples = 3")
    assert len({config.learning_rate for config in random.configs}) == 3
    optuna = parse_study(text.format("optuna") + 'num_samples = 3\nmetric = "test_accuracy"\nmode = "max"')
    assert (optuna.num_planned, len(optuna.cells)) == (3, 1)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("lr", "learning_rate"), ("tau", "temperature"), ("bs", "batch_size"), ("K", "num_classes"), ("d", "feature_dim")],
)
def test_what_others_call_a_setting_is_understood_in_a_refusal(alias, name):
    for text in (f"{HEAD}{alias} = 1\n[grid]\nnum_classes = [20]", f"{HEAD}[grid]\n{alias} = [20]"):
        with pytest.raises(StudyError, match=f"got '{alias}'|'{alias}' is no setting") as refusal:
            parse_study(text)
        assert f"Did you mean {name!r}?" in str(refusal.value)
