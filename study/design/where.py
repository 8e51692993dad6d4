"""Which rows to select: the one language of --where, over settings of trials and, in `rows_where`, over columns of tables.
A comparison is false wherever a name in it has no value; `x is None` tests this (docs/studies.md). Nothing is called or
evaluated as Python. Knows the settings and Arrow's types; does not know the store."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from gnc_models.catalog.members import is_reference
from study.design.config import TrialConfig
from study.design.errors import StudyError, nearest
from study.design.setting import schema_of

Row = Mapping[str, Any]
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda value, members: value in members,
    ast.NotIn: lambda value, members: value not in members,
}  # fmt: skip
MOST_CHARACTERS = 10_000  # far beyond any use, far below what Python's parser can take
CURE = "Write e.g. \"num_classes <= 100 and dataset == 'glyphs'\"."


class ConditionRefused(StudyError):
    """An expression, or the name of a column, that cannot be understood."""


@dataclass(frozen=True)
class Kind:
    """What a name stands for: a number, a string, a bool, or something that is only None or not; its named values."""

    kind: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The rows that an expression is true for; called with a row, or the settings of a trial, it says whether that is one."""

    text: str
    names: frozenset[str]  # that it looks at
    _is_true: Callable[[Row], bool]

    def __call__(self, row: Row) -> bool:
        return self._is_true(row)


@cache
def setting_kinds() -> Mapping[str, Kind]:
    """What each setting stands for."""
    kinds = {"string": "string", "boolean": "bool"}
    schemas = ((name, schema_of(field)) for name, field in TrialConfig.model_fields.items())
    return {name: Kind(kinds.get(s["type"], "number"), tuple(s.get("enum", ()))) for name, s in schemas}


def parse_selection(text: str, known: Mapping[str, Kind] | None = None) -> Selection:
    """The selection that an expression over these names, or settings, states; ConditionRefused says what is not understood."""
    reader = _Reader(setting_kinds() if known is None else known)
    try:
        if len(text) > MOST_CHARACTERS:
            raise SyntaxError(f"more than {MOST_CHARACTERS} characters")
        body = ast.parse(text.strip(), mode="eval").body
        names = frozenset(node.id for node in ast.walk(body) if isinstance(node, ast.Name))
        return Selection(text, names, reader.condition(body))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, StudyError):
            raise
        raise ConditionRefused(f"--where must be an expression over names, got {text!r}: {error}. {CURE}") from None


def rows_where(table: pa.Table, text: str) -> pa.Table:
    """The rows of a table that an expression over its columns is true for; ConditionRefused as in parse_selection."""
    settings = setting_kinds()
    selection = parse_selection(text, {f.name: settings.get(f.name) or _column_kind(f.type) for f in table.schema})
    rows = table.select(sorted(selection.names)).to_pylist()
    return table.filter(pa.array([selection(row) for row in rows], pa.bool_()))


def check_column(table: pa.Table, name: str) -> str:
    """The name, if the table has the column; else ConditionRefused with the nearest one."""
    if name not in table.column_names:
        raise ConditionRefused(f"column must be one of the table's, got {name!r}. {nearest(name, table.column_names)}")
    return name


class _Reader:
    """Turns the tree of an expression into a function of a row; refuses what it does not know."""

    def __init__(self, known: Mapping[str, Kind]) -> None:
        self._names = known

    def condition(self, node: ast.expr) -> Callable[[Row], bool]:
        """The function that says whether a condition is true of a row."""
        if isinstance(node, ast.BoolOp):
            parts, together = [self.condition(v) for v in node.values], all if isinstance(node.op, ast.And) else any
            return lambda row: together(part(row) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            return lambda row: not inner(row)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            steps = [self._step(*step) for step in zip(sides, node.ops, sides[1:], strict=False)]
            return lambda row: all(step(row) for step in steps)
        if isinstance(node, ast.Name) and self._kind(node) == "bool":
            return lambda row, name=node.id: row[name] is True  # type: ignore[misc]
        raise _refused(node, "be built of comparisons, and, or, not")

    def _step(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Callable[[Row], bool]:
        """One comparison; false where a side has no value, unless None itself is asked for."""
        nones = [isinstance(side, ast.Constant) and side.value is None for side in (left, right)]
        if any(nones):
            name, wanted = (right if nones[0] else left), isinstance(op, (ast.Is, ast.Eq))
            if not isinstance(name, ast.Name) or not isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
                raise _refused(left, "compare None with a name by is or is not")
            known = self._known(name.id)
            return lambda row: (row[known] is None) == wanted
        if type(op) not in COMPARISONS:
            raise _refused(left, "use is for None only")
        members = isinstance(op, (ast.In, ast.NotIn))
        self._check_alike(left, right, ordered=not members and not isinstance(op, (ast.Eq, ast.NotEq)))
        first, holds = self._value(left), COMPARISONS[type(op)]
        second = self._members(right) if members else self._value(right)

        def step(row: Row) -> bool:
            one, other = first(row), second(row)
            return one is not None and other is not None and holds(one, other)

        return step

    def _value(self, node: ast.expr) -> Callable[[Row], Any]:
        if isinstance(node, ast.Name):
            name = self._known(node.id)
            return lambda row: row[name]
        value = _literal(node)
        return lambda row: value

    def _members(self, node: ast.expr) -> Callable[[Row], Any]:
        if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            raise _refused(node, "have a list of values after in")
        values = [_literal(member) for member in node.elts]
        return lambda row: values

    def _check_alike(self, left: ast.expr, right: ast.expr, *, ordered: bool) -> None:
        """A number is no string: such a comparison would be false for every row and select nothing."""
        sides = [left, *(right.elts if isinstance(right, (ast.List, ast.Tuple, ast.Set)) else [right])]
        kinds = {self._kind(side) for side in sides}
        if len(kinds) > 1 or (ordered and kinds != {"number"}):
            raise _refused(left, "compare like with like" if len(kinds) > 1 else "compare only numbers by size", right)
        named = [side.id for side in sides if isinstance(side, ast.Name)]
        if not named:
            raise _refused(left, "name a setting or column in every comparison", right)
        choices = self._names[named[0]].choices
        for value in (side.value for side in sides if choices and isinstance(side, ast.Constant)):
            if value not in choices and not is_reference(value):
                cure = nearest(str(value), choices)
                raise ConditionRefused(f"{named[0]} in --where must be one it has, got {value!r}. {cure}")

    def _kind(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._names[self._known(node.id)].kind
        value = _literal(node)
        return "string" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number"

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise ConditionRefused(f"--where must use known names only, got {name!r}. {nearest(name, self._names)}")
        return name


def _literal(node: ast.expr) -> bool | int | float | str:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    value = inner.value if isinstance(inner, ast.Constant) else None
    if not isinstance(value, (bool, int, float, str)) or (negative and isinstance(value, (bool, str))):
        raise _refused(node, "compare names with numbers, strings, True or False")
    return -value if negative and not isinstance(value, str) else value


def _column_kind(column: pa.DataType) -> Kind:
    is_number = pa.types.is_integer(column) or pa.types.is_floating(column)
    is_text = pa.types.is_string(column) or pa.types.is_large_string(column)
    return Kind("bool" if pa.types.is_boolean(column) else "number" if is_number else "string" if is_text else "list")


def _refused(node: ast.expr, rule: str, other: ast.expr | None = None) -> ConditionRefused:
    got = ast.unparse(node) + (f" beside {ast.unparse(other)}" if other is not None else "")
    return ConditionRefused(f"--where must {rule}, got {got!r}. {CURE}")
