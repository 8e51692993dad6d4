"""A small table with known laws, and the fits it must give: exponents by hand, not stored from an earlier run."""

import pyarrow as pa
import pytest

from analysis.report.law_tables import misspecified_sentence
from analysis.rows.frames import final_rows
from analysis.scaling.form_choice import cells_of, compare_forms
from analysis.scaling.trends import fit_trends

SIZES = (64, 91, 128, 181, 256, 362, 512)


def golden(make_store, dims) -> pa.Table:
    """Margin 3 K^(-2/(d-1)) and trace_within 0.01 K^0.5 at each d, two seeds 1 % above and below their law."""
    final = final_rows(make_store([(d, k, 0.1, "both", s) for d in dims for k in SIZES for s in (0, 1)]))
    rows = final.to_pylist()
    for row in rows:
        shake = 1.01 if row["seed"] else 1 / 1.01
        margin = 3 * row["num_classes"] ** (-2 / (row["feature_dim"] - 1)) * shake
        row |= {"margin_min_lower": margin, "margin_min_upper": margin, "terminal": True}
        row["trace_within"] = 0.01 * row["num_classes"] ** 0.5 * shake
    return pa.Table.from_pylist(rows, schema=final.schema)


def test_the_golden_table_gives_its_exponents(make_store):
    final = golden(make_store, (3, 4, 5))
    trends = {(t.measure, t.where.get("feature_dim")): t for t in fit_trends(final) if t.predictor == "num_classes"}
    for dim in (3, 4, 5):
        margin, trace = trends["margin_min_lower", dim], trends["trace_within", dim]
        assert margin.believed.exponent.estimate == pytest.approx(-2 / (dim - 1), abs=1e-9)
        assert trace.believed.exponent.estimate == pytest.approx(0.5, abs=1e-9)
        assert (margin.fit.cells, margin.fit.trials, margin.fit.sizes) == (7, 14, 7)
        assert margin.not_terminal == margin.not_positive == 0


def test_the_golden_table_is_predicted_and_a_power_law_at_d_8_is_called_misspecified(make_store):
    margins = {}
    for dim in (3, 8):
        cells = cells_of(golden(make_store, (dim,)), "margin_min_lower", [])
        margins[dim] = compare_forms(cells, dim, "margin_min_lower")
    compared = list(margins.values())
    assert all(c.chosen in ("power", "theory") for c in margins.values())
    for comparison in margins.values():
        power = next(v for v in comparison.verdicts if v.form == "power")
        assert power.held_out.median_error < 1e-9
    assert "At d = 8 a pure power law in K is misspecified" in misspecified_sentence(compared)
    assert misspecified_sentence([margins[3]]) == ""
