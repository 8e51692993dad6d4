"""Every data set, encoder, classifier and loss by name, with all that is known of it before it is built.
The registries build their dicts from it, `TrialConfig` takes the names, the rules ask the members. Knows no torch."""

import importlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar


class _Required:
    """Marks a setting that has no default: a study that chooses the member must give it."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Member:
    """One member of a family.
    made_by: module and name of its constructor, below the family's package. settings: those that only some members of
    the family read, with this member's defaults. idle: settings of other members that have no effect beside this one."""

    made_by: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DataSet(Member):
    """gives: the kind of its inputs. max_classes: by resolution where there is one; None where only the disk knows.
    refuses: settings that would reshape the set in a way that it cannot take."""

    gives: str = "image"
    max_classes: Mapping[int, int] | int | None = None
    refuses: frozenset[str] = frozenset()

    @property
    def is_stored(self) -> bool:
        """Whether it lies on the disk, so that its classes have an end."""
        return self.made_by.startswith("stored.")


ANY = "any"  # kind of the inputs of a data set of one's own: only its tensors say it
ANY_NORM = ("batch", "group", "layer", "none")


@dataclass(frozen=True)
class Encoder(Member):
    """takes: the kinds of inputs it accepts. norm_layers: those it can have, its own first; a setting where it has several.
    stages: by name, its layers but for the features: the path of a module, or `PATH.*Kind`, which stands for all modules
    of that class right below PATH, numbered from 1. read_out: the position of a sequence that features are read from."""

    takes: frozenset[str] = frozenset({"image"})
    norm_layers: tuple[str, ...] = ANY_NORM
    stages: Mapping[str, str] = field(default_factory=dict)
    read_out: int = 0

    def __post_init__(self) -> None:
        if len(self.norm_layers) > 1:
            object.__setattr__(self, "settings", {**self.settings, "norm_layer": self.norm_layers[0]})


@dataclass(frozen=True)
class Loss(Member):
    """across_samples: it is no mean over single samples, so workers must bring the features of a batch together.
    only_both: why normalization must be "both", or "". moves_rows: whether classifier rows get a gradient."""

    across_samples: bool = False
    only_both: str = ""
    moves_rows: bool = True


AnyMember = TypeVar("AnyMember", bound=Member)


class _Family(dict[str, AnyMember]):
    """A family by name. `own` stands for every part of one's own, whose name is a reference such as nets.py:make_net."""

    def __init__(self, own: AnyMember, members: Mapping[str, AnyMember]) -> None:
        super().__init__(members)
        self.own = own

    def __missing__(self, name: str) -> AnyMember:
        if is_reference(name):
            return self.own
        raise KeyError(name)


def is_reference(name: Any) -> bool:
    """Whether this names a part of one's own: `file.py:name` or `package.module:name`."""
    return isinstance(name, str) and ":" in name


BUILT_IN_FONTS = "dejavu"  # in a wheel that is always installed; what other fonts hold only their files know
_TABLES = tomllib.loads(Path(__file__).with_name("members.toml").read_text(encoding="utf-8"))
_KINDS: dict[str, type[Member]] = {"dataset": DataSet, "encoder": Encoder, "loss": Loss}


def _fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of the file with the fields and settings of the one that it is `like`."""
    base = _fields(_TABLES["shared"][table["like"]]) if "like" in table else {}
    settings = {**base.get("settings", {}), **table.get("settings", {})}
    return {**base, **{name: value for name, value in table.items() if name != "like"}, "settings": settings}


def _member(family: str, table: Mapping[str, Any]) -> Member:
    fields = _fields(table)
    kinds = {"idle": frozenset, "refuses": frozenset, "takes": frozenset, "norm_layers": tuple}
    fields |= {name: kind(fields[name]) for name, kind in kinds.items() if name in fields}
    given = fields["settings"].items()
    fields["settings"] = {name: REQUIRED if value == "required" else value for name, value in given}
    if isinstance(most := fields.get("max_classes"), dict):
        fields["max_classes"] = {int(resolution): count for resolution, count in most.items()}
    return _KINDS.get(family, Member)(**fields)


def _family(name: str) -> Any:
    members = {member: _member(name, table) for member, table in _TABLES[name].items()}
    return _Family(_member(name, _TABLES["own"][name]), members) if name in OWN_FAMILIES else members


OWN_FAMILIES = ("dataset", "encoder", "loss")  # whose members can be one's own, with FAMILY_source and FAMILY_options
# By the setting that chooses a member. A setting that other members read (temperature_schedule) comes after them.
FAMILIES: Mapping[str, Any] = {name: _family(name) for name in _TABLES if name not in ("shared", "own")}
DATASETS: Mapping[str, DataSet] = FAMILIES["dataset"]
ENCODERS: Mapping[str, Encoder] = FAMILIES["encoder"]
LOSSES: Mapping[str, Loss] = FAMILIES["loss"]
CLASSIFIERS: Mapping[str, Member] = FAMILIES["classifier"]
BUDGETS: Mapping[str, Member] = FAMILIES["budget"]


def settings_of(family: str) -> frozenset[str]:
    """The settings that only some members of a family read, and those read by what these choose in turn."""
    own = {name for member in FAMILIES[family].values() for name in member.settings}
    own |= {f"{family}_source", f"{family}_options"} if family in OWN_FAMILIES else set()
    return frozenset(own).union(*(settings_of(name) for name in own & FAMILIES.keys() - {family}))


def max_classes(dataset: str, resolution: int | None, fonts: str | None = None) -> int | None:
    """The most classes a data set can give, None where only its files know; ValueError for an unknown resolution."""
    known = DATASETS[dataset].max_classes
    if known is None or isinstance(known, int):
        return known
    if resolution is None or resolution not in known:
        raise ValueError(f"resolution must be one of {sorted(known)} for {dataset}, got {resolution!r}.")
    return known[resolution] if fonts in (None, BUILT_IN_FONTS) else None


def load(package: str, place: str) -> Callable[..., Any]:
    """The function or class that a member's `module:name` names, below the package of its family."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), name)
