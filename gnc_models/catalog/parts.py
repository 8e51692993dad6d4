"""Parts of one's own by reference: from `nets.py:make_net` and the digest of its code to the function. Knows no torch.
A source is the SHA-256 of the file that defines the name, for an installed package after `distribution==version`."""

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import linecache
import sys
import traceback
import types
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_HELD: dict[str, bytes] = {}


class PartError(ValueError):
    """A part of one's own that cannot be found or loaded, or whose code is not the code that is meant."""


def split_reference(reference: str) -> tuple[str, str]:
    """File or module, and name; PartError for what is neither."""
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier() or any(character in reference for character in ",\n\\"):
        raise PartError(f"a reference must be file.py:name or package.module:name, got {reference!r}.")
    return place, name


def is_file(place: str) -> bool:
    return place.endswith(".py")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hold_code(digest: str, content: bytes) -> None:
    """Let this process run a source file; PartError if these bytes are not those of the digest. Runs nothing yet."""
    if digest_of(content) != digest:
        rule = f"code/{digest}.py must be the file of that digest"
        raise PartError(f"{rule}, got {digest_of(content)}. Restore the file.")
    _HELD[digest] = content


def held_code() -> Mapping[str, bytes]:
    return dict(_HELD)


@cache
def module_source(module: str) -> str:
    """`distribution==version digest` of an installed module, found without running any of it; PartError if not there."""
    try:
        names = module.split(".")
        spec = importlib.util.find_spec(names[0])
        for depth in range(1, len(names)):
            places = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(".".join(names[: depth + 1]), places) if places else None
        content = Path(spec.origin).read_bytes() if spec and spec.origin else None
    except (OSError, ValueError, ImportError):
        content = None
    if content is None:
        raise PartError(f"module must be an installed one with a source file, got {module!r}. Install its package.")
    for name in (names[0], *importlib.metadata.packages_distributions().get(names[0], ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name}=={importlib.metadata.version(name)} {digest_of(content)}"
    return digest_of(content)


@cache
def load_part(reference: str, source: str) -> Any:
    """What a reference names, from the code with that source; PartError where that is another, or lacks the name."""
    place, name = split_reference(reference)
    if not is_file(place):
        if (here := module_source(place)) != source:
            rule = f"{reference} must be the same code on every machine of a study, {source!r}"
            raise PartError(f"{rule}, got {here!r} here. Install that version.")
        module = importlib.import_module(place)
    else:
        module = _load_file(place, source)
    if not hasattr(module, name):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise PartError(f"{reference} must name something in {place}, got no {name!r} there. It has {known[:8]}.")
    return getattr(module, name)


@cache
def _load_file(place: str, digest: str) -> types.ModuleType:
    if digest not in _HELD:
        raise PartError(f"the code of {place} must be at hand, got none with digest {digest[:12]}. See docs/parts.md.")
    name, shown = f"gnc_part_{digest[:16]}", f"<{place} {digest[:8]}>"
    text = _HELD[digest].decode("utf-8")
    # so that tracebacks show its lines
    linecache.cache[shown] = len(text), None, text.splitlines(keepends=True), shown
    module = importlib.util.module_from_spec(ModuleSpec(name, None, origin=shown))
    module.__file__ = shown
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        exec(compile(text, shown, "exec", dont_inherit=True), vars(module))  # noqa: S102 - what the study names
    except BaseException:
        del sys.modules[name]
        raise
    return module


Options = Mapping[str, Any] | None


def call_part(
    family: str, reference: str, source: str, *given: Any, options: Options = None, extras: Options = None
) -> Any:
    """Load a part and call it with what is given and the study's options; an exception gets a note of the study's line.
    extras: handed over where the part's signature names them and no option does."""
    try:
        function, options = load_part(reference, source), options or {}
        return function(*given, **{**wanted(function, extras or {}), **options})
    except Exception as error:
        error.add_note(study_line(family, reference))
        raise


def study_line(family: str, reference: str) -> str:
    return f"in {family} = {reference!r} of the study"


def note_part(error: Exception, family: str, reference: str) -> None:
    """Add the study's line to an exception that passed through this part's file, unless `call_part` did."""
    if any(note.startswith("in ") and note.endswith(" of the study") for note in getattr(error, "__notes__", ())):
        return
    shown = f"<{reference.rpartition(':')[0]} "
    if any(frame.f_code.co_filename.startswith(shown) for frame, _ in traceback.walk_tb(error.__traceback__)):
        error.add_note(study_line(family, reference))


def wanted(function: Any, extras: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the extras that the function's signature names."""
    try:
        return {name: extras[name] for name in inspect.signature(function).parameters if name in extras}
    except (TypeError, ValueError):  # not callable, which the call says, or written in C
        return {}
