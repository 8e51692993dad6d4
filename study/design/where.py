"""Which trials are meant: an expression over settings, such as `num_classes <= 100 and normalization in ('both', 'none')`.

Comparisons, and, or, not, in, literals and names of settings; nothing is called, and nothing is evaluated as Python. A
comparison with a setting that has no effect in a trial is false there, whatever it says; `temperature is None` asks for
that. Knows TrialConfig's fields; does not know study files or the store.
"""

import ast
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from study.design.config import TrialConfig
from study.design.errors import StudyError, nearest

Settings = Mapping[str, Any]
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, members: value in members,
    ast.NotIn: lambda value, members: value not in members,
}
MOST_CHARACTERS = 10_000  # far beyond any use, far below what Python's parser can take
CURE = "Write e.g. \"num_classes <= 100 and dataset == 'glyphs'\"."


@dataclass(frozen=True)
class Selection:
    """The trials that an expression is true for."""

    text: str
    names: frozenset[str]  # settings that it looks at
    _is_true: Callable[[Settings], bool]

    def __call__(self, settings: Settings) -> bool:
        """Whether the trial of these settings is meant."""
        return self._is_true(settings)


def parse_selection(text: str) -> Selection:
    """The selection that an expression states; StudyError says what in it cannot be understood."""
    try:
        if len(text) > MOST_CHARACTERS:
            raise SyntaxError(f"more than {MOST_CHARACTERS} characters")
        body = ast.parse(text.strip(), mode="eval").body
        names = frozenset(node.id for node in ast.walk(body) if isinstance(node, ast.Name))
        return Selection(text, names, _condition(body))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError(f"--where must be an expression over settings, got {text!r}: {error}. {CURE}") from None


def _condition(node: ast.expr) -> Callable[[Settings], bool]:
    """What is true or false of a trial."""
    if isinstance(node, ast.BoolOp):
        parts, together = [_condition(value) for value in node.values], all if isinstance(node.op, ast.And) else any
        return lambda settings: together(part(settings) for part in parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _condition(node.operand)
        return lambda settings: not inner(settings)
    if isinstance(node, ast.Compare):
        return _comparison(node)
    if isinstance(node, ast.Name) and bool in _types(_known(node.id)):
        return lambda settings, name=node.id: settings[name] is True  # type: ignore[misc]
    raise _refused(node, "be built of comparisons, and, or, not")


def _comparison(node: ast.Compare) -> Callable[[Settings], bool]:
    sides = [node.left, *node.comparators]
    steps = [_step(*step) for step in zip(sides, node.ops, sides[1:], strict=False)]
    return lambda settings: all(step(settings) for step in steps)


def _step(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Callable[[Settings], bool]:
    """One comparison; false where a side is a setting without effect, unless None itself is asked for."""
    if _is_none(left) or _is_none(right):
        name, wanted = (right if _is_none(left) else left), isinstance(op, (ast.Is, ast.Eq))
        if not isinstance(name, ast.Name) or not isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            raise _refused(left, "compare None with a setting by is or is not")
        known = _known(name.id)
        return lambda settings: (settings[known] is None) == wanted
    if type(op) not in COMPARISONS:
        raise _refused(left, "use is for None only")
    members = isinstance(op, (ast.In, ast.NotIn))
    _check_alike(left, right, ordered=not members and not isinstance(op, (ast.Eq, ast.NotEq)))
    first, second, holds = _value(left), _members(right) if members else _value(right), COMPARISONS[type(op)]

    def step(settings: Settings) -> bool:
        one, other = first(settings), second(settings)
        return one is not None and other is not None and holds(one, other)

    return step


def _value(node: ast.expr) -> Callable[[Settings], Any]:
    if isinstance(node, ast.Name):
        name = _known(node.id)
        return lambda settings: settings[name]
    value = _literal(node)
    return lambda settings: value


def _members(node: ast.expr) -> Callable[[Settings], Any]:
    if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        raise _refused(node, "have a list of values after in")
    values = [_literal(member) for member in node.elts]
    return lambda settings: values


def _literal(node: ast.expr) -> bool | int | float | str:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    value = inner.value if isinstance(inner, ast.Constant) else None
    if not isinstance(value, (bool, int, float, str)) or (negative and isinstance(value, (bool, str))):
        raise _refused(node, "compare settings with numbers, strings, True or False")
    return -value if negative and not isinstance(value, str) else value


def _check_alike(left: ast.expr, right: ast.expr, *, ordered: bool) -> None:
    """A number is no string: such a comparison would be false for every trial and select nothing."""
    sides = [left, *(right.elts if isinstance(right, (ast.List, ast.Tuple, ast.Set)) else [right])]
    kinds = {_kind(side) for side in sides}
    if len(kinds) > 1 or (ordered and kinds != {"number"}):
        raise _refused(left, "compare like with like" if len(kinds) > 1 else "compare only numbers by size", right)
    named = [side.id for side in sides if isinstance(side, ast.Name)]
    if not named:
        raise _refused(left, "name a setting in every comparison", right)
    members = _choices(named[0])
    for side in sides:
        if members and isinstance(side, ast.Constant) and side.value not in members:
            raise StudyError(f"{named[0]} in --where must be one it has, got {side.value!r}. "
                             f"{nearest(str(side.value), members)}")  # fmt: skip


def _kind(node: ast.expr) -> str:
    types = _types(_known(node.id)) if isinstance(node, ast.Name) else {type(_literal(node))}
    return "string" if str in types else "bool" if bool in types else "number"


def _known(name: str) -> str:
    if name not in TrialConfig.model_fields:
        raise StudyError(f"--where must name settings only, got {name!r}. {nearest(name, TrialConfig.model_fields)}")
    return name


def _types(name: str) -> set[type]:
    """Plain types of a setting's values: int, float, bool, str."""
    return {
        part if isinstance(part, type) else type(part) for part in _parts(TrialConfig.model_fields[name].annotation)
    }


def _choices(name: str) -> list[str]:
    """The values of a setting that has a few named ones."""
    return [part for part in _parts(TrialConfig.model_fields[name].annotation) if isinstance(part, str)]


def _parts(annotation: Any) -> list[Any]:
    """Leaves of unions, Annotated and Literal; metadata of Annotated and None left out."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _parts(inner[0])
    if origin is typing.Literal:
        return list(inner)
    if inner:
        return [leaf for part in inner if part is not type(None) for leaf in _parts(part)]
    return [annotation]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _refused(node: ast.expr, rule: str, other: ast.expr | None = None) -> StudyError:
    got = ast.unparse(node) + (f" beside {ast.unparse(other)}" if other is not None else "")
    return StudyError(f"--where must {rule}, got {got!r}. {CURE}")
