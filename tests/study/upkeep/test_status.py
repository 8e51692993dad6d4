"""`gnc status` and its watch: what a folder alone tells, until the study's end; --where on check, status and run."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gnc.cli.main import main
from study.design.study_file import read_study
from study.execution.run_mark import under_way
from study.store.disk_use import in_words, kind_of, measure_disk_use
from study.store.finished_trials import FinishedTrials
from study.store.schemas import fragment_table, identity_and_settings
from study.store.store import Store, open_store
from study.store.store import study_file as study_file_name
from study.upkeep.status import read_status
from study.upkeep.watch import watch
from tests.study.conftest import finish, made_up_measurement
from tests.study.design.test_search import OPTUNA, RATE, STUDY


def test_every_file_of_a_folder_is_of_a_kind(store):
    names = {
        "rows/0123456789abcdef.parquet": "rows",
        "rows/.0123456789abcdef.parquet.12.00ff00ff.tmp": "temporary",
        "checkpoints/0123456789abcdef/00000003.checkpoint": "checkpoints",
        "results.parquet": "sealed",
        "compacted": "sealed",
        "probe-0123456789abcdef": "temporary",
        "callbacks/tensorboard/0123456789abcdef/events": "callbacks",
        "notes.txt": "other",
        "rows": "other",
    }
    assert {name: kind_of(name) for name in names} == names
    for name in names:
        if name != "rows":
            store.storage.write(name, bytes(100))
    use = measure_disk_use(store.storage.tree())
    assert use["temporary"].files == 2
    assert sum(kind.bytes for kind in use.values()) == 800
    assert [in_words(n) for n in (999, 1024, 5 << 20, 1 << 60)] == ["999 bytes", "1 KiB", "5 MiB", "1.02e+03 PiB"]


def test_status_tells_disk_use_by_kind(study_file, tmp_path, capsys):
    study, store = study_file(), open_store(tmp_path / "r")
    store.write_study(study.read_text())
    finish(store, read_study(study).configs[0])
    assert main(["status", store.uri]) == 0
    assert "KiB on disk: rows " in capsys.readouterr().out
    assert main(["status", store.uri, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    ((fragment,),) = store.fragments().values()
    assert facts["disk"]["rows"] == {"files": 1, "bytes": fragment.size}
    assert facts["over"] is False


def test_where_selects_what_is_checked_and_counted(study_file, tmp_path, capsys):
    study, store = study_file(), open_store(tmp_path / "r")
    store.write_study(study.read_text())
    configs = read_study(study).configs
    for config in configs:
        if config.num_classes == 6:
            finish(store, config)
    where = ["--where", "num_classes <= 6"]
    assert main(["check", str(study), store.uri, *where]) == 0
    out = capsys.readouterr().out
    assert "small: 2 trials, 2 stored" in out
    assert "--where leaves out 2 more trials of the study" in out
    assert main(["check", str(study), store.uri, *where, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trials"], facts["left_out"], facts["missing"]) == (2, 2, [])
    assert main(["status", store.uri, *where]) == 0
    assert "2 complete\n" in capsys.readouterr().out
    assert main(["status", store.uri, "--where", "num_classes > 6"]) == 0
    assert "2 not started\n" in capsys.readouterr().out
    assert main(["status", store.uri, "--all", "--where", "seed == 0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["complete"], facts["left_out"]) == (1, 1)


def test_a_run_of_selected_trials_ends_well_and_names_the_rest(study_file, tmp_path, capsys):
    study, store = study_file(), open_store(tmp_path / "r")
    for config in read_study(study).configs:
        if config.seed == 0:
            finish(store, config)
    assert main(["run", str(study), store.uri, "--where", "seed == 0"]) == 0
    err = capsys.readouterr().err
    assert "0 trials to run: 2 of 2" in err
    assert "2 complete; --where left out 2 more trials of the study" in err


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("num_clases < 3", "Did you mean 'num_classes'?"),
        ("num_classes > 900", "must select at least one of the 4 trials"),
    ],
)
def test_a_selection_of_nothing_or_of_what_is_not_known_exits_2(study_file, tmp_path, capsys, where, words):
    for command in ("check", "run"):
        assert main([command, str(study_file()), str(tmp_path / "r"), "--where", where]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_an_adaptive_search_is_selected_by_whole_cells(tmp_path, capsys):
    study = tmp_path / "search.toml"
    study.write_text(STUDY.format(search=RATE, tune=OPTUNA))
    assert main(["check", str(study), str(tmp_path / "r"), "--where", "num_classes == 6", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trials"] == facts["left_out"] == 10
    for where in ("seed == 0", "learning_rate > 0.1 and num_classes == 6"):
        assert main(["check", str(study), str(tmp_path / "r"), "--where", where]) == 2
        assert "--where must select whole cells of an adaptive search" in capsys.readouterr().err
    store = open_store(tmp_path / "r")  # what there is can be looked at by any setting
    store.write_study(study.read_text())
    assert main(["status", store.uri, "--where", "seed == 0 and learning_rate > 0.1"]) == 0
    assert "no trials" in capsys.readouterr().out


def beat(store: Store, config) -> None:
    store.write_live(config.key, 1, fragment_table(config, [made_up_measurement(3)]))


def test_a_study_is_over_when_nothing_runs_and_nothing_more_will(study_file, store):
    path = study_file()
    study = read_study(path)
    first, *rest, last = study.configs
    assert not read_status(store, study).is_over
    store.write_study(path.read_text())
    for config in (first, *rest):
        finish(store, config)
    assert not read_status(store, study).is_over
    store.write_failure(last.key, 1, {"attempt": 1, "reason": "no", "settings": identity_and_settings(last)})
    store.begin_run("run-1")
    assert not read_status(store, study).is_over  # it has attempts left, and the run may be about to use them
    store.end_run("run-1")
    assert read_status(store, study).is_over  # the run has ended without
    beat(store, last)
    assert not read_status(store, study).is_over
    finish(store, last)
    assert read_status(store, study).is_over


def test_runs_of_a_study_that_was_changed_meanwhile_are_named_beside_the_latest(study_file, store, capsys):
    """Each run goes on with the study that it began with; the folder's study is the one run last."""
    old, new = study_file().read_text(), study_file(steps=50).read_text()
    with under_way(store, "run-old", study=old), under_way(store, "run-new", study=new):
        for text in (old, new):
            store.write_study(text)
        assert main(["status", store.uri]) == 0
        told = [
            re.search(r"(run-\w+) on .* of (studies/\w+\.toml)", line) for line in capsys.readouterr().out.splitlines()
        ]
        assert dict(found.groups() for found in told if found) == {
            "run-new": f"studies/{study_file_name(new)}", "run-old": f"studies/{study_file_name(old)}",
        }  # fmt: skip
        assert main(["status", store.uri, "--json"]) == 0
        runs = json.loads(capsys.readouterr().out)["runs"]
        assert [run["study"] for run in runs] == [study_file_name(new), study_file_name(old)]


def test_a_watch_reads_each_finished_trial_once(study_file, store, monkeypatch):
    study = read_study(study_file())
    for config in study.configs[:3]:
        finish(store, config)
    read, plain = [], FinishedTrials.read_end
    monkeypatch.setattr(FinishedTrials, "read_end", lambda self, *named: read.append(named) or plain(self, *named))
    known: dict = {}
    for _ in range(3):
        assert read_status(store, study, known=known).counts["complete"] == 3
    assert len(read) == 3
    finish(store, study.configs[0], epochs=5)  # another file under the same name is read again
    read_status(store, study, known=known)
    assert len(read) == 4


def test_a_watch_prints_a_line_a_change_and_ends_with_the_study(study_file, tmp_path, capsys):
    path, store = study_file(), open_store(tmp_path / "r")
    configs = read_study(path).configs
    store.write_study(path.read_text())
    finish(store, configs[0])
    beat(store, configs[1])
    stages = iter([lambda: None, lambda: [finish(store, c) for c in configs[1:3]], lambda: finish(store, configs[3])])

    def read():
        next(stages)()
        return read_status(store, read_study(path))

    assert watch(read, seconds=0.01).is_over
    lines = capsys.readouterr().out.splitlines()
    said = [line.split(" ", 1)[1].split("; ")[:2] for line in lines]
    assert said[0][0] == "small: 1 complete, 1 running, 2 not started"
    assert said[1][0] == "small: 3 complete, 1 not started"
    assert said[2][0] == "small: 4 complete"
    assert len(lines) == 3
    assert main(["status", store.uri, "--watch", "0.01"]) == 0
    assert main(["status", store.uri, "--watch", "0"]) == 2


def test_a_folder_that_is_away_for_a_moment_is_looked_at_again(study_file, store, capsys):
    study = read_study(study_file())
    for config in study.configs:
        finish(store, config)
    failures = iter([OSError("stale handle")] * 2)

    def read():
        error = next(failures, None)
        if error:
            raise error
        return read_status(store, study)

    assert watch(read, seconds=0.01, as_json=True).is_over
    captured = capsys.readouterr()
    assert captured.err.count("stale handle") == 2
    assert json.loads(captured.out)["complete"] == 4

    def lost():
        raise OSError("gone for good")

    with pytest.raises(OSError, match="gone for good"):
        watch(lost, seconds=0.01)


def read_terminal(leader: int, until: bytes = b"\0\0", seconds: float = 60) -> bytes:
    shown, deadline = b"", time.monotonic() + seconds
    while until not in shown and time.monotonic() < deadline and select.select([leader], [], [], 1 + seconds / 2)[0]:
        try:
            shown += os.read(leader, 1 << 16)
        except OSError:  # the other end is closed: the process has ended
            break
    return shown


def start_watch(results: Path) -> tuple[subprocess.Popen, int]:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    command = [sys.executable, "-m", "gnc.cli.main", "status", str(results), "--watch", "0.2"]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    return process, leader


def test_the_watch_on_a_terminal_lives_until_the_study_ends(study_file, tmp_path):
    path, store = study_file(), open_store(tmp_path / "r")
    configs = read_study(path).configs
    store.write_study(path.read_text())
    finish(store, configs[0])
    beat(store, configs[1])
    process, leader = start_watch(tmp_path / "r")
    try:
        shown = read_terminal(leader, until=b"1 complete, 1 running, 2 not started")
        late = threading.Thread(target=lambda: [finish(store, config) for config in configs[1:]])
        late.start()
        shown += read_terminal(leader)
        late.join()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    text = shown.decode(errors="replace")
    for words in ("1 complete, 1 running, 2 not started", "4 complete", "on disk"):
        assert words in text
    assert re.search(rf"{configs[1].key} +3 +0\.\d+ .* attempt 1 on .*, heartbeat", text)
    assert "Traceback" not in text


def test_interrupting_a_watch_is_quiet(study_file, tmp_path):
    path, store = study_file(), open_store(tmp_path / "r")
    store.write_study(path.read_text())
    process, leader = start_watch(tmp_path / "r")
    try:
        shown = read_terminal(leader, until=b"4 not started")
        process.send_signal(signal.SIGINT)
        shown += read_terminal(leader)
        assert process.wait(timeout=60) == 1
    finally:
        process.kill()
        process.wait()
    assert b"interrupted" in shown
    assert b"Traceback" not in shown


def test_a_torn_table_is_named_and_an_empty_folder_says_so(study_file, store, capsys):
    finish(store, read_study(study_file()).configs[0])
    store.seal()
    store.storage.write("results.parquet", store.storage.read("results.parquet")[:-100])
    assert main(["status", store.uri]) == 0
    assert "warning: results.parquet cannot be read" in capsys.readouterr().err
    Path(store.uri, "empty").mkdir()
    assert main(["status", f"{store.uri}/empty"]) == 0
    assert "/empty holds no study and no trial. To fill it: gnc run" in capsys.readouterr().out


def test_torn_checkpoints_are_named_each_read_once(store, monkeypatch):
    for epoch in (1, 2):
        store.write_checkpoint("0123456789abcdef", epoch, b"state")
    name = "checkpoints/0123456789abcdef/00000002.checkpoint"
    store.storage.write(name, store.storage.read(name)[:-1])
    known: dict = {}
    assert read_status(store, None, known=known).unreadable == (name,)
    monkeypatch.setattr(type(store), "_read_checkpoint", lambda *_: pytest.fail("it was read again"))
    assert read_status(store, None, known=known).unreadable == (name,)


# --- who has what ---------------------------------------------------------------------------------------------------


def mark_far(store: Store, run: str, key: str = "", *, clock: float = 0.0, age: float = 0.0, study: str = "") -> None:
    """The mark of a run on another machine whose clock differs by so many seconds, written some seconds ago."""
    now = time.time()
    mark = {"host": "far", "process": 1, "boot": "another", "born": "1", "time": now + clock - age, "study": study}
    store.storage.write(f"live/{run}.run", json.dumps(mark).encode())
    os.utime(Path(store.uri, f"live/{run}.run"), (now - age, now - age))
    if key:
        assert store.take(key, run, after=0)


@pytest.mark.parametrize("clock", [-600.0, 0.0, 600.0])
def test_clocks_that_differ_make_no_run_silent_and_hide_no_dead_one(study_file, store, clock, capsys):
    path = study_file()
    store.write_study(path.read_text())
    alive, dead, *_ = read_study(path).configs
    for config, run, age in ((alive, "run-alive", 0), (dead, "run-dead", 3600)):
        beat(store, config)
        mark_far(store, run, config.key, clock=clock, age=age)
    before = {entry.name for entry in store.storage.tree()}
    assert main(["status", store.uri]) == 0
    out = capsys.readouterr().out
    assert {entry.name for entry in store.storage.tree()} == before
    assert "1 running, 1 cut off, 2 not started" in out
    assert re.search(r"run-alive .*heartbeat \d s ago$", out, re.MULTILINE)
    assert re.search(r"run-dead .*heartbeat 36\d\d s ago, silent: other runs take its trials", out)


def test_trials_in_progress_are_those_of_the_study_and_others_have_a_line_of_their_own(study_file, store, capsys):
    old = study_file(num_classes="[5]")
    text, other = old.read_text(), read_study(old).configs[0]
    path = study_file()
    store.write_study(text)
    store.write_study(path.read_text())
    for config in read_study(path).configs:
        finish(store, config)
    beat(store, other)
    mark_far(store, "run-other", other.key, study=study_file_name(text))
    assert main(["status", store.uri]) == 0
    out = capsys.readouterr().out
    assert "small in" in out.splitlines()[0]
    assert out.splitlines()[0].endswith(": 4 complete")
    assert f"  beside it: 1 running of studies/{study_file_name(text)}\n" in out
    assert main(["status", store.uri, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["running"], facts["over"]) == ([], True)
    assert facts["beside"] == {f"running of studies/{study_file_name(text)}": 1}
    assert main(["status", store.uri, "--all"]) == 0
    assert f"all trials in {store.uri}: 4 complete, 1 running\n" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_trial_whose_run_was_killed_is_cut_off_at_once_and_one_that_is_paused_is_not(
    number, study_file, store, capsys
):
    path = study_file()
    store.write_study(path.read_text())
    config = read_study(path).configs[0]
    beat(store, config)
    code = f"from study.store.store import open_store\nstore = open_store({store.uri!r}); store.begin_run('run-a')\n"
    code += f"store.take({config.key!r}, 'run-a', after=0); print('began', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"began\n"
        process.send_signal(number)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        assert main(["status", store.uri]) == 0
        out = capsys.readouterr().out
        process.kill()
    if number == signal.SIGSTOP:  # it may go on, and is silent only after a minute
        assert "1 running, 3 not started" in out
        assert "silent" not in out
        mark = json.loads(store.storage.read("live/run-a.run"))
        store.storage.write("live/run-a.run", json.dumps(mark | {"time": mark["time"] - 77}).encode())
        assert main(["status", store.uri]) == 0
        out = capsys.readouterr().out
    assert "1 cut off, 3 not started" in out
    assert re.search(r"run-a .* 1 trial, heartbeat \d+ s ago, silent: other runs take its trials", out)
    assert re.search(rf"  cut off  {config.key}  .*, cut off: continues when run again", out)
    store.remove_claims(config.key)
    assert main(["status", store.uri]) == 0
    assert "silent" not in capsys.readouterr().out  # there is nothing to take
