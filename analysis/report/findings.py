"""All fits of a study, made once for the page, fits.json and the command line. Does not know figures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from analysis.effects import search as searches
from analysis.effects.contrast import DEFAULT_MEASURES, Contrast, contrasts
from analysis.effects.shares import Explained, LadderGaps, explain, ladder_gaps
from analysis.rows.frames import SETTING_NAMES, SHOWN_SETTINGS, SIZES, StudyFrame, independent_settings
from analysis.scaling.collapse_rates import TimeLaw, fit_time_laws
from analysis.scaling.form_choice import FormComparison, compare_all
from analysis.scaling.form_claims import LargestHeldOut, hold_out_largest
from analysis.scaling.joint_forms import JointComparison, compare_joint
from analysis.scaling.predictions import Prediction, Scores, predict_cells, score
from analysis.scaling.trends import MEASURES, Trend, fit_trends
from gnc_models.progress import counted
from study.design.search import GRID, Search

# Sizes have trends, and seeds stand for chance; the values of the other settings are compared.
NOT_CONTRASTED = frozenset({*SIZES, "seed"})
MOST_CONTRASTS = 8
MOST_LEVELS = 12  # of a setting: a searched value has as many levels as trials
EXPLAINED = (("margin_min_lower", "reference_margin_lower"), ("gnc1_rank", None), ("gnc3_uncentred", None))


@dataclass(frozen=True)
class Findings:
    """What was fitted.
    trends: power laws. comparisons: forms in num_classes. joint: forms over all dimensions. time_laws: collapse over
    steps. held_out_largest: predictions of the largest size. contrasts: by setting. not_contrasted: values of the settings
    that have too many. explained: shares of the variance. ladder: gaps of the margin ladder. predictions: of cells asked
    for; scores: of earlier predictions. search: how trials were chosen; searched: its trials by group; importances: of its
    settings; stopped: what distinguishes trials that were stopped early; rungs: of its scheduler."""

    trends: tuple[Trend, ...]
    comparisons: tuple[FormComparison, ...]
    joint: tuple[JointComparison, ...] = ()
    time_laws: tuple[TimeLaw, ...] = ()
    held_out_largest: tuple[LargestHeldOut, ...] = ()
    contrasts: Mapping[str, tuple[Contrast, ...]] = field(default_factory=dict)
    not_contrasted: Mapping[str, int] = field(default_factory=dict)
    explained: tuple[Explained, ...] = ()
    ladder: tuple[LadderGaps, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    scores: Scores | None = None
    search: Search = GRID
    searched: tuple[searches.Group, ...] = ()
    importances: tuple[searches.Importance, ...] = ()
    stopped: tuple[searches.Distinction, ...] = ()
    rungs: tuple[searches.Rung, ...] = ()


def find(
    frame: StudyFrame, *, predict: Iterable[Mapping[str, Any]] = (), earlier: Sequence[Prediction] = ()
) -> Findings:
    """Fit everything a study can be asked for.
    Args:
        predict: cells to predict. earlier: predictions kept from earlier reports, scored against these rows."""
    final = frame.final
    within = independent_settings(final)
    made: list[Any] = []
    stages: tuple[Callable[[], Any], ...] = (  # of a large study these take about equally long
        lambda: tuple(compare_all(final)),
        lambda: contrasted(final),
        lambda: tuple(fit_trends(final, frame.rows)),
        lambda: tuple(hold_out_largest(made[0])),
        lambda: _overall(frame, within),
    )
    for stage in counted(stages, "stages of the fits", len(stages)):
        made.append(stage())
    comparisons, (compared, too_many), trends, held_out, overall = made
    search = searches.search_of(frame.study)
    searched = tuple(searches.groups_of(final, search))
    return Findings(
        trends=trends, comparisons=comparisons, **overall, held_out_largest=held_out, contrasts=compared,
        not_contrasted=too_many, predictions=tuple(predict_cells(predict, final, comparisons, overall["joint"])),
        scores=score(earlier, final) if earlier else None, search=search, searched=searched,
        importances=tuple(searches.importances(searched, search)),
        stopped=tuple(searches.stopped_trials(frame.trials, search)), rungs=tuple(searches.rungs(frame, search)),
    )  # fmt: skip


def _overall(frame: StudyFrame, within: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """What is fitted to all sizes at once and to every trial's course, by its name in the findings."""
    final = frame.final
    joint = (compare_joint(final, measure, within) for measure in MEASURES)
    explained = (explain(final, measure, relative_to=other) for measure, other in EXPLAINED if final.num_rows)
    return {
        "joint": tuple(filter(None, joint)),
        "time_laws": tuple(fit_time_laws(frame.rows, final)),
        "explained": tuple(filter(None, explained)),
        "ladder": tuple(ladder(final, within)),
    }


def contrasted(final: pa.Table) -> tuple[dict[str, tuple[Contrast, ...]], dict[str, int]]:
    """The contrasts of the settings that vary where everything else is shared, those with figures first.
    Then, by setting, the number of values where they are too many to compare, or come after MOST_CONTRASTS settings."""
    found: dict[str, tuple[Contrast, ...]] = {}
    too_many: dict[str, int] = {}
    for name in dict.fromkeys((*SHOWN_SETTINGS, *SETTING_NAMES)) if final.num_rows else ():
        # a setting with one value besides null has no effect of its own: another setting decides whether it is null
        count = len(final[name].drop_null().unique())
        if name in NOT_CONTRASTED or count < 2:
            continue
        if count > MOST_LEVELS or len(found) == MOST_CONTRASTS:
            too_many[name] = count
        elif several := contrasts(final, name, DEFAULT_MEASURES):
            found[name] = tuple(several)
    return found, too_many


def ladder(final: pa.Table, within: Sequence[str]) -> Iterator[LadderGaps]:
    """The ladder's gaps at each value of every setting that varies by itself."""
    for name in ("feature_dim", "num_classes", *within) if final.num_rows else ():
        found = ladder_gaps(final, name) if len(final[name].unique()) <= MOST_LEVELS else []
        yield from found if len(found) > 1 else ()
