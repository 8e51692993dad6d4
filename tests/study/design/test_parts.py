"""References to parts of one's own in a study file: which code they mean, how options are written, what is refused."""

import sys
from pathlib import Path

import pytest

from gnc_models.catalog.parts import PartError, digest_of, hold_code, load_part, module_source
from gnc_models.datasets.stored.font_files import fonts_digest
from study.design.errors import StudyError, make_config
from study.design.study_file import parse_study, read_study

NETS = "def make(in_shape, feature_dim, **options):\n    return (in_shape, feature_dim, options)\n"
STUDY = """
name = "own"
[fixed]
num_classes = 4
feature_dim = 3
{fixed}
[grid]
seed = [0]
{grid}
{more}
"""


def write(folder: Path, *, fixed: str = 'encoder = "nets.py:make"', grid: str = "", more: str = "") -> Path:
    (folder / "nets.py").write_text(NETS)
    path = folder / "study.toml"
    path.write_text(STUDY.format(fixed=fixed, grid=grid, more=more))
    return path


def test_the_key_changes_with_the_code_and_with_nothing_else_of_the_file(tmp_path):
    first = read_study(write(tmp_path)).configs[0]
    assert first.parts() == {"encoder": (("nets.py:make", digest_of(NETS.encode())),)}
    (tmp_path / "elsewhere").mkdir()
    moved = read_study(write(tmp_path / "elsewhere", fixed='encoder = "./nets.py:make"')).configs[0]
    assert moved.key == first.key
    (tmp_path / "nets.py").write_text(NETS + "# a change\n")
    assert read_study(tmp_path / "study.toml").configs[0].key != first.key


def test_options_are_fixed_gridded_zipped_and_searched_like_settings(tmp_path):
    fixed = 'encoder = "nets.py:make"\nencoder_options = { kernels = [3, 5], act = "relu" }'
    path = write(
        tmp_path, fixed=fixed, grid="encoder_options.width = [8, 16]\n[grid.zip]\nencoder_options.depth.a = [1, 2]"
    )
    found = [config.options_of("encoder") for config in read_study(path).configs]
    assert found == [
        {"kernels": [3, 5], "act": "relu", "width": width, "depth": {"a": depth}}
        for width in (8, 16)
        for depth in (1, 2)
    ]
    more = '[search]\nencoder_options.width = { int_uniform = [4, 64] }\n[tune]\nmethod = "random"\nnum_samples = 5'
    drawn = read_study(write(tmp_path, more=more)).configs
    assert len({config.options_of("encoder")["width"] for config in drawn}) == 5
    whole = write(tmp_path, grid="encoder_options = [{ width = 8 }, { width = 16 }]")
    assert [config.options_of("encoder")["width"] for config in read_study(whole).configs] == [8, 16]


def test_a_stored_copy_says_which_code_was_meant_and_that_it_is_not_at_hand(tmp_path):
    study = read_study(write(tmp_path, fixed='encoder = "nets.py:make"\nmetrics = ["nets.py:make"]'))
    assert (study.code, study.code_elsewhere) == ({digest_of(NETS.encode()): NETS.encode()}, ())
    stored = parse_study(study.text)
    assert [config.key for config in stored.configs] == [config.key for config in study.configs]
    assert stored.code_elsewhere == ("nets.py:make",)
    (tmp_path / "study.toml").write_text(study.text)  # the copy, beside the file: the file is the user's own again
    assert read_study(tmp_path / "study.toml").code_elsewhere == ()
    (tmp_path / "study.toml").write_text(study.text.replace('"nets.py:make"\nmetrics', '"./nets.py:make"\nmetrics'))
    with pytest.raises(StudyError, match=r"must name every part of one's own, got none for './nets.py:make'"):
        read_study(tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text(study.text)
    (tmp_path / "nets.py").write_text(NETS + "\n")
    with pytest.raises(StudyError, match=r"must be the code that \[code\] names"):
        read_study(tmp_path / "study.toml")


def test_code_that_a_folder_names_counts_as_not_at_hand_however_it_is_written():
    by_hand = 'dataset = "subprocess:run"\ndataset_source = "ab"\nmetrics = "os:system"\nmetrics_source = "cd"'
    assert parse_study(STUDY.format(fixed=by_hand, grid="", more="")).code_elsewhere == ("os:system", "subprocess:run")


def test_a_module_is_found_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / "lab_nets"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('this must not run')")
    (package / "wide.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    module_source.cache_clear()
    config = read_study(write(tmp_path, fixed='encoder = "lab_nets.wide:make"')).configs[0]
    assert config.encoder_source == digest_of(NETS.encode())
    assert module_source("safetensors.torch").startswith("safetensors==")
    assert "lab_nets" not in sys.modules


def test_an_entry_point_is_a_short_name(tmp_path, monkeypatch):
    dist = tmp_path / "lab-1.5.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.5\n")
    (dist / "entry_points.txt").write_text(
        "[gnc.encoders]\nwide = lab.nets:make\n[gnc.metrics]\nwide = lab.nets:other\n"
    )
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/__init__.py").write_text("")
    (tmp_path / "lab/nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    module_source.cache_clear()
    config = read_study(write(tmp_path, fixed='encoder = "wide"\nmetrics = ["wide"]')).configs[0]
    source = f"lab==1.5 {digest_of(NETS.encode())}"
    assert config.parts() == {"encoder": (("lab.nets:make", source),), "metrics": (("lab.nets:other", source),)}


REFUSED = {
    "nets.py:make must name a file, relative to the study file": ('encoder = "missing/nets.py:make"', "missing/"),
    "a reference must be file.py:name": ('encoder = "nets.py:make it"', ""),
    "module must be an installed one with a source file, got 'no_such.module'": ('encoder = "no_such.module:make"', ""),
    "encoder must be 'small_resnet'": ('encoder = "nets"', ""),
    "width must be left out": ('encoder = "nets.py:make"\nwidth = 3', ""),
    "encoder_options must be left out unless encoder is a part of your own": ("encoder_options.width = 3", ""),
    "encoder_source must be that of nets.py:make": ('encoder = "nets.py:make"\nencoder_source = "ab"', ""),
    "metrics must be a list of file.py:name": ('metrics = ["gnc1"]', ""),
    "under names without a dot": ('encoder = "nets.py:make"\nencoder_options."a.b" = 1', ""),
    "options must be a table of numbers": ('encoder = "nets.py:make"\nencoder_options.since = 2026-01-01', ""),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_reference_or_option_is_refused_with_its_cure(message, tmp_path):
    fixed, before = REFUSED[message]
    with pytest.raises(StudyError) as told:
        read_study(write(tmp_path, fixed=fixed))
    assert f"{before}{message}" in str(told.value)


def test_a_file_that_imports_its_neighbour_is_warned_of(tmp_path):
    path = write(tmp_path)
    (tmp_path / "blocks.py").write_text("")
    (tmp_path / "nets.py").write_text("import json\nfrom blocks import *\n" + NETS)
    (warning,) = read_study(path).warnings
    assert warning.startswith("nets.py imports blocks.py, which lies beside it: that code is in no key")


def test_only_the_bytes_of_the_digest_are_run():
    digest = digest_of(b"value = 3\n")
    with pytest.raises(PartError, match="must be the file of that digest"):
        hold_code(digest, b"value = 4\n")
    with pytest.raises(PartError, match="must be at hand"):
        load_part("v.py:value", digest)
    hold_code(digest, b"value = 3\n")
    assert load_part("v.py:value", digest) == 3
    with pytest.raises(PartError, match="must be the same code on every machine"):
        load_part("json:dumps", "json==0 ab")


FONTS = """
name = "fonts"
[fixed]
num_classes = 20
feature_dim = 3
unseen_family = "none"
fonts = "{fonts}"
[grid]
seed = [0]
"""


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """A data folder with a folder of fonts, whose bytes alone matter here."""
    monkeypatch.setenv("GNC_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.ttf").write_bytes(b"first")
    return tmp_path / "mine"


def test_the_key_holds_the_files_of_fonts_and_built_in_ones_change_no_key(fonts):
    study = parse_study(FONTS.format(fonts="mine"))
    assert study.configs[0].fonts_source == fonts_digest("mine", fonts.parent)
    assert parse_study(FONTS.format(fonts=" ./mine/,mine")).configs[0].key == study.configs[0].key
    (fonts / "a.ttf").write_bytes(b"second")
    assert parse_study(FONTS.format(fonts="mine")).configs[0].key != study.configs[0].key
    built_in = parse_study(FONTS.format(fonts="dejavu")).configs[0]
    assert built_in.fonts_source is None
    assert built_in.key == parse_study(FONTS.replace('fonts = "{fonts}"', "")).configs[0].key
    assert parse_study(FONTS.format(fonts="dejavu")).text == FONTS.format(fonts="dejavu")


def test_a_stored_copy_says_which_fonts_were_meant_where_they_are_absent_or_others(fonts, tmp_path):
    study = parse_study(FONTS.format(fonts="mine"))
    (fonts / "a.ttf").write_bytes(b"second")
    assert parse_study(study.text).configs == study.configs
    (tmp_path / "study.toml").write_text(study.text)
    with pytest.raises(StudyError, match=r"fonts mine must be the files that \[code\] names, .*Install that version"):
        read_study(tmp_path / "study.toml")
    (fonts / "a.ttf").unlink()
    assert parse_study(study.text).configs == study.configs
    with pytest.raises(StudyError, match=r"neither an installed Debian package nor a folder of fonts"):
        parse_study(FONTS.format(fonts="mine"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fonts": "mine"}, "fonts_source must be given with fonts 'mine', got None"),
        ({"fonts_source": "ab"}, "fonts_source must be left out with fonts that are built in, got 'ab'"),
        (
            {"dataset": "synthetic", "fonts": "dejavu"},
            "fonts must be left out unless dataset is 'glyphs', got 'dejavu'",
        ),
        ({"num_classes": 1398}, "num_classes must be at most 1397, .*got 1398"),
        ({"measured_samples": 0}, "measured_samples must be at least 1, got 0"),
    ],
)
def test_fonts_and_their_digest_go_together(settings, words):
    with pytest.raises(StudyError, match=words):
        make_config({"num_classes": 4, "feature_dim": 3, **settings})


def test_fonts_that_are_not_built_in_may_have_any_number_of_classes():
    assert (
        make_config({"num_classes": 9999, "feature_dim": 3, "fonts": "mine", "fonts_source": "ab"}).num_classes == 9999
    )
