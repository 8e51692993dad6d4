"""The large-K exponent of margins beside theory's, by the one form that can tell it. Knows the forms compared."""

from dataclasses import dataclass
from typing import Literal

from analysis.rows import theory
from analysis.rows.measures import MARGIN
from analysis.scaling.form_choice import FormComparison
from analysis.scaling.power_law import Exponent


@dataclass(frozen=True)
class Asymptote:
    """The large-K exponent of a margin beside theory's limit.

    verdict: whether the interval of the corrected form's exponent holds the limit; `cannot tell` where there is no such
    interval, or where it holds 0 as well. why: the reason then.
    """

    exponent: Exponent | None
    limit: float
    verdict: Literal["inside", "outside", "cannot tell"]
    why: str = ""


def asymptote(comparison: FormComparison) -> Asymptote | None:
    """What the form with a correction says of theory, whatever form was chosen; None for other measures and d = 1.

    A form without a correction has no say: over the class counts that can be trained, the best codes themselves are
    bent, and its exponent misses theirs.
    """
    if comparison.measure != MARGIN or comparison.feature_dim < 2:
        return None
    limit = theory.asymptotic_exponent(comparison.feature_dim)
    verdict = next((v for v in comparison.verdicts if v.form == "corrected"), None)
    if verdict is None or verdict.fit is None:
        return Asymptote(None, limit, "cannot tell", (verdict and verdict.refused) or "it was not fitted")
    exponent = verdict.fit.parameters[0]
    assert exponent.low is not None
    assert exponent.high is not None
    if not exponent.low <= limit <= exponent.high:
        return Asymptote(exponent, limit, "outside")
    if exponent.low <= 0 <= exponent.high:
        return Asymptote(exponent, limit, "cannot tell", "its interval holds 0 as well")
    return Asymptote(exponent, limit, "inside")
