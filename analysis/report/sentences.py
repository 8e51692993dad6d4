"""The sentences at the top of the report: what was studied, and the result. Their numbers come from fits and rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects.shares import Explained
from analysis.report.findings import Findings
from analysis.report.page import TEXTS
from analysis.rows import frames, theory
from analysis.rows.frames import StudyFrame, distinct, median, of_trials, study_document, values, varied_settings
from analysis.rows.measures import MARGIN
from analysis.rows.wording import number, percent, shown, shown_value, words
from analysis.scaling.form_choice import FormComparison
from analysis.scaling.form_claims import Asymptote, asymptote
from analysis.scaling.power_law import Exponent, PowerLawFit
from analysis.scaling.trends import AT_END, Trend, own_prefactors
from analysis.statistics.inference import MIN_CELLS, p_text, sizes_needed
from gnc_models.progress import amount

BEATEN = 1e-6  # above the best known margin by more than its rounding
NEAR, HALFWAY = 0.95, 0.5  # of the best known margin
COLLAPSED, MOVED = 0.1, 0.9  # of the first value: below the one features have collapsed, above the other they have not
MATTERS = 0.1  # of the variance, lost when a setting is left out
MOST_NAMED = 6
COUNTS = ("no", "one", "two", "three", "four", "five")
STATE_ORDER = ("complete", "stopped", "diverged", "failed")
MEASURE_NAMES = {MARGIN: "the minimum margin"}


def study_name(frame: StudyFrame) -> str:
    """The name in the study file; `Study` where there is none."""
    return str(study_document(frame.study).get("name") or "Study")


def listed(items: Sequence[Any]) -> str:
    """`a, b and c`; a longer list as its ends."""
    texts = [number(float(i)) if isinstance(i, int | float) else str(i) for i in items if i is not None]
    if len(texts) > MOST_NAMED:
        return f"{texts[0]} to {texts[-1]}"
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def sentence_studied(frame: StudyFrame) -> str:
    """What was studied: data, networks, the grid, and how the trials ended."""
    trials = frame.trials
    names = ("encoder", "dataset", "num_classes", "feature_dim", "temperature", "normalization")
    networks, data, sizes, dims, temperatures, normalizations = (listed(distinct(trials, name)) for name in names)
    parts = [f"{amount(trials.num_rows, 'trial')} of {networks} on {data}"]
    parts.append(f"K = {sizes} classes in d = {dims} feature dimensions")
    parts += [f"temperature {temperatures}"] if temperatures else []
    parts.append(f"normalization {normalizations}")
    states = trials["state"].to_pylist()
    ends = ", ".join(f"{states.count(s)} {s}" for s in STATE_ORDER if s in states)
    terminal = int(values(frame.final, "terminal").sum())
    rested = frame.final["stationary"].drop_null().to_pylist()  # null unless budget is stationary
    waited = f"{amount(len(rested), 'trial')} that were to train until they rest"
    rest = f" {sum(rested)} of {waited} came to rest." if rested else ""
    return f"{'; '.join(parts)}. {ends.capitalize()}; {terminal} reached 99 % training accuracy.{_seeds(frame.final)}{rest}"


def _seeds(final: pa.Table) -> str:
    """How many seeds the answer rests on."""
    counts = final["cell"].value_counts().field("counts").to_pylist()
    least, most = min(counts, default=0), max(counts, default=0)
    seeds = amount(most, "seed") if least == most else f"{least} to {most} seeds"
    return f" Each combination of settings was run with {seeds}." if counts else ""


def question(frame: StudyFrame) -> str:
    """What the study asks: its description, or a question made of what it varies."""
    described = str(study_document(frame.study).get("description") or "")
    varied = [n for n in varied_settings(frame.trials) if n != "seed" and len(frame.trials[n].drop_null().unique()) > 1]
    return described or f"How do collapse and margin go with {listed(list(map(words, varied))) or 'the seed alone'}?"


def sentences_answer(frame: StudyFrame, findings: Findings) -> list[str]:
    """The answer in three sentences: what training did, how good the codes are, and how the margin goes with the classes.
    Of a search the third says what was best."""
    if frame.final.num_rows == 0:
        return ["No trial is complete, so there is no answer yet."]
    last = sentence_classes(findings.trends, findings.comparisons)
    if findings.search.method != "grid":
        last = sentence_search(findings)
    return [sentence_collapse(frame), sentence_codes(frame.final, findings.explained), last]


def sentence_search(findings: Findings) -> str:
    """The best trial of a search in its largest group, and the setting that mattered most there."""
    group = next((group for group in findings.searched if group.is_measured), None)
    if group is None:
        return "What is best cannot be told: no complete trial has measured what the search optimises."
    best = group.best_index
    at = ", ".join(f"{words(name)} {shown(column[best])}" for name, column in group.settings.items())
    kind = "largest" if group.mode == "max" else "smallest"
    where = f" at {group.label}" if group.label else ""
    told = f"The {kind} {words(group.metric)} of {amount(len(group.trials), 'trial')}{where} is {number(float(group.goal[best]))}, with {at}"
    shares = next((one.shares["fANOVA"] for one in findings.importances if one.label == group.label), None)
    if not shares:
        return f"{told}."
    top = max(shares, key=shares.__getitem__)
    return f"{told}; {words(top)} mattered most ({percent(shares[top])} by fANOVA)."


def sentence_collapse(frame: StudyFrame) -> str:
    """Variability and duality at the end against the beginning, and what that means."""
    found = {name: medians_over_training(frame, name) for name in ("gnc1_rank", "gnc3_uncentred")}
    known = {name: pair for name, pair in found.items() if np.isfinite(pair).all()}
    if not known:
        return "Whether features collapse cannot be told: the trials were measured only at their end."
    told = " and ".join(
        f"the median {words(name)} ({name}) {'fell' if last < first else 'rose'} from {number(first)} to {number(last)}"
        for name, (first, last) in known.items()
    )
    verdict = "Class means turn to their rows"
    if "gnc1_rank" in known:
        first, last = known["gnc1_rank"]
        verdict = "Features collapse in part" if last <= MOVED * first else "Features do not collapse"
        verdict = "Features collapse" if last <= COLLAPSED * first else verdict
    short = frame.final.num_rows - int(values(frame.final, "terminal").sum())
    trials = amount(frame.final.num_rows, "trial")
    late = f"; {short} of {trials} stayed short of 99 % training accuracy" if short else ""
    return f"{verdict}: over training {told}{late}."


def sentence_codes(final: pa.Table, explained: Sequence[Explained] = ()) -> str:
    """How near the margin comes to that of the best code known, what that means, and which setting matters most for it."""
    ratio, clause = median(_ratios(final)), clause_ratio(final)
    verdict = "are far from"
    for least, better in ((HALFWAY, "stay short of"), (NEAR, "are nearly"), (1 + BEATEN, "are better than")):
        verdict = better if ratio >= least else verdict
    is_known = np.isfinite(ratio)
    told = f"The codes {verdict} the best ones known: {clause}" if is_known else clause[0].upper() + clause[1:]
    of_margin = next((one for one in explained if one.measure == MARGIN and len(one.shares) > 1), None)
    most = max(of_margin.shares, key=lambda share: share.share) if of_margin else None
    chance = of_margin.spread.seed_share if of_margin and of_margin.spread else 0.0
    is_told = most is not None and most.share >= max(MATTERS, chance)  # of several settings, and beside the seeds
    return f"{told}; {words(most.setting)} matters most for it." if most and is_told else f"{told}."


def sentence_classes(trends: Sequence[Trend], comparisons: Sequence[FormComparison]) -> str:
    """How the margin goes with the number of classes in every dimension that tells it, beside theory; or why none does."""
    pooled = [t for t in _trends_in_classes(trends, MARGIN, AT_END) if list(t.where) == ["feature_dim"]]
    claimed = [(t.where["feature_dim"], t.believed.exponent) for t in pooled if t.believed]
    if not claimed:
        differ = any(t.fit and t.fit.slopes_differ for t in pooled)
        start = (
            "No one exponent in the number of classes holds"
            if differ
            else "No trend in the number of classes can be told"
        )
        return f"{start}: {_why_none(pooled)}."
    verdicts = {c.feature_dim: found.verdict for c in comparisons if (found := asymptote(c))}
    told = [(dim, exponent) for dim, exponent in claimed if not exponent.holds(0)]
    basis = listed(list(dict.fromkeys(_basis(t.believed) for t in pooled if t.believed)))
    parts = []
    for dim, exponent in (told or claimed)[:MOST_NAMED]:
        verdict, limit = verdicts.get(dim, "cannot tell"), number(theory.asymptotic_exponent(dim))
        beside = f", with theory's {limit} {verdict} the interval of its asymptote"
        if verdict == "cannot tell":
            beside = f", where theory's {limit} is neither shown nor excluded (a wider range of K would tell)"
        parts.append(f"{power_text(exponent)} at d = {dim}{beside}")
    open_dims = listed([f"d = {dim}" for dim, exponent in claimed if exponent.holds(0)])
    signs = {exponent.estimate < 0 for _, exponent in told}
    verb = "changes" if len(signs) > 1 else "falls" if True in signs else "rises"
    rest = f" This rests on {basis}." + "".join(_left_out(t) if t.believed else f" {_unclaimed(t)}" for t in pooled)
    if not told:
        start = "No change of the margin with the number of classes is found, for every interval holds 0"
        return f"{start}: {'; '.join(parts)}.{rest}"
    parts += [f"none is found at {open_dims}, where the interval holds 0"] if open_dims else []
    return f"With more classes the minimum margin {verb}: {'; '.join(parts)}.{rest}"


def _unclaimed(trend: Trend) -> str:
    """Why no exponent is claimed in one dimension, and what would settle it."""
    lacking = MIN_CELLS - trend.fit.sizes if trend.fit else 0
    needs = f"{amount(lacking, 'more class count')} would give one" if lacking > 0 else _reason(trend)
    return f"At d = {trend.where['feature_dim']} none is claimed: {needs}."


def _trends_in_classes(trends: Sequence[Trend], measure: str, moment: str) -> list[Trend]:
    return [t for t in trends if (t.measure, t.moment, t.predictor) == (measure, moment, "num_classes")]


def _why_none(pooled: Sequence[Trend]) -> str:
    few = [(t.fit.sizes, t.where["feature_dim"]) for t in pooled if t.fit and t.fit.sizes < MIN_CELLS]
    if not few:
        return _reason(pooled[0]) if pooled else "no values"
    counts = listed([f"{sizes} at d = {dim}" for sizes, dim in few])
    return f"an exponent needs {COUNTS[MIN_CELLS]} class counts, and there are {counts}"


def _ratios(final: pa.Table) -> np.ndarray:
    """The minimum margin of each trial over the best known code's; NaN where none is tabulated."""
    margins, best = values(final, MARGIN), values(final, "reference_margin_lower")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(best > 0, margins / best, np.nan)


def clause_ratio(final: pa.Table) -> str:
    """How near the minimum margin comes to that of the best code known."""
    ratio, margins = _ratios(final), values(final, MARGIN)
    if not np.isfinite(margins).any():
        return "no complete trial has measured its minimum margin"
    if not np.isfinite(ratio).any():
        middle = number(median(margins))
        return f"the minimum margin is {middle} in the median, and no best known code is tabulated to compare it with"
    low, high = int(np.nanargmin(ratio)), int(np.nanargmax(ratio))
    beaten = ", which is a better code than the tables hold" if ratio[high] > 1 + BEATEN else ""
    ends = [percent(ratio[i]) for i in (low, high)]
    if ends[0] == ends[1]:
        where = f"in all {len(ratio)} trials" if len(ratio) > 1 else f"at {_where(final, low)}"
        return f"the minimum margin reaches {ends[0]} of the best known code's {where}{beaten}"
    least, most = _apart(final, low, high)
    middle = f"{percent(float(np.nanmedian(ratio)))} of the best known code's in the median"
    return f"the minimum margin reaches {middle}, from {ends[0]} at {least} to {ends[1]} at {most}{beaten}"


def sentences_trend(trends: Sequence[Trend], measure: str = MARGIN, moment: str = AT_END) -> list[str]:
    """For each feature_dim: the exponent in the number of classes, and what it rests on."""
    own = _trends_in_classes(trends, measure, moment)
    pooled = [t for t in own if list(t.where) == ["feature_dim"]]
    if not any(t.fit for t in pooled):  # one sentence is enough where nothing can be told anywhere
        return [f"No trend in the number of classes can be told: {_reason(pooled[0]) if pooled else 'no values'}."]
    return [sentence_trend(trend, [s for s in own if trend.where.items() < s.where.items()]) for trend in pooled]


def sentence_trend(trend: Trend, series: Sequence[Trend] = ()) -> str:
    """One trend in words: an exponent with its interval, those of its series where they differ, or what is missing."""
    fit, what = trend.fit, f"At d = {trend.where['feature_dim']}"
    name = MEASURE_NAMES.get(trend.measure, trend.measure)
    if fit is None:
        return f"{what} no trend of {name} in K can be told: {_reason(trend)}."
    exponent = fit.exponent
    lacking = MIN_CELLS - fit.sizes
    missing = f" An interval needs {COUNTS[lacking]} more class count{'s' * (lacking > 1)}." if lacking > 0 else ""
    if fit.slopes_differ:
        own = [(s.fit, _held(s, *trend.where)) for s in series if s.fit]
        each = "; ".join(f"{power_text(one.exponent)} at {held}" for one, held in own[:MOST_NAMED])
        more = f"; {len(own) - MOST_NAMED} more are in the table" if len(own) > MOST_NAMED else ""
        differ = f"{what} the exponents of {name} differ between the {len(fit.levels)} series"
        equal = f"({p_text(fit.slopes_p or 0.0)} that they are equal), so none holds for all"
        return f"{differ} {equal}: {each}{more}. These rest on {_basis(fit)}.{missing}"
    if trend.refused:
        bare = f"The bare estimate is K to the power {number(exponent.estimate)}, from {_basis(fit)}."
        why = "" if lacking > 0 else f": {_reason(trend)}"
        return f"{what} no exponent of {name} is claimed{why}.{missing} {bare}{_left_out(trend)}"
    names = own_prefactors(trend)
    basis = f"{_basis(fit)}, with one prefactor for each {' and '.join(names)}" if names else _basis(fit)
    if exponent.holds(0):
        ends = f"{number(exponent.low or 0)} to {number(exponent.high or 0)}"
        found = f"the 95 % interval of its exponent, {ends}, holds 0. This rests on {basis}."
        settle = _needed_text(needed_sizes(fit), fit.sizes, "An exponent of this size would be told from 0")
        return f"{what} no trend of {name} in K is found: {found}{_left_out(trend)} {settle}"
    verb = "falls" if exponent.estimate < 0 else "rises"
    return f"{what} {name} {verb} as {power_text(exponent)}. This rests on {basis}.{_left_out(trend)}"


def power_text(exponent: Exponent) -> str:
    """`K to the power ...` with its interval, or that it has none."""
    without = " (no interval)" if exponent.low is None else ""
    return f"K to the power {interval_text(exponent)}{without}"


def _basis(fit: PowerLawFit) -> str:
    """The class counts and seeds that a fit rests on."""
    least, most = fit.seeds
    seeds = f"{least} to {most} seeds" if least < most else "one seed" if most == 1 else f"{most} seeds"
    low, high = (number(float(round(end))) for end in fit.range)
    sizes = f"{fit.sizes} class counts from {low} to {high}" if fit.sizes > 1 else f"1 class count, {low}"
    return f"{sizes}, {seeds} each"


def _left_out(trend: Trend) -> str:
    """The trials whose values cannot enter; empty without any."""
    count = amount(trend.not_positive, "trial")
    return f" {count} without a positive value left out." if trend.not_positive else ""


def _reason(trend: Trend) -> str:
    counts = (trend.refused or "").replace("value of num_classes", "class count")
    return counts.replace("values of num_classes", "class counts")


def _held(trend: Trend, *but: str) -> str:
    """The settings that a trend holds fixed, but for some."""
    return ", ".join(f"{n} {shown_value(v)}" for n, v in trend.where.items() if n not in but)


def needed_sizes(fit: PowerLawFit) -> int | None:
    """How many class counts would tell the exponent from 0; those there are where they do, None where no number would."""
    exponent = fit.exponent
    if not exponent.holds(0) or exponent.high is None:
        return fit.sizes
    return sizes_needed(exponent.high - exponent.estimate, fit.sizes, 2, abs(exponent.estimate))


def _needed_text(needed: int | None, sizes: int, settled: str) -> str:
    if needed is None:
        return f"{settled} only over a wider range of K, or with less scatter."
    more = needed - sizes
    return f"{settled} with {amount(more, 'more class count')} over the same range, if they scatter alike."


def sentence_asymptote(comparison: FormComparison) -> str:
    """Whether theory's large-K exponent agrees with the margin's, by the form with a correction; empty for other measures."""
    pooled = asymptote(comparison)
    if pooled is None:
        return ""
    told = [(one, found) for one in (comparison.series or (comparison,)) if (found := asymptote(one))]
    start = f"Theory's large-K exponent of the best codes, {number(pooled.limit)},"
    if not any(found.exponent for _, found in told):
        return f"{start} cannot be compared with it."
    known, unknown = ([pair for pair in told if (pair[1].verdict == "cannot tell") is lost] for lost in (False, True))
    several, parts = len(told) > 1, []
    if known:
        texts = (f"lies {f.verdict} {_interval_of_asymptote(one, f, several=several)}" for one, f in known)
        parts = [f"{start} {'; '.join(texts)} (by forms with a correction term, which alone can tell)."]
    if unknown:
        which = f"For {len(unknown)} of {len(told)} series it" if known else start
        parts.append(_cannot_tell(*unknown[0], which, several=several))
        parts += ["The other series cannot tell either."] * (not known and len(unknown) > 1)
    return " ".join(parts)


def _interval_of_asymptote(comparison: FormComparison, found: Asymptote, *, several: bool) -> str:
    assert found.exponent is not None
    return f"the interval of the asymptote, {interval_text(found.exponent)}" + f" at {series_of(comparison)}" * several


def _cannot_tell(comparison: FormComparison, found: Asymptote, which: str, *, several: bool) -> str:
    if found.exponent is None or found.exponent.high is None:
        return f"{which} cannot be compared: {found.why.replace('values of num_classes', 'class counts')}."
    fit = next(v.fit for v in comparison.verdicts if v.form == "corrected")
    assert fit is not None
    far = max(found.exponent.high - found.exponent.estimate, found.exponent.estimate - (found.exponent.low or 0))
    settle = _needed_text(sizes_needed(far, fit.sizes, 3, abs(found.limit)), fit.sizes, "It would be told")
    ends = _interval_of_asymptote(comparison, found, several=several)
    beside = "is inside" if found.exponent.holds(found.limit) else "is compared with"
    return f"{which} {beside} {ends}, which holds 0, so whether it holds cannot be told. {settle}"


def series_of(comparison: FormComparison) -> str:
    """The label of the one series that was compared; empty for several."""
    labels = set(comparison.cells.group)
    return next(iter(labels)) if len(labels) == 1 else ""


def sentences_opposite(trends: Sequence[Trend]) -> list[str]:
    """Trends of one measure that rise under one condition and fall under another, with what that means."""
    known = [t for t in trends if t.predictor == "num_classes" and "feature_dim" in t.where]
    claimed = [t for t in known if t.believed and not t.believed.exponent.holds(0)]
    found = []
    for measure, dim in dict.fromkeys((t.measure, t.where["feature_dim"]) for t in claimed):
        own = [t for t in claimed if (t.measure, t.where["feature_dim"]) == (measure, dim)]
        rising, falling = ([t for t in own if t.fit and sign * t.fit.exponent.estimate > 0] for sign in (1, -1))
        if rising and falling:
            up, down = rising[0], falling[0]
            why = TEXTS["other_moment" if up.moment != down.moment else "other_series"]
            found.append(f"At d = {dim} {measure} rises with K {_condition(up)} and falls {_condition(down)}. {why}")
    return found


def _condition(trend: Trend) -> str:
    assert trend.fit is not None
    held = _held(trend, "feature_dim")
    return f"({trend.moment}{', ' * bool(held)}{held}: {interval_text(trend.fit.exponent)})"


def interval_text(exponent: Exponent) -> str:
    """`estimate (low to high)`, the ends left out where they were refused."""
    if exponent.low is None or exponent.high is None:
        return number(exponent.estimate)
    return f"{number(exponent.estimate)} (95 % interval {number(exponent.low)} to {number(exponent.high)})"


def medians_over_training(frame: StudyFrame, name: str) -> tuple[float, float]:
    """Median over complete trials of a measure at the first measured epoch after a step, and at the last."""
    rows = of_trials(frame.rows.select(["trial", "step", name]), frame.final["trial"].to_pylist())
    rows = rows.filter(pc.greater(rows["step"], 0))
    trial, measured = values(rows, "trial"), values(rows, name)
    starts, ends = frames.trial_bounds(trial)
    several = ends - starts > 1
    return median(measured[starts[several]]), median(measured[ends[several] - 1])


def _where(final: pa.Table, index: int, *others: str) -> str:
    dim, k, temperature = (final[name][index].as_py() for name in ("feature_dim", "num_classes", "temperature"))
    told = [] if temperature is None else [f"temperature {number(temperature)}"]
    told += [f"{words(name)} {shown_value(final[name][index].as_py())}" for name in others]
    return ", ".join([f"d = {dim}, K = {k}", *told])


def _apart(final: pa.Table, *rows: int) -> list[str]:
    """Where each of two trials stands; where they share what is usually named, by what they do not share."""
    found = [_where(final, row) for row in rows]
    if found[0] != found[1]:
        return found
    differ = [name for name in varied_settings(final) if len({final[name][row].as_py() for row in rows}) > 1]
    named = [name for name in differ if name != "seed"][:3] or differ
    return [_where(final, row, *named) for row in rows]
