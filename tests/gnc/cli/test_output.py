"""Findings in text and as JSON: an interval that is printed still holds what it held."""

import json
import math
from argparse import Namespace
from decimal import Decimal

import pytest

from gnc.cli.output import fact_lines, show, shown

VALUES = [0.06501013206526132, 1 / 3, 2 / 3, 1.0, 0.0, 4.377493841e-09, 1e300, -0.123456789012345, 12345678901234.5]


@pytest.mark.parametrize("value", VALUES)
def test_ends_of_an_interval_are_rounded_outward_and_to_ten_digits(value):
    lower, upper = Decimal(shown("margin_min_lower", value)), Decimal(shown("margin_min_upper", value))
    assert lower <= Decimal(value) <= upper
    assert float(upper - lower) <= 2e-9 * abs(value)
    assert float(shown("margin_mean", value)) == pytest.approx(value, rel=1e-9)


def test_what_is_not_a_finite_number_is_shown_as_it_is():
    assert [shown("x", v) for v in (None, 3, "Kerdock", math.inf)] == ["-", "3", "Kerdock", "inf"]


def test_json_is_json(capsys):
    facts = {"upper": math.inf, "classes": [{"lower": math.nan, "support": [1, 2]}], "rounds": 3}
    show(Namespace(json=True), facts, [])
    assert json.loads(capsys.readouterr().out) == {
        "upper": None,
        "classes": [{"lower": None, "support": [1, 2]}],
        "rounds": 3,
    }


def test_names_are_aligned():
    assert fact_lines({"a": 1, "longer": 0.5}) == ["a       1", "longer  0.5"]
