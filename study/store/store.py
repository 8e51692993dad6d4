"""The results folder, which holds the whole state of a study. `Store` reads and writes all of it.
docs/results.md says what each file is. Does not know Ray, torch or how a trial is trained."""

import contextlib
import hashlib
import itertools
import json
import re
import secrets
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnc_models.catalog.parts import PartError, hold_code, is_file, split_reference
from study.design.config import TrialConfig
from study.design.errors import StudyError, nearest, unreadable
from study.store.claims import Claims
from study.store.sealing.sealed_tables import RESULTS, TRIALS, SealedTables
from study.store.storage import Storage, Tell, ignore

STUDY_NAME = re.compile(r"[0-9a-f]{8}\.toml")  # of a study file that was run
RUN_AT = "# run at (ns since 1970): "  # the last line of such a file
SUGGESTED_AT = "suggested_at"  # beside a suggestion's settings
LEFT_BY_A_STUDY = ("rows", "archive", "live", "claims", "failures", "suggestions", "heads", "optima")


def open_store(results: str | Path) -> "Store":
    """The store at a folder or URI; nothing is created until something is written."""
    return Store(Storage(results))


def existing_store(results: str | Path) -> "Store":
    """The store at an existing folder; StudyError where there is none, or another kind of folder."""
    store = open_store(results)
    if not store.storage.exists():
        raise unreadable("RESULTS must be a results folder", results, FileNotFoundError(), "*/")
    store.check_results_folder()
    return store


def study_file(text: str) -> str:
    """The name under which a study with this text lies in studies/."""
    return f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"


class Store(SealedTables, Claims):
    """Everything read from and written to one results folder.
    Functions that read take `on_unreadable`, which is told the name of each file that is torn or foreign."""

    @property
    def uri(self) -> str:
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

    def write_study(self, text: str, code: Mapping[str, bytes] | None = None) -> None:
        """Store the text of a study file that is run; running it again makes it the latest.
        code: by digest, the files of its parts of one's own, which are there before the study is."""
        for digest, content in (code or {}).items():
            self.storage.write(f"code/{digest}.py", content)
        newest = max((at for at, _, _ in self.study_files()), default=0)
        # in the content, since a copy of the folder may have other times; later than all, whatever this clock says
        self.storage.write(f"studies/{study_file(text)}", f"{text}\n{RUN_AT}{max(time.time_ns(), newest + 1)}".encode())

    def read_code(self, digest: str) -> bytes | None:
        """The file with this digest that defines a part of one's own; None where the folder has none."""
        return self.storage.read(f"code/{digest}.py")

    def hold_code(self, config: TrialConfig) -> None:
        """Let this process run the files of the trial's parts; PartError where one is missing or was changed."""
        for reference, source in itertools.chain.from_iterable(config.parts().values()):
            if is_file(split_reference(reference)[0]):
                content = self.read_code(source)
                if content is None:
                    rule = f"code/{source}.py must be in {self.uri!r}"
                    raise PartError(f"{rule}: it is {reference}. Run gnc run there again.")
                hold_code(source, content)

    def latest_study(self, name: str | None = None) -> str | None:
        """The text of the study file run last, or last under this name (else StudyError); None where none was run."""
        if name is None:
            return next(reversed(self.studies()), None)
        named = dict[str, str]()
        for text in self.studies():
            with contextlib.suppress(tomllib.TOMLDecodeError):
                named[str(tomllib.loads(text).get("name"))] = text
        if name not in named:
            rule = f"--study must name a study that was run in {self.uri}"
            raise StudyError(f"{rule}, got {name!r}. {nearest(name, named)}")
        return named[name]

    def studies(self) -> list[str]:
        """The texts of all study files that were run here, the latest at the end."""
        return [text for _, _, text in self.study_files()]

    def study_files(self) -> list[tuple[int, str, str]]:
        """When each study was run last, in nanoseconds since 1970, the name of its file, and its text; latest at the end.
        Older versions left the time to the file system."""
        found = []
        for entry in self.storage.entries("studies", ".toml"):
            content = (self.storage.read(f"studies/{entry.name}") or b"").decode(errors="replace")
            text, _, at = content.rpartition(f"\n{RUN_AT}")
            found.append((int(at), entry.name, text) if at.isdecimal() else (entry.modified_ns, entry.name, content))
        return sorted(found)

    def write_suggestion(self, cell: str, settings: dict[str, Any]) -> None:
        """Store a suggestion, as settings without a seed, before the first of its trials starts."""
        self.storage.write(f"suggestions/{cell}.json", json.dumps({**settings, SUGGESTED_AT: time.time_ns()}).encode())

    def suggestion_names(self) -> set[str]:
        return {entry.name.removesuffix(".json") for entry in self.storage.entries("suggestions", ".json")}

    def suggestions(self, on_unreadable: Tell = ignore) -> dict[str, dict[str, Any]]:
        """The settings of every suggestion by cell, oldest first; its file says when it was made, as for a study."""
        found = []
        for entry in self.storage.entries("suggestions", ".json"):
            if settings := self.storage.read_as(f"suggestions/{entry.name}", json.loads, on_unreadable):
                cell, at = entry.name.removesuffix(".json"), settings.pop(SUGGESTED_AT, entry.modified_ns)
                found.append((at, cell, settings))
        return {cell: settings for _, cell, settings in sorted(found, key=lambda each: each[:2])}

    def folder_id(self) -> str:
        """A name of this folder that no other has, made when it is first asked for."""
        return self.storage.write_once("live/folder.id", secrets.token_hex(8).encode()).decode(errors="replace")

    def write_report(self, files: dict[str, bytes | None]) -> None:
        """Write the report's files under report/, each whole; one without content is removed."""
        for name, content in files.items():
            if content is None:
                self.storage.remove(f"report/{name}")
            else:
                self.storage.write(f"report/{name}", content)

    def read_report(self, name: str) -> bytes | None:
        """A file of the last report; None where there is none."""
        return self.storage.read(f"report/{name}")
