"""fits.json: every fit with what is needed to use it without the page. Its schema is `fits.schema.json` beside this."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files
from typing import Any

from analysis.effects.contrast import Contrast, Level, verdict
from analysis.report import sentences
from analysis.report.findings import Findings
from analysis.rows.frames import StudyFrame
from analysis.scaling.collapse_rates import LAWS
from analysis.scaling.form_choice import comparison_to_json
from analysis.scaling.held_out_largest import Blind
from analysis.scaling.joint_forms import joint_to_json
from analysis.scaling.predictions import Score, Scores
from study.design.config import NUMBERS_VERSION
from study.store.schemas import SCHEMA_VERSION

FITS_SCHEMA = 3


def fits_json(frame: StudyFrame, findings: Findings) -> bytes:
    """The findings as JSON; sorted keys, so that two of them can be compared."""
    content: dict[str, Any] = {
        "fits_schema": FITS_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "numbers_version": NUMBERS_VERSION,
        "study": sentences.study_name(frame),
        "complete_trials": frame.final.num_rows,
        "trends": findings.trends,
        "comparisons": [comparison_to_json(comparison) for comparison in findings.comparisons],
        "joint": [joint_to_json(comparison) for comparison in findings.joint],
        "time_laws": [vars(law) | {"formula": LAWS[law.law]} for law in findings.time_laws],
        "blind": [_largest(found) for found in findings.held_out_largest],
        "contrasts": [_contrast(contrast) for found in findings.contrasts.values() for contrast in found],
        "explained": findings.explained,
        "ladder": findings.ladder,
        "predictions": findings.predictions,
        "scores": _scores(findings.scores),
    }
    return json.dumps(plain(content), indent=1, sort_keys=True, allow_nan=False).encode()


def plain(value: Any) -> Any:
    """Dataclasses as objects, sequences as lists, and null for a number that does not exist."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _largest(found: Blind) -> dict[str, Any]:
    held = {name: getattr(found.held, name) for name in ("median_error", "covered", "cells", "sizes")}
    return {name: entry for name, entry in vars(found).items() if name != "held"} | held


def _contrast(contrast: Contrast) -> dict[str, Any]:
    told = {
        name: getattr(contrast, name) for name in ("setting", "measure", "base", "is_log", "pooled", "moving", "apart")
    }
    return told | {"levels": [_level(level) for level in contrast.levels]}


def _level(level: Level) -> dict[str, Any]:
    told = {name: getattr(level, name) for name in ("value", "mean", "low", "high", "trials", "terminal")}
    gap = level.difference
    difference = None if gap is None else vars(gap) | {"verdict": verdict(gap)}
    return told | {"seeds": len(level.by_seed), "cells": len(level.by_cell), "difference": difference}


def _scores(scores: Scores | None) -> dict[str, Any] | None:
    """Scores of earlier predictions; null where none were kept."""
    return None if scores is None else vars(scores) | {"scores": [_score(score) for score in scores.scores]}


def _score(score: Score) -> dict[str, Any]:
    told = {name: getattr(score.prediction, name) for name in ("cell", "measure", "form", "predicted", "low", "high")}
    return told | {name: entry for name, entry in vars(score).items() if name != "prediction"}


def fits_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every fits.json meets."""
    read: dict[str, Any] = json.loads((files("analysis.report") / "fits.schema.json").read_text(encoding="utf-8"))
    return read
