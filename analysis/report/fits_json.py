"""fits.json: every fit with what is needed to use it without the page. Its schema is `fits.schema.json` beside this."""

import json
from importlib.resources import files
from typing import Any

from analysis.report import sentences as answer
from analysis.report.findings import Findings
from analysis.rows.frames import StudyFrame
from analysis.scaling.collapse_rates import time_law_to_json
from analysis.scaling.form_choice import comparison_to_json
from analysis.scaling.joint_forms import joint_to_json
from analysis.scaling.predictions import Scores, prediction_to_json
from analysis.scaling.trends import trend_to_json
from study.design.config import NUMBERS_VERSION
from study.store.schemas import SCHEMA_VERSION

FITS_SCHEMA = 2


def fits_json(frame: StudyFrame, findings: Findings) -> bytes:
    """The findings as JSON; sorted keys, so that two of them can be compared."""
    content: dict[str, Any] = {
        "fits_schema": FITS_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "numbers_version": NUMBERS_VERSION,
        "study": answer.study_name(frame),
        "complete_trials": frame.final.num_rows,
        "trends": [trend_to_json(trend) for trend in findings.trends],
        "comparisons": [comparison_to_json(comparison) for comparison in findings.comparisons],
        "joint": [joint_to_json(comparison) for comparison in findings.joint],
        "time_laws": [time_law_to_json(law) for law in findings.time_laws],
        "blind": [
            {
                "measure": b.measure,
                "feature_dim": b.feature_dim,
                "form": b.form,
                "chosen_by": b.chosen_by,
                "median_error": b.held.median_error,
                "covered": b.held.covered,
                "cells": b.held.cells,
                "sizes": list(b.held.sizes),
            }
            for b in findings.blind
        ],
        "predictions": [prediction_to_json(p) for p in findings.predictions],
        "scores": scores_to_json(findings.scores),
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()


def scores_to_json(scores: Scores | None) -> dict[str, Any] | None:
    """Scores of earlier predictions; null where none were kept."""
    if scores is None:
        return None
    known = bool(scores.scores)
    return {
        "waiting": scores.waiting,
        "median_error": scores.median_error if known else None,
        "covered": scores.covered if known else None,
        "scores": [
            {
                "cell": dict(s.prediction.cell),
                "measure": s.prediction.measure,
                "form": s.prediction.form,
                "predicted": s.prediction.predicted,
                "low": s.prediction.low,
                "high": s.prediction.high,
                "observed": s.observed,
                "error": s.error,
                "inside": s.inside,
                "trials": s.trials,
                "not_terminal": s.not_terminal,
            }
            for s in scores.scores
        ],
    }


def fits_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every fits.json meets."""
    read: dict[str, Any] = json.loads((files("analysis.report") / "fits.schema.json").read_text(encoding="utf-8"))
    return read
