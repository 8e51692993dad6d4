"""Everything that is fitted to a study, made once and shared by page, JSON and command line. Knows the fits; no figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.effects.contrast import DEFAULT_MEASURES, Contrast, contrasts
from analysis.rows.frames import SETTING_NAMES, StudyFrame, independent_settings
from analysis.scaling.collapse_rates import TimeLaw, fit_time_laws
from analysis.scaling.form_choice import FormComparison, compare_all
from analysis.scaling.held_out_largest import Blind, blind_predictions
from analysis.scaling.joint_forms import JointComparison, compare_joint
from analysis.scaling.predictions import Prediction, Scores, predict_cells, score
from analysis.scaling.trends import MEASURES, Trend, fit_trends

# Settings with figures of their own; the other settings that vary are contrasted over seeds.
OWN_FIGURES = frozenset({"num_classes", "feature_dim", "temperature", "normalization", "seed"})
MOST_CONTRASTS = 6
MOST_LEVELS = 12  # of a contrasted setting: a searched value has as many levels as trials


@dataclass(frozen=True)
class Findings:
    """What was fitted: power laws, forms, joint forms, time laws, contrasts by setting, predictions and their scores."""

    trends: tuple[Trend, ...]
    comparisons: tuple[FormComparison, ...]
    joint: tuple[JointComparison, ...] = ()
    time_laws: tuple[TimeLaw, ...] = ()
    blind: tuple[Blind, ...] = ()
    contrasts: Mapping[str, tuple[Contrast, ...]] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    scores: Scores | None = None


def find(
    frame: StudyFrame, *, predict: Iterable[Mapping[str, Any]] = (), earlier: Sequence[Prediction] = ()
) -> Findings:
    """Fit everything a study can be asked for.

    Args:
        predict: cells to predict. earlier: predictions kept from earlier reports, scored against these rows.
    """
    final = frame.final
    within = independent_settings(final)
    comparisons = tuple(compare_all(final))
    joint = tuple(c for c in (compare_joint(final, measure, within) for measure in MEASURES) if c is not None)
    return Findings(
        trends=tuple(fit_trends(final, frame.rows)),
        comparisons=comparisons,
        joint=joint,
        time_laws=tuple(fit_time_laws(frame.rows, final)),
        blind=tuple(blind_predictions(comparisons)),
        contrasts=contrasted(frame),
        predictions=tuple(predict_cells(predict, final, comparisons, joint)),
        scores=score(earlier, final) if earlier else None,
    )


def contrasted(frame: StudyFrame) -> dict[str, tuple[Contrast, ...]]:
    """The settings without a figure of their own that vary where everything else is shared, with their contrasts."""
    found: dict[str, tuple[Contrast, ...]] = {}
    for name in SETTING_NAMES if frame.final.num_rows else ():
        # a setting that takes one value and null only follows from another one
        if name in OWN_FIGURES or not 1 < len(frame.final[name].drop_null().unique()) <= MOST_LEVELS:
            continue
        if len(found) < MOST_CONTRASTS and (several := contrasts(frame.final, name, DEFAULT_MEASURES)):
            found[name] = tuple(several)
    return found
