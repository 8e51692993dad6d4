"""fits.json: every fit with all that is needed to use it without the page. `fits.schema.json` is its schema."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from analysis.effects.contrast import Contrast, Level, verdict
from analysis.report import sentences
from analysis.report.findings import Findings
from analysis.rows.frames import StudyFrame
from analysis.scaling.collapse_rates import LAWS
from analysis.scaling.form_choice import FormComparison, FormVerdict, HeldOut, one_by_one
from analysis.scaling.form_claims import asymptote
from analysis.scaling.forms import FORMS
from analysis.scaling.joint_forms import JOINT_FORMS, JointComparison, JointVerdict
from analysis.scaling.predictions import Score
from study.design.config import NUMBERS_VERSION
from study.store.schemas import SCHEMA_VERSION

FITS_SCHEMA = 5


def fits_json(frame: StudyFrame, findings: Findings) -> bytes:
    """The findings as JSON; sorted keys, so that two of them can be compared, and null for a number that does not exist."""
    scores = findings.scores
    content: dict[str, Any] = {
        "fits_schema": FITS_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "numbers_version": NUMBERS_VERSION,
        "study": sentences.study_name(frame),
        "complete_trials": frame.final.num_rows,
        "trends": findings.trends,
        "comparisons": [_comparison(comparison) for comparison in one_by_one(findings.comparisons)],
        "joint": [_joint(comparison) for comparison in findings.joint],
        "time_laws": [vars(law) | {"formula": LAWS[law.law]} for law in findings.time_laws],
        "blind": [_but(found, "held") | _held(found.held) for found in findings.held_out_largest],
        "contrasts": [_contrast(contrast) for found in findings.contrasts.values() for contrast in found],
        "explained": findings.explained,
        "ladder": findings.ladder,
        "predictions": findings.predictions,
        "scores": scores and vars(scores) | {"scores": [_score(score) for score in scores.scores]},
    }
    return json.dumps(json.loads(to_json(content, inf_nan_mode="null")), indent=1, sort_keys=True).encode()


def _some(found: object, *names: str) -> dict[str, Any]:
    """These fields of a result, null where there is none."""
    return {name: getattr(found, name, None) for name in names}


def _but(found: object, *names: str) -> dict[str, Any]:
    """The fields of a result without these."""
    return {name: entry for name, entry in vars(found).items() if name not in names}


def _held(held: HeldOut) -> dict[str, Any]:
    return _some(held, "median_error", "covered", "cells", "sizes")


def _comparison(comparison: FormComparison) -> dict[str, Any]:
    names = "measure feature_dim within chosen left_out with_all power_law_is_misspecified slopes_p slope"
    return _some(comparison, *names.split()) | {
        "groups": sorted(set(comparison.cells.group)),
        "weights": {fit.form: weight.value for fit, weight in comparison.weighted},
        "cells": len(comparison.cells.group),
        "forms": [
            _fitted(v, FORMS) | _some(v.fit or v.bare, "centre") | {"held_out": v.held_out and _held(v.held_out)}
            for v in comparison.verdicts
        ],
        "asymptote": asymptote(comparison),
    }


def _fitted(verdict: FormVerdict | JointVerdict, forms: Mapping[str, Any]) -> dict[str, Any]:
    fit = verdict.fit or getattr(verdict, "bare", None)
    found: dict[str, Any] = {"parameters": fit.parameters if fit else [], "levels": fit.levels if fit else {}}
    found |= {"residual_scale": fit and fit.scale, "formula": forms[verdict.form].formula}
    return _some(verdict, "form", "refused") | _some(fit, "aicc") | found


def _joint(comparison: JointComparison) -> dict[str, Any]:
    forms = [_fitted(verdict, JOINT_FORMS) | {"kept_out": verdict.kept_out} for verdict in comparison.verdicts]
    return _some(comparison, "measure", "within", "chosen") | {"forms": forms}


def _contrast(contrast: Contrast) -> dict[str, Any]:
    entries = _some(contrast, "setting", "measure", "base", "is_log", "pooled", "moving", "apart")
    return entries | {"levels": [_level(level) for level in contrast.levels]}


def _level(level: Level) -> dict[str, Any]:
    gap = level.difference
    difference = None if gap is None else vars(gap) | {"verdict": verdict(gap)}
    counted = {"seeds": len(level.by_seed), "cells": len(level.by_cell), "difference": difference}
    return _but(level, "by_seed", "by_cell", "references") | counted


def _score(score: Score) -> dict[str, Any]:
    asked = _some(score.prediction, "cell", "measure", "form", "predicted", "low", "high")
    return asked | _but(score, "prediction")
