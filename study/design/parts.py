"""Parts and fonts of one's own in a study file: from names as written to digests of what they mean.
Reads files and runs none of them; does not know torch or the store."""

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gnc_models.catalog.members import BUILT_IN_FONTS, FAMILIES, OWN_FAMILIES, is_reference
from gnc_models.catalog.parts import PartError, digest_of, hold_code, is_file, module_source, split_reference
from gnc_models.datasets.stored.font_files import fonts_digest
from gnc_models.datasets.stored.layouts import data_folder
from study.design.config import TrialConfig, one_of_each_cell
from study.design.errors import StudyError

_FONTS = "fonts "  # before the names of fonts, which are no references
PINS = "code"  # the table of a stored study file that says which code each reference meant


def check_pins(pins: dict[str, Any]) -> dict[str, Any]:
    """The table, if each name has a reference and a source."""
    for name, pin in pins.items():
        if not (isinstance(pin, list) and len(pin) == 2 and all(isinstance(text, str) for text in pin)):
            raise StudyError(f"[{PINS}] must give each name a reference and a source, got {pin!r} for {name!r}.")
        if not name.startswith(_FONTS):
            split_reference(pin[0])
    return pins


def metric_names(metrics: str | None) -> list[str]:
    """What each metric of one's own is called in the column custom: its function's name, or all of it where two have that."""
    references = metrics.split(", ") if metrics else []
    names = [reference.rpartition(":")[2] for reference in references]
    return [n if names.count(n) == 1 else whole for n, whole in zip(names, references, strict=True)]


@dataclass
class PartFinder:
    """Finds the code behind the references of one study file."""

    folder: Path | None  # of the study file; None for a text out of a results folder: only its pins say what was meant
    pins: Mapping[str, Any]
    found: dict[str, tuple[str, str]] = field(default_factory=dict)  # reference and source of each name as written
    code: dict[str, bytes] = field(default_factory=dict)  # files that were read, by digest
    here: set[tuple[str, str]] = field(default_factory=set)  # references and sources whose code is the user's own
    warnings: list[str] = field(default_factory=list)

    def settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with the source of every part of one's own."""
        settled = dict(settings)
        for family in OWN_FAMILIES:
            if (found := self._find(family, settings.get(family))) is not None:
                settled[family] = found[0]
                self._set_source(settled, family, found[1])
        if isinstance(settings.get("metrics"), str):
            names = settings["metrics"].split(", ")
            parts = [self._find("metric", name) for name in names]
            if strange := [n for n, part in zip(names, parts, strict=True) if part is None and not is_reference(n)]:
                raise StudyError(f"metrics must be a list of file.py:name or package.module:name, got {strange[0]!r}.")
            if None not in parts:
                settled["metrics"], sources = (", ".join(each) for each in zip(*filter(None, parts), strict=True))
                self._set_source(settled, "metrics", sources)
        fonts = settings.get("fonts")
        if isinstance(fonts, str) and fonts != BUILT_IN_FONTS:
            self._set_source(settled, "fonts", self._find_fonts(fonts))
        return settled

    def _find_fonts(self, fonts: str) -> str:
        name = f"{_FONTS}{fonts}"
        if name not in self.found:
            pinned = self.pins[name][1] if name in self.pins else None
            try:
                here = fonts_digest(fonts, data_folder())
            except ValueError as error:
                if pinned is None:
                    raise StudyError(str(error)) from None
                here = pinned
            if pinned not in (None, here) and self.folder is not None:
                rule = f"fonts {fonts} must be the files that [{PINS}] names, {pinned!r}"
                raise StudyError(f"{rule}, got {here!r}. Install that version, or remove its line for new trials.")
            self.found[name] = (fonts, pinned or here)
        return self.found[name][1]

    def _set_source(self, settled: dict[str, Any], family: str, source: str) -> None:
        given = settled.setdefault(f"{family}_source", source)
        if given != source:
            rule = f"{family}_source must be that of {settled[family]}, {source!r}"
            raise StudyError(f"{rule}, got {given!r}. Leave it out, or put the former file back.")

    def _find(self, family: str, written: Any) -> tuple[str, str] | None:
        """Reference and source; None for a member of the package, and for what is refused elsewhere."""
        if not isinstance(written, str) or written in FAMILIES.get(family, ()):
            return None
        name = written if is_reference(written) else f"{family} {written}"  # families may share a short name
        if name not in self.found:
            try:
                found = self._look_up(family, written, self.pins.get(name))
            except PartError as error:
                raise StudyError(f"{family} {error}") from None
            self.found |= {} if found is None else {name: found}
        return self.found.get(name)

    def _look_up(self, family: str, written: str, pin: Any) -> tuple[str, str] | None:
        here = None if self.folder is None else self._look_here(family, written, self.folder, is_pinned=pin is not None)
        self.here |= {here} if here else set()
        if pin is None:
            return here
        reference, source = pin
        if here is not None and here != (reference, source):  # changed since the study ran, and so other trials
            rule = f"{written} must be the code that [{PINS}] names, {source!r}"
            raise StudyError(f"{rule}, got {here[1]!r}. Put that file back, or remove its line for new trials.")
        return reference, source

    def _look_here(self, family: str, written: str, folder: Path, *, is_pinned: bool) -> tuple[str, str] | None:
        reference = written
        if not is_reference(written):
            registered = entry_points(group=f"gnc.{family}s", name=written)
            if not registered:
                return None
            reference = next(iter(registered)).value.replace(" ", "")
        place, name = split_reference(reference)
        if not is_file(place):
            try:
                return reference, module_source(place)
            except PartError:
                if is_pinned:
                    return None
                raise
        reference = f"{Path(place).as_posix()}:{name}"
        try:
            content = (folder / place).read_bytes()
        except OSError as error:
            if is_pinned:
                return None
            rule = f"{reference} must name a file, relative to the study file"
            raise StudyError(f"{family} {rule}, got {str(folder / place)!r}: {error.strerror}.") from None
        digest = digest_of(content)
        if digest not in self.code:
            self.warnings += _imports_beside(folder / place, content)
        self.code[digest] = content
        hold_code(digest, content)
        return reference, digest

    def elsewhere(self, configs: Iterable[TrialConfig]) -> tuple[str, ...]:
        """The parts whose code was not read beside the study file: only a results folder has it, or names it."""
        parts = {part for config in one_of_each_cell(configs) for own in config.parts().values() for part in own}
        return tuple(sorted(reference for reference, _ in parts - self.here))

    def pinned(self, text: str) -> str:
        """The study file's text, with the code that its references mean, so that a stored copy says it too."""
        if new := [name for name in self.found if self.pins and name not in self.pins]:
            raise StudyError(f"[{PINS}] must name every part of one's own, got none for {new[0]!r}. Remove the table.")
        if not self.found or self.pins:
            return text
        lines = (f"{json.dumps(name)} = {json.dumps(list(found))}" for name, found in self.found.items())
        return "\n".join([text.rstrip("\n"), "", f"[{PINS}]", *lines, ""])


def _imports_beside(path: Path, content: bytes) -> list[str]:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return []  # importing it says what is wrong
    names = {a.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    beside = [f"{n}.py" for n in names if (path.parent / f"{n}.py").is_file()]
    beside += [f"{n}/" for n in names if n and (path.parent / n).is_dir()]
    fact = "which lies beside it: that code is in no key and is not sent to other machines."
    cure = "Move what is needed into one file, or install it as a package."
    return [f"{path.name} imports {name}, {fact} {cure}" for name in sorted(beside)]
