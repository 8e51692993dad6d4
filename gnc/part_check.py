"""Runs the contracts of `gnc.testing` on a study's own parts, in a process of its own, before anything starts. Knows study
files; imports no torch, which the other process does."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import IO, Any

from gnc_models.catalog.parts import held_code
from gnc_models.progress import amount
from study.design.config import TrialConfig, one_of_each_cell, settings_with
from study.design.errors import StudyError, summarize

PATIENCE = 600.0  # seconds; a part that takes longer to be made once would hold up every trial


class PartTraceback(Exception):
    """The traceback of a part's own exception, as text from the process that met it."""


def check_parts(configs: Iterable[TrialConfig]) -> list[str]:
    """StudyError with one line for each part of one's own that breaks its contract; their code is held already.

    Of trials that differ in their sizes alone the largest is looked at.

    Returns:
        Sentences on data sets of one's own: whether they are held or streamed."""
    sizes, trials = dict.fromkeys(settings_with("size"), 0), dict[str, dict[str, Any]]()
    for config in one_of_each_cell(configs):
        if config.parts():
            settings = config.settings()
            kind = json.dumps(settings | sizes | {"seed": 0})
            trials[kind] = max(settings, trials.get(kind, settings), key=lambda one: one["num_classes"])
    if not trials:
        return []
    code = {digest: content.decode("latin-1") for digest, content in held_code().items()}
    faults, traces, roads = _answers(json.dumps({"code": code, "trials": list(trials.values())}))
    if faults:
        named = amount(len(set(faults)), "part")
        problem = StudyError(f"{named} of your own cannot be used:\n{summarize(faults)}")
        raise problem from PartTraceback("\n" + "\n".join(traces))
    return roads


def _answers(asked: str) -> tuple[list[str], list[str], list[str]]:
    """The faults found, their tracebacks, and what is said of data sets."""
    # the modules of this process
    start = f"import sys; sys.path[:] = {sys.path!r}; from gnc.testing import main; main()"
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:  # a pipe ends when all its writers do
        ended = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            streams: dict[str, Any] = {"input": asked.encode(), "stdout": output, "stderr": errors}
            command = [sys.executable, "-c", start]
            ended = subprocess.run(command, timeout=PATIENCE, check=False, **streams).returncode
        said, words = (_text(stream) for stream in (output, errors))
    answers = [json.loads(line) for line in said.splitlines()]
    begun = [answer["part"] for answer in answers if "part" in answer]
    faults = [answer["fault"] for answer in answers if "fault" in answer]
    traces = [answer["trace"] for answer in answers if "trace" in answer]
    last = begun[-1] if begun else "parts of your own"
    if ended is None:
        faults.append(f"{last} must be made and checked within {PATIENCE:.0f} s, got no end. Make it quicker.")
    elif ended or not any("end" in answer for answer in answers):
        last_words = (words.strip() or "none").splitlines()[-1]
        faults.append(f"{last} must not end the process, got exit code {ended}. Its last words: {last_words}")
    roads = [answer["road"] for answer in answers if "road" in answer]
    return faults, [*traces, *([words] if ended != 0 else [])], roads


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
