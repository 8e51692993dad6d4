"""Predictions of named cells: right on a planted law, kept, scored by trials that arrive later, refused with a reason."""

import json
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pytest

from analysis.report.findings import find
from analysis.report.law_tables import score_parts
from analysis.report.report import PREDICTIONS, check_report, write_report
from analysis.report.writers import parts_to_markdown
from analysis.rows import theory
from analysis.rows.frames import final_rows, load_study
from analysis.scaling.form_choice import cells_of, compare_all
from analysis.scaling.form_claims import hold_out_largest, summarise_by_measure
from analysis.scaling.joint_forms import AXES, JOINT_FORMS, compare_joint, fit_joint
from analysis.scaling.power_law import FitRefused
from analysis.scaling.predictions import kept_with, predictions_from_json, predictions_to_json, score

SIZES = (12, 17, 24, 34, 48, 68, 96, 192)


def planted_store(make_store, sizes=SIZES, dims=(3,), *, noise=0.002):
    """Rows whose last margins are 0.9 of the best known but for noise, at one temperature, two seeds a cell."""
    store = make_store([(d, k, 0.1, "both", s) for d in dims for k in sizes for s in (0, 1)])
    rows = store.results.to_pylist()
    chance = np.random.default_rng(5)
    for row in rows:
        margin = 0.9 * row["reference_margin_lower"] * float(np.exp(noise * chance.normal()))
        row |= {"margin_min_lower": margin, "margin_min_upper": margin, "terminal": row["epoch"] > 1}
    store.results = pa.Table.from_pylist(rows, schema=store.results.schema)
    return store


def test_a_named_cell_is_predicted_and_scored_when_its_trials_arrive(make_store):
    cells = [{"num_classes": 192, "feature_dim": 3}]
    before = planted_store(make_store, SIZES[:-1])
    summary = write_report(before, predict=cells)
    assert summary.predictions >= 1
    kept = predictions_from_json(before.written[PREDICTIONS])
    margin = next(p for p in kept if p.measure == "margin_min_lower")
    truth = 0.9 * float(theory.best_known_curve(np.array([192]), 3)[0])
    assert margin.predicted == pytest.approx(truth, rel=0.02)
    assert margin.low < truth < margin.high
    assert "No earlier prediction can be scored yet" in parts_to_markdown(score_parts(check_report(before)))

    after = planted_store(make_store)
    after.written = dict(before.written)
    scores = check_report(after)
    (found,) = [s for s in scores.scores if s.prediction.measure == "margin_min_lower"]
    assert found.error < 0.02
    assert found.inside
    assert found.trials == 2
    assert "| yes | 2 |" in parts_to_markdown(score_parts(scores))


def test_trials_seen_before_score_nothing_and_refusals_are_not_kept(make_store):
    store = planted_store(make_store)
    cells = [{"num_classes": 192, "feature_dim": 3}, {"num_classes": 192, "feature_dim": 3, "encoder": "resnet18"}]
    findings = find(load_study(store), predict=cells)
    seen = [p for p in findings.predictions if not p.refused]
    assert {len(p.seen) for p in seen} == {2}
    refused = [p.refused for p in findings.predictions if p.refused]
    assert refused
    assert all(text == "no complete trial has encoder = resnet18" for text in refused)
    kept = kept_with([], findings.predictions)
    assert score(kept, final_rows(store)).scores == ()
    assert kept_with(kept, findings.predictions) == kept


def test_a_dimension_never_run_is_predicted_by_a_form_over_all(make_store):
    store = planted_store(make_store, dims=(3, 4, 5))
    (margin, *_) = find(load_study(store), predict=[{"num_classes": 100, "feature_dim": 6}]).predictions
    assert margin.form == "joint reference"
    assert margin.predicted == pytest.approx(0.9 * theory.best_known_curve(np.array([100]), 6)[0], rel=0.02)


def test_predictions_survive_their_file_and_a_torn_one_is_said(make_store):
    store = planted_store(make_store)
    found = kept_with([], find(load_study(store), predict=[{"num_classes": 400, "feature_dim": 3}]).predictions)
    assert predictions_from_json(predictions_to_json(found)) == found
    store.written[PREDICTIONS] = b"{torn"
    summary = write_report(store)
    assert store.written[PREDICTIONS] == b"{torn"
    assert any("predictions.json cannot be read" in w for w in summary.warnings)
    assert check_report(store) is None


def test_the_largest_size_is_predicted_blind(make_store):
    found = hold_out_largest(compare_all(final_rows(planted_store(make_store, dims=(3, 4, 5)))))
    margins = [b for b in found if b.measure == "margin_min_lower"]
    assert [b.held.sizes for b in margins] == [(192,)] * 3
    summary = summarise_by_measure(found)["margin_min_lower"]
    assert summary.cells == 3
    assert summary.median_error < 0.03


@pytest.mark.parametrize("dim", range(2, 15))
def test_one_dimension_is_too_few_for_every_joint_form(dim, make_store):
    """A column that does not vary leaves rounding, from which an exponent of any size could come."""
    final = final_rows(make_store([(dim, k, 0.1, "both", 0) for k in (17, 24, 34, 48, 68, 96, 136)]))
    cells = cells_of(final, "gnc1_rank", [], AXES)
    for form in JOINT_FORMS:
        with pytest.raises(FitRefused, match=r"too few values of|parameters, at least"):
            fit_joint(form, cells)


def test_joint_exponents_are_recovered_and_the_ends_predicted(make_store):
    grid = [(d, k, t, "both", 0) for d in (3, 4, 6) for k in (12, 24, 48) for t in (0.05, 0.1, 0.3)]
    final = final_rows(make_store(grid))
    rows = final.to_pylist()
    for row in rows:
        row["gnc1_rank"] = 2 * row["num_classes"] ** 0.7 * row["feature_dim"] ** -1.1 * row["temperature"] ** 0.4
    final = pa.Table.from_pylist(rows, schema=final.schema)
    fit = fit_joint("power-temperature", cells_of(final, "gnc1_rank", [], AXES))
    assert [p.estimate for p in fit.parameters] == pytest.approx([0.7, -1.1, 0.4], abs=1e-6)
    compared = compare_joint(final, "gnc1_rank", ["temperature"])
    cold = next(v for v in compared.verdicts if v.form == "power-temperature")
    assert {k.axis: k.at for k in cold.kept_out} == {"num_classes": 48, "feature_dim": 6, "temperature": 0.05}
    assert max(k.median_error for k in cold.kept_out) < 1e-6


def test_every_report_meets_the_schema_of_fits_json(make_store, full_store):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: fits.json was not validated")
    from analysis.report.fits_json import fits_json

    check = jsonschema.Draft202012Validator(json.loads((files("analysis.report") / "fits.schema.json").read_text()))
    predicted = planted_store(make_store)
    earlier = kept_with([], find(load_study(predicted), predict=[{"num_classes": 400, "feature_dim": 3}]).predictions)
    for store, kept in ((predicted, earlier), (make_store([]), []), (full_store, [])):
        frame = load_study(store)
        findings = find(frame, predict=[{"num_classes": 400, "feature_dim": 3}], earlier=kept)
        content = json.loads(fits_json(frame, findings))
        assert [e.message for e in check.iter_errors(content)] == []
    content["trends"][0]["measure"] = 3
    assert list(check.iter_errors(content))
