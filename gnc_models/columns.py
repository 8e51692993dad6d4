"""Columns by name: each is defined where it is computed, with its group; what it needs are the parameters it takes.
Knows no column itself; does not know how the needed facts come about (`collapse` does)."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

Value = float | int | None
Values = dict[str, Value]
Made = Value | Iterable[Value]
# What a fact is made from, by the name of the parameter that takes it; every other fact comes from the statistics of
# the features as the head sees them, or is a setting.
MADE_FROM = {
    **dict.fromkeys(("view", "test", "ood_features", "class_inputs"), "samples"),
    **dict.fromkeys(("rows", "unit_rows", "own_rows", "head_rows", "used_rows", "margins", "smallest"), "rows"),
    "sphere": "unit features",
}


@dataclass(frozen=True)
class Producer:
    """A function that gives columns, one value for each name, from the facts its parameters name."""

    group: str
    names: tuple[str, ...]
    facts: tuple[str, ...]
    make: Callable[..., Values]

    @property
    def needs(self) -> frozenset[str]:
        """Of "samples", "rows" and "unit features", those that must be there."""
        return frozenset(MADE_FROM[fact] for fact in self.facts if fact in MADE_FROM)


PRODUCERS: list[Producer] = []


def columns(group: str, *names: str) -> Callable[[Callable[..., Made]], Callable[..., Values]]:
    """The function below gives these columns: a number for one, as many as there are names, or None for none of them.
    A value that is not finite becomes None: the quantity does not exist."""

    def define(make: Callable[..., Made]) -> Callable[..., Values]:
        signature = inspect.signature(make)

        @functools.wraps(make)
        def made(*args: object, **kwargs: object) -> Values:
            found = make(*args, **kwargs)
            if found is None:
                return dict.fromkeys(names)
            values = found if isinstance(found, Iterable) else (found,)
            return {name: finite(value) for name, value in zip(names, values, strict=True)}

        del made.__wrapped__  # what checks types would see the inner function's result
        made.__signature__ = signature.replace(return_annotation=Values)  # type: ignore[attr-defined]
        made.__annotations__ = {**make.__annotations__, "return": Values}
        PRODUCERS.append(Producer(group, names, tuple(signature.parameters), made))
        return made

    return define


def finite(value: Value) -> Value:
    """The value, or None where it does not exist."""
    return None if value is None or not math.isfinite(value) else value


def choose(wanted: Iterable[str] | None, lacking: Collection[str]) -> tuple[str, ...]:
    """The columns meant by names of columns and groups, in the order of their definition; None: all that can be had.
    ValueError: an unknown name, or a column that needs what is `lacking` of "samples", "rows" and "unit features"."""
    if wanted is not None:  # a list, since what is read once would be empty the second time
        wanted = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
    if wanted is not None and not wanted:
        raise ValueError("columns must name at least one column or group, got none. None asks for all.")
    groups = {producer.group for producer in PRODUCERS}
    known = {name: producer for producer in PRODUCERS for name in producer.names}
    for name in wanted or ():
        if not isinstance(name, str) or (name not in groups and name not in known):
            near = difflib.get_close_matches(str(name), [*groups, *known], n=1)
            cure = f"{f'Did you mean {near[0]!r}? ' if near else ''}Groups are {', '.join(sorted(groups))}."
            raise ValueError(f"columns must be names of columns or of groups, got {name!r}. {cure}")
    if wanted is None:
        return tuple(name for name, producer in known.items() if not producer.needs & set(lacking))
    chosen = {name: producer for name, producer in known.items() if {name, producer.group} & set(wanted)}
    for name, producer in chosen.items():
        if missing := " and ".join(sorted(producer.needs & set(lacking))):
            raise ValueError(f"columns must be ones that can be had here, got {name!r}, which needs {missing}.")
    return tuple(chosen)


def make_columns(wanted: Collection[str], fact: Callable[[str], object]) -> Values:
    """The values of these columns from facts by name; a fact that no column needs is not asked for."""
    values: Values = {}
    for producer in PRODUCERS:
        if set(producer.names) & set(wanted):
            made = producer.make(**{name: fact(name) for name in producer.facts})
            values |= {name: value for name, value in made.items() if name in set(wanted)}
    return values


def facts_needed(wanted: Collection[str]) -> frozenset[str]:
    return frozenset(fact for producer in PRODUCERS if set(producer.names) & set(wanted) for fact in producer.facts)
