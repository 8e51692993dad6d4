"""Study files: what they expand to, and what is refused before anything starts."""

from pathlib import Path

import pytest

from study.design.errors import StudyError
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
