"""The results folder, which holds the whole state of a study. `Store` reads and writes all of it.

    studies/<sha8>.toml        every study file as run
    rows/KEY.parquet           a finished trial: its rows; state and reason in the footer (see finished_trials)
    archive/                   finished trials whose own files `gnc seal --compact` removed (see archives)
    results.parquet trials.parquet   sealed tables, made from rows/ and archive/ (see sealed_tables)
    live/KEY.<attempt>.parquet a trial in progress: rows so far and heartbeat; never counted as a result
    live/<run>.stop            asks the trials of that run to write a checkpoint and end; live/KEY.stop asks one trial
    live/<run>.run             the run is going on; a machine that does not see this file sees another folder
    suggestions/CELL.json      settings that a search suggested, written before their trials start
    margins/ heads/            per-class margins; final head and class means, written before the rows file
    failures/KEY.<attempt>.json  how an attempt failed or was cut off, and whether it counts against the trial
    logs/KEY.<attempt>.log     what an attempt was asked, did and printed    checkpoints/KEY/<epoch>.checkpoint
    codes/                     rows of best codes, the same for every machine (see codes)
    optima/                    optima computed on request, with which rows are compared (see optima)
    report/                    what `gnc report` writes

Does not know Ray, torch or how a trial is trained.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from study.design.errors import StudyError
from study.store.sealing.sealed_tables import RESULTS, TRIALS, SealedTables
from study.store.storage import Storage, Tell, ignore

STUDY_NAME = re.compile(r"[0-9a-f]{8}\.toml")  # of a study file that was run
LEFT_BY_A_STUDY = ("rows", "archive", "live", "failures", "suggestions", "heads", "optima")


def open_store(results: str | Path) -> "Store":
    """The store at a folder or URI; nothing is created until something is written."""
    return Store(Storage(results))


class Store(SealedTables):
    """Everything read from and written to one results folder.

    Functions that read take `on_unreadable`, which is told the name of each file that is torn or foreign.
    """

    @property
    def uri(self) -> str:
        """The folder or URI as the user named it."""
        return self.storage.uri

    def check_results_folder(self) -> None:
        """Raise StudyError if the folder holds files but none of a study: another folder was named by mistake."""
        tables = {entry.name for entry in self.storage.entries("", ".parquet")} & {RESULTS, TRIALS}
        studies = (entry.name for entry in self.storage.entries("studies", ".toml"))
        left = tables or any(map(STUDY_NAME.fullmatch, studies)) or any(map(self.storage.entries, LEFT_BY_A_STUDY))
        if not left and not self.storage.is_empty():
            raise StudyError(f"RESULTS must be a results folder, got {self.uri!r}, which holds other files.")

    def stopped_by(self) -> dict[str, str]:
        """The digest of the rule that stopped each stopped trial."""
        trials = self.read_trials().select(["trial", "state", "stopped_by"]).to_pylist()
        return {trial["trial"]: trial["stopped_by"] for trial in trials if trial["state"] == "stopped"}

    def write_study(self, text: str) -> None:
        """Store the text of a study file that is run; running it again makes it the latest."""
        self.storage.write(f"studies/{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml", text.encode())

    def latest_study(self) -> str | None:
        """The text of the study file that was run last; None where none was run."""
        return next(reversed(self.studies()), None)

    def studies(self) -> list[str]:
        """The texts of all study files that were run here, the latest at the end."""
        entries = sorted(self.storage.entries("studies", ".toml"), key=lambda entry: (entry.modified_ns, entry.name))
        return [(self.storage.read(f"studies/{entry.name}") or b"").decode(errors="replace") for entry in entries]

    def write_suggestion(self, cell: str, settings: dict[str, Any]) -> None:
        """Store a suggestion, as settings without a seed, before the first of its trials starts."""
        self.storage.write(f"suggestions/{cell}.json", json.dumps(settings).encode())

    def suggestions(self, on_unreadable: Tell = ignore) -> dict[str, dict[str, Any]]:
        """The settings of every suggestion by cell, oldest first."""
        found = {}
        entries = self.storage.entries("suggestions", ".json")
        for entry in sorted(entries, key=lambda entry: (entry.modified_ns, entry.name)):
            settings = self.storage.read_as(f"suggestions/{entry.name}", json.loads, on_unreadable)
            if settings is not None:
                found[entry.name.removesuffix(".json")] = settings
        return found

    def write_report(self, files: dict[str, bytes]) -> None:
        """Write the report's files under report/, each whole."""
        for name, content in files.items():
            self.storage.write(f"report/{name}", content)

    def read_report(self, name: str) -> bytes | None:
        """A file of the last report; None where there is none."""
        return self.storage.read(f"report/{name}")
