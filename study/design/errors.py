"""Why a study or a setting is refused, in words: the rule, the value and what to do.
Knows pydantic's errors, the fields of the model that refused, and which names lie beside a file; reads none."""

import contextlib
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from study.design.columns import COLUMN_ALIASES, column_sentence
from study.design.config import ALIASES, TrialConfig
from study.design.setting import with_joined_options

SHOWN = 5  # refusals that are shown; of more only the number is said
MOST_KNOWN = 40  # names that a hint lists


class StudyError(ValueError):
    """The user's study cannot be run as it stands; each argument, and the notes, say why and what to do."""

    def __str__(self) -> str:
        """The one refusal, or all of them, one on a line."""
        if len(self.args) == 1:
            return str(self.args[0])
        return "\n".join([f"{len(self.args)} things must be changed:", *map(str, self.args)]).replace("\n", "\n  ")


def require(holds: bool, rule: str) -> None:
    """StudyError with the rule, the value and the cure, unless the rule holds."""
    if not holds:
        raise StudyError(rule)


class Faults:
    """Gathers refusals, so that a user hears of all of them at once."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def add(self, error: StudyError) -> None:
        """Remember what was refused, each refusal once."""
        self.found |= dict.fromkeys(map(str, error.args))

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Go on after what is refused inside."""
        try:
            yield
        except StudyError as error:
            self.add(error)

    def check(self) -> None:
        """StudyError with all that was refused, if anything was."""
        if self.found:
            raise StudyError(*self.found) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known name that others call so, or says what else the name is, or names the nearest; the known
    names when none is near."""
    known = sorted(known)
    other = column_sentence(name) or (f"{name} is a setting." if name in TrialConfig.model_fields else "")
    if other and _meant(name, known) is None:
        return other
    if close := _closest(name, known):
        return f"Did you mean {close!r}?"
    shown = known if len(known) <= MOST_KNOWN else [*known[:SHOWN], f"... {len(known)} in all"]
    return f"Known: {', '.join(shown)}."


def _meant(name: str, known: Collection[str]) -> str | None:
    return next((n for n in (ALIASES.get(name.lower()), COLUMN_ALIASES.get(name.lower())) if n in known), None)


def _closest(name: str, known: Collection[str]) -> str | None:
    return _meant(name, known) or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)


def unreadable(what: str, path: str | Path, error: Exception, pattern: str = "*") -> StudyError:
    """The refusal of a file that a user named and that cannot be read, with the names of this pattern that are near."""
    place = Path(path)
    folder, problem = place.parent, f": {getattr(error, 'strerror', None) or error}."
    if place.is_dir() or not place.exists():
        folder, problem = (place, ", a folder.") if place.is_dir() else (folder, ", which does not exist.")
        try:
            places = sorted(folder.glob(pattern)) + sorted(folder.glob(f"studies/{pattern}"))
            held = {str(one): one.stem for one in places}
        except OSError:
            held = {}
        close = difflib.get_close_matches(place.stem, held.values(), n=1)
        near = [path for path, stem in held.items() if stem in close]
        there = f" There is {', '.join([*held][:SHOWN])}." if held and "." in pattern else " Name one that is there."
        problem += f" Did you mean {near[0]!r}?" if near else there
    return StudyError(f"{what}, got {str(path)!r}{problem}")


def check_known(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """StudyError for the first name that is not known, with its nearest neighbour."""
    known = list(known)
    for name in names:
        if name not in known:
            raise StudyError(f"{where} {_KNOWN}, got {name!r}. {nearest(name, known)}")


def make_config(settings: dict[str, Any]) -> TrialConfig:
    """The TrialConfig of the settings; StudyError with every refusal in words."""
    given = with_joined_options(settings)
    try:
        return TrialConfig(**given)
    except ValidationError as error:
        told = sentences(TrialConfig, error)
    faulty = TrialConfig.settle_given(given)[1]
    if faulty:
        try:  # what else is wrong, which was not looked at beside these
            TrialConfig(**{name: value for name, value in given.items() if name not in faulty})
        except ValidationError as error:
            told += sentences(TrialConfig, error)
    raise StudyError(*(_or_default(fault, given) for fault in dict.fromkeys(told)))


def _or_default(fault: str, given: dict[str, Any]) -> str:
    """A refusal; where its value was not written, that it is a default."""
    name = fault.split(maxsplit=1)[0]
    is_default = name in TrialConfig.model_fields and given.get(name) is None and ", got " in fault
    return f"{fault} That is the default of {name}, which is not written." if is_default else fault


def sentences(model: type[BaseModel], error: ValidationError) -> list[str]:
    """What pydantic refused, in words."""
    items = [(_names(item), item) for item in error.errors()]
    # a key under another name is not missing as well
    meant = {(*tables, _closest(name, _table(model, tables).model_fields))
             for (*tables, name), item in items if item["type"] == "extra_forbidden"}  # fmt: skip
    told = [item for names, item in items if item["type"] != "missing" or names not in meant]
    return [line for item in told for line in _sentence(model, item).splitlines()]


def _names(item: dict[str, Any] | Any) -> tuple[str, ...]:
    """The tables and the key that a refusal is about."""
    return tuple(part for part in item["loc"] if isinstance(part, str)) or ("",)


def _table(model: type[BaseModel], tables: Sequence[Any]) -> type[BaseModel]:
    """The model of a table within a model, by the names that lead to it."""
    for name in tables:
        model = cast(type[BaseModel], model.model_fields[name].annotation)
    return model


def _sentence(model: type[BaseModel], item: dict[str, Any] | Any) -> str:
    """One refusal in words; a key of a table is named as in a study file, `[tune] metric`."""
    *tables, name = _names(item)
    model = _table(model, tables)
    field, table = model.model_fields.get(name), f"[{tables[0]}]" if tables else ""
    shown, meaning = f"{table} {name}".lstrip(), field.description if field else None
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        rule = f"{table or 'study file'} {_KNOWN}, got {name!r}."
        rule = f"{name!r} is no setting." if model is TrialConfig else rule
        return f"{rule} {nearest(name, model.model_fields)}"
    if kind == "missing":
        return f"{shown} must be given: {meaning}"
    if kind == "value_error":
        return str(context["error"])
    rule = _RULES.get(kind, item["msg"][0].lower() + item["msg"][1:]).format(**context)
    members = re.findall(r"'([^']+)'", context["expected"]) if kind == "literal_error" else []
    near = difflib.get_close_matches(str(value), members, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{shown} must {rule}, got {value!r}.{f' It is: {meaning}' if meaning else ''}{hint}"


_KNOWN = "must hold known keys only"
_RULES = {
    "greater_than": "be greater than {gt:g}", "greater_than_equal": "be at least {ge:g}",
    "less_than": "be less than {lt:g}", "less_than_equal": "be at most {le:g}", "finite_number": "be finite",
    "int_type": "be an integer", "float_type": "be a number", "bool_type": "be true or false", "literal_error": "be {expected}",
    "string_type": "be a string", "list_type": "be a list", "dict_type": "be a table", "model_type": "be a table",
}  # fmt: skip


def check_distinct(what: str, values: Sequence[Any]) -> None:
    """StudyError for the first value that is given twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise StudyError(f"{what} must be distinct, got {value!r} twice. Remove one.")


def summarize(messages: list[str]) -> str:
    """The first five different messages, and how many there are in all."""
    distinct = list(dict.fromkeys(messages))
    more = [f"... {len(distinct)} in all."] if len(distinct) > SHOWN else []
    return "\n".join(f"  {message}" for message in (*distinct[:SHOWN], *more))
