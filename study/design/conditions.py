"""Conditions on rows as words: `num_classes == 100 and loss != 'mse'` to a filter of a table.

Knows Python's grammar and pyarrow; evaluates nothing but comparisons of columns with constants.
"""

import ast
import difflib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
GRAMMAR = "Write e.g. \"num_classes == 100 and loss in ['mse', 'focal']\", \"temperature is None\"."


class ConditionRefused(ValueError):
    """A condition or column name that cannot be read."""


def rows_where(table: pa.Table, condition: str) -> pa.Table:
    """The rows that meet a condition.

    Args:
        table: any table. condition: comparisons of columns with constants (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`,
            `is None`, `is not None`), joined by `and`, `or`, `not`. A null meets only `is None`.
    Raises:
        ConditionRefused: anything else, or a column the table lacks.
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval")
    except SyntaxError:
        raise ConditionRefused(f"condition must be comparisons of columns, got {condition!r}. {GRAMMAR}") from None
    kept = _evaluate(tree.body, table, condition)
    return table.filter(pc.fill_null(kept, False))


def check_column(table: pa.Table, name: str) -> str:
    """The name, if the table has the column; else ConditionRefused with the nearest ones."""
    if name not in table.column_names:
        near = difflib.get_close_matches(name, table.column_names, n=3) or table.column_names[:5]
        raise ConditionRefused(f"column must be one of the table's, got {name!r}. Did you mean {', '.join(near)}?")
    return name


def _evaluate(node: ast.expr, table: pa.Table, condition: str) -> Any:
    match node:
        case ast.BoolOp(op=joined, values=parts):
            found = [pc.fill_null(_evaluate(part, table, condition), False) for part in parts]
            combine = pc.and_ if isinstance(joined, ast.And) else pc.or_
            result = found[0]
            for other in found[1:]:
                result = combine(result, other)
            return result
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return pc.invert(_evaluate(part, table, condition))
        case ast.Compare(left=ast.Name(id=name), ops=[operator], comparators=[right]):
            return _compare(table[check_column(table, name)], operator, _constant(right, condition), condition)
    raise ConditionRefused(f"condition must compare columns with constants, got {condition!r}. {GRAMMAR}")


def _compare(column: pa.ChunkedArray, operator: ast.cmpop, value: Any, condition: str) -> Any:
    try:
        if isinstance(operator, ast.In):
            return pc.is_in(column, value_set=pa.array(value, column.type))
        if isinstance(operator, ast.Is | ast.IsNot) and value is None:
            return pc.is_null(column) if isinstance(operator, ast.Is) else pc.is_valid(column)
        if type(operator) in COMPARISONS and value is not None:
            return COMPARISONS[type(operator)](column, value)
    except (pa.ArrowException, TypeError) as error:
        raise ConditionRefused(f"condition must suit the column's type, got {condition!r}: {error}.") from None
    raise ConditionRefused(f"condition must use a known comparison, got {condition!r}. {GRAMMAR}")


def _constant(node: ast.expr, condition: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ConditionRefused(f"condition must compare with a constant, got {condition!r}. {GRAMMAR}") from None
