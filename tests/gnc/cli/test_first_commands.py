"""First contact: gnc by itself, a study file to begin with, settings looked up, completion, and how far a command is."""

import argparse
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

from analysis.effects import contrast
from analysis.report.findings import find
from analysis.rows.frames import load_study
from analysis.scaling import trends
from gnc.cli import output
from gnc.cli.main import COMMANDS, WELCOME, main, make_parser
from gnc.files import features
from gnc.meter import CollapseMeter
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.progress import LOOPS, Loop, counted, share_done
from study.design.study_file import read_study
from tests.analysis.conftest import make_made_up_store


def test_gnc_alone_shows_five_commands_that_parse_and_where_to_go(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    shown = [
        shlex.split(re.split(r"   +", line.strip())[0])[1:] for line in said.splitlines() if line.startswith("  gnc ")
    ]
    assert len(shown) == 5
    for words in shown:
        make_parser().parse_args(words)
    assert "gnc --help" in WELCOME
    assert "README.md" in WELCOME


@pytest.mark.parametrize("question", COMMANDS["init"]["options"]["--question"]["choices"])
def test_a_study_file_to_begin_with_is_accepted_and_has_a_comment_on_every_line(
    question, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine", "--question", question]) == 0
    assert "gnc run mine.toml" in capsys.readouterr().err
    study = read_study("mine.toml")
    assert study.name == "mine"
    text = (tmp_path / "mine.toml").read_text()
    settings = [line for line in text.splitlines() if " = " in line and not line.startswith(("name", "desc", "#"))]
    assert all("  # " in line for line in settings)
    assert main(["init", "mine", "--question", question]) == 2
    assert "NAME must name a new file, got 'mine.toml', which exists" in capsys.readouterr().err


def test_gnc_check_accepts_the_network_to_begin_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "net", "--question", "own-network"]) == 0
    assert main(["check", "net.toml"]) == 0
    assert "net: 8 trials" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a b", "../x", ""])
def test_a_study_to_begin_with_needs_a_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", name]) == 2
    assert "name must be a word of letters" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_setting_is_looked_up_by_its_name_or_what_others_call_it(capsys):
    for name in ("learning_rate", "lr"):
        assert main(["settings", name]) == 0
        said = capsys.readouterr().out
        assert said.startswith("learning_rate\n  Peak learning rate.\n")
        assert re.search(r"^  default +0\.2$", said, flags=re.MULTILINE)
    assert main(["settings", "optimizer"]) == 0
    assert re.search(r"^    sgd +momentum = 0.9$", capsys.readouterr().out, flags=re.MULTILINE)
    assert main(["settings", "tune", "--json"]) == 0
    assert {"method", "scheduler"} <= {one["name"] for one in json.loads(capsys.readouterr().out)["settings"]}
    assert main(["settings"]) == 0
    assert capsys.readouterr().out.count("\n") > 60
    assert main(["settings", "learing_rate"]) == 2
    assert "Did you mean 'learning_rate'?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "--max-concurrent" in script


def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "gnc", "completion", "bash"], capture_output=True, text=True, check=True
    )
    (tmp_path / "gnc.bash").write_text(script.stdout)
    ask = (
        f'source {tmp_path}/gnc.bash; COMP_WORDS=(gnc {{}}); COMP_CWORD={{}}; _shtab_gnc; echo "${{{{COMPREPLY[@]}}}}"'
    )
    for words, at, wanted in (("re", 1, "report"), ("best --me", 2, "--metric")):
        done = subprocess.run(["bash", "-c", ask.format(words, at)], capture_output=True, text=True, check=True)
        assert wanted in done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "run s.toml r --where x",
        "run s.toml --where x r",
        "run --where x s.toml r",
        "run --where x s.toml --address auto r",
    ],
)
def test_results_may_stand_anywhere_after_the_study(words):
    options = make_parser().parse_args(words.split())
    assert (options.study, options.results, options.where) == ("s.toml", "r", "x")


def test_a_word_too_many_is_refused(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["run", "s.toml", "--where", "x", "r", "more"])
    assert "'more' is not expected" in capsys.readouterr().err


def test_loops_tell_how_much_is_done_and_leave_nothing_behind():
    shares = []
    for _ in counted(range(2), "outer", 2):
        for _ in counted(range(4), "inner", 4):
            shares.append(share_done(LOOPS))
    assert shares == [i / 8 for i in range(8)]
    assert LOOPS == []
    with pytest.raises(ZeroDivisionError):
        list(counted((1 / zero for zero in (0,)), "items that fail", 1))
    next(counted([1], "left", 1))  # a loop that is left before its end
    assert LOOPS == []


def test_the_line_says_what_is_done_and_what_is_left(monkeypatch):
    monkeypatch.setattr(output.time, "monotonic", lambda: 100.0)
    loops = [Loop("trials", 200, 40, 90.0)]
    assert output.loops_line(loops, 12) == "trials 40 of 200, 12 s so far, about 40 s left"
    assert output.loops_line([], 125) == "2 min 05 s so far"


def told_in(monkeypatch, owner, name: str) -> list[str]:
    """What the line would say each time that this function is called."""
    function, lines = getattr(owner, name), []

    def heard(*arguments, **options):
        lines.append(output.loops_line(list(LOOPS), 1))
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, heard)
    return lines


def test_the_fits_of_a_report_and_the_measures_of_a_contrast_are_counted(monkeypatch):
    laws, compared = told_in(monkeypatch, trends, "fit_trend"), told_in(monkeypatch, contrast, "numbers_contrast")
    find(load_study(make_made_up_store()))
    assert laws[0].startswith("stages of the fits 2 of 5, trends 0 of ")
    assert re.fullmatch(
        r".*trends [1-9]\d* of \d+, dimensions \d of 3, 1 s so far, (about |less than ).* left", laws[-1]
    )
    assert any(line.startswith("stages of the fits 1 of 5, measures 1 of 4") for line in compared)


def test_the_certified_classes_of_a_margin_search_are_counted():
    shares = []
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    one_vs_rest_margins(rows, progress=lambda *_: shares.append((LOOPS[-1].what, share_done(LOOPS))) and None)
    assert shares[-1] == ("classes certified", 1.0)
    assert LOOPS == []


def test_the_samples_of_a_set_that_is_read_in_batches_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "BATCH_VALUES", 40)
    lines = told_in(monkeypatch, CollapseMeter, "update")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", features=rng.normal(size=(30, 4)), labels=np.arange(30) % 3)
    assert main(["measure", str(tmp_path / "set.npz"), "--stream"]) == 0
    assert [line.split(",")[0] for line in lines] == [f"samples {done} of 30" for done in (0, 10, 20)]


def work(*_: object) -> int:
    for _ in counted(range(3), "steps", 3):
        output.time.sleep(0.05)
    output.put("done")
    return 0


def test_a_command_that_takes_its_time_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(output, "QUIET", 0.0)
    monkeypatch.setattr(output, "APART", 0.02)
    monkeypatch.setattr("gnc.cli.main.make_parser", lambda _: Words())
    assert main(["work"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "done\n"
    assert re.search(
        r"^gnc work: steps [12] of 3, less than 1 s so far, less than 1 s left$", captured.err, flags=re.MULTILINE
    )


class Words:
    """Stands for a parser, to run `work` as a command."""

    def parse_args(self, _: object) -> argparse.Namespace:
        return argparse.Namespace(command=work, has_view=False, debug=False)


LIVE = """
import time
from gnc.cli import output
from gnc_models.progress import counted
output.QUIET, output.LIVE = 0.01, 0.01
with output.Watch("gnc work"):
    for step in counted(range(4), "steps", 4):
        time.sleep(0.1)
    output.put("the answer")
"""


def test_on_a_terminal_the_line_goes_before_the_answer_comes():
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", LIVE], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            shown += os.read(leader, 1 << 16)
        except OSError:
            break
    assert process.wait() == 0
    text = shown.decode(errors="replace")
    assert "steps" in text
    before = text[: text.index("the answer")]
    assert before.rstrip(" \r").endswith("\x1b[2K")  # the line was taken away


def test_a_column_is_no_setting_and_says_where_it_is_told_and_measured(capsys):
    assert main(["settings", "pgd_accuracy"]) == 0
    out = capsys.readouterr().out
    assert "pgd_accuracy is no setting: it is a column of results" in out
    assert re.search(r"docs/rows.md.*\n(.*\n)*  only with +attack_radii", out)
    assert main(["settings", "gnc1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["column"]["name"] == "gnc1_rank"
    assert main(["settings", "no such thing"]) == 2
    assert "in all" in capsys.readouterr().err
