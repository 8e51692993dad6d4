"""The wrong thing on purpose: one line on stderr, exit 2, no traceback, nothing written."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from gnc.cli.main import main, make_parser

GNC = [sys.executable, "-m", "gnc.cli.main"]


def outcome(*arguments: object) -> int:
    """The exit code; argparse leaves by an exception."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as left:
        return int(left.code or 0)


def refusal(capsys, *arguments: object) -> str:
    """The one line with which the command refuses."""
    assert outcome(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


@pytest.fixture
def files(tmp_path):
    """Things of the wrong kind under names that look right."""
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("text")
    np.save(tmp_path / "w.npy", np.eye(3))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rnu x", "invalid choice: 'rnu'"),
        ("run x --max-concurent 3", "the nearest option is --max-concurrent"),
        ("run x --max-concurrent three", "invalid int value: 'three'"),
        ("status", "the following arguments are required: results"),
        ("status {0}/notes --watch soon", "invalid float value: 'soon'"),
        ("status {0}/empty --watch inf", "--watch must be a number of seconds above 0, got inf"),
        ("report {0}/notes --format doc", "invalid choice: 'doc'"),
        ("check {0}/folder.toml", "study file must be a readable TOML file, got"),
        ("check {0}/binary.toml", "study file must be a readable TOML file"),
        ("check {0}/xyz.toml", "/xyz.toml', which does not exist. There is /"),
        ("check {0}/binray.toml", "/binary.toml'?"),
        ("check {0}/notes", "/notes', a folder. Name one that is there."),
        ("status {0}/note", "/notes'?"),
        ("status {0}/file", "results folder must be a folder"),
        ("compare {0}/file {0}/file", "results folder must be a folder"),
        *((f"{name} {{0}}/notes", "which holds other files") for name in ("status", "seal", "report", "prune")),
        ("best {0}/notes --metric train_loss", "which holds other files"),
        ("measure {0}/notes", "which holds other files"),
        ("measure {0}/folder.npz", "SOURCE must hold kept heads"),
        (
            "measure {0}/w.npy",
            "must hold the array 'labels', got ['features']. Give the file of the labels with --labels.",
        ),
        ("margins {0}/folder.npz", "FILE must be a folder with one checkpoint"),
        ("margins {0}/absent.npy", "FILE must be a file"),
        ("margins {0}/w.npy --tolerance nan", "--tolerance must be between 0 and 1"),
        ("code --classes many --dim 3", "invalid int value: 'many'"),
        ("code --classes 4 --dim 3 --optimise --starts 999999999999", "--starts times --classes times --dim must be"),
        ("status {0}/\udcff", r"arguments must be UTF-8, got"),
        ("code --classes 4 --dim 3 --output {0}/absent/code.npy", "--output must lie in a folder that exists"),
        ("code --classes 4 --dim 3 --output {0}/notes", "--output must name a file"),
        ("doctor {0}/absent.yaml", "cluster file"),
        ("doctor {0}/folder.yaml", "cluster file"),
        ("prepare {0}/file", "cluster file"),
        ("merge {0}/notes {0}/into", "which holds other files"),
    ],
)
def test_wrong_input_is_refused_in_one_line(files, capsys, words, said):
    (files / "empty").mkdir()
    assert said in refusal(capsys, *shlex.split(words.format(files)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_files_that_may_not_be_read_are_refused(tmp_path, capsys):
    (tmp_path / "s.toml").write_text('name = "s"')
    (tmp_path / "s.toml").chmod(0)
    assert "must be a readable TOML file" in refusal(capsys, "check", tmp_path / "s.toml")


def test_a_report_is_not_written_into_a_folder_without_results(files, capsys):
    refusal(capsys, "report", files / "notes")
    assert [path.name for path in (files / "notes").iterdir()] == ["todo.txt"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(study_file, tmp_path, closed):
    command = shlex.join([*GNC, "check", str(study_file()), str(tmp_path / "r")])
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(study_file, tmp_path):
    command = shlex.join([*GNC, "check", str(study_file()), str(tmp_path / "r"), "--trials"])
    done = subprocess.run(["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_told_in_one_line(study_file, tmp_path):
    command = [*GNC, "check", str(study_file()), str(tmp_path / "r")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_every_help_page_ends_with_an_example_that_parses(capsys):
    assert outcome("--help") == 0
    names = re.findall(r"^    ([a-z]+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    assert {"check", "run", "status", "report", "margins", "doctor"} <= set(names)
    for name in names:
        assert outcome(name, "--help") == 0
        example = shlex.split(capsys.readouterr().out.split("example:\n  ")[1])
        assert example[:2] == ["gnc", name]
        make_parser().parse_args(example[1:])
