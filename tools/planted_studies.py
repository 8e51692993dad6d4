"""Do the report's statements hold? Planted studies, as tables, through the report's own trends, sentences and predictions.

    python -m tools.planted_studies --studies 500

Every study is a table of final rows: class counts by series (temperatures), with seed noise, noise of cells, and a
deviation of each class count that its cells share. Four tables are printed.

* exponents: how often the interval in the report's sentence about the exponent holds the truth, how often it has none,
  and how often the series were said to differ.
* asymptotes: what the report's sentence says of theory's exponent. Under all laws but the last it is the truth there.
* predictions: how often 90 % intervals of a class count beyond the largest hold its cells, by the report's scores.
* joint: forms over all dimensions at once, where each dimension has a deviation that its cells share too: how often the
  95 % intervals of the law's parameters hold the truth, and 90 % intervals of the largest class count its cells.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from analysis.report.sentences import sentence_asymptote, sentence_trend
from analysis.rows import theory
from analysis.rows.measures import MARGIN
from analysis.scaling.form_choice import cells_of, compare_forms, with_settings
from analysis.scaling.joint_forms import AXES, JOINT_FORMS, compare_joint
from analysis.scaling.predictions import predict_cells, score
from analysis.scaling.trends import trends_of
from study.design.config import TrialConfig

Law = Callable[[np.ndarray, int], np.ndarray]  # (num_classes, feature_dim) -> log margin
OTHERS = ["temperature"]
COVERED = re.compile(r"95 % interval (?:of its exponent, )?([−\d.]+) to ([−\d.]+)")  # noqa: RUF001


@dataclass(frozen=True)
class Layout:
    """A planted study. Noise is of the log margin: shared by the cells of a size, of a cell, of a seed, of slopes.

    dropped: share of trials that are not terminal. outliers: share of trials that are wrong by half.
    """

    sizes: int
    series: int = 1
    seeds: int = 1
    dim: int = 5
    least: float = 24
    largest: float = 512
    shared: float = 0.03
    cell: float = 0.005
    seed: float = 0.005
    slopes: float = 0.0
    dropped: float = 0.0
    outliers: float = 0.0

    def num_classes(self) -> np.ndarray:
        """The class counts, evenly spaced in the logarithm."""
        return np.geomspace(self.least, self.largest, self.sizes).round()

    def frame(self) -> pa.Table:
        """Rows without margins: series by class count by seed, in this order."""
        rows = []
        for temperature in 0.05 * 1.2 ** np.arange(self.series):
            for k in self.num_classes():
                for seed in range(self.seeds):
                    config = TrialConfig(
                        num_classes=int(k), feature_dim=self.dim, temperature=float(temperature), seed=seed
                    )
                    rows.append(config.settings() | {"trial": config.key, "cell": config.cell})
        names = ("trial", "cell", "num_classes", "feature_dim", "temperature", "seed")
        return pa.table({name: [row[name] for row in rows] for name in names})

    def draw(self, law: Law, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Log margins [series, sizes, seeds], and the slopes of the series beside the law's."""
        k, shape = self.num_classes(), (self.series, self.sizes)
        slopes = self.slopes * rng.normal(size=(self.series, 1))
        logs = law(k, self.dim) + slopes * np.log(k / k.mean()) + rng.normal(size=(self.series, 1))
        logs = logs + self.shared * rng.normal(size=self.sizes) + self.cell * rng.normal(size=shape)
        found = logs[..., None] + self.seed * rng.normal(size=(*shape, self.seeds))
        found[rng.random(found.shape) < self.outliers] -= np.log(2)
        return found, slopes[:, 0]


def with_margins(frame: pa.Table, logs: np.ndarray, terminal: np.ndarray) -> pa.Table:
    """The frame with these margins, certified to one part in a million, and which trials are terminal."""
    margin = np.exp(logs.ravel() - 3)
    columns = {MARGIN: margin, "margin_min_upper": margin * (1 + 1e-6), "terminal": terminal.ravel()}
    for name, column in columns.items():
        frame = frame.append_column(name, pa.array(column))
    return frame


def power(exponent: float) -> Law:
    """A pure power law in K."""
    return lambda k, d: exponent * np.log(k)


@dataclass(frozen=True)
class Coverage:
    """Outcomes of one layout: the share of intervals that hold the truth, of pooled sentences and of series' own; counts."""

    layout: Layout
    covered: float
    covered_apart: float
    pooled: int
    refused: int
    differ: int


def exponents(layout: Layout, studies: int, *, exponent: float = -0.5, seed: int = 0) -> Coverage:
    """Coverage of the interval in the report's sentence; where series are said to differ, of the sentence of each."""
    rng, frame = np.random.default_rng([seed, layout.sizes, layout.series]), layout.frame()
    hits: dict[bool, list[float]] = {True: [], False: []}
    counts = {"pooled": 0, "refused": 0, "differ": 0}
    for _ in range(studies):
        logs, slopes = layout.draw(power(exponent), rng)
        final = with_margins(frame, logs, rng.random(logs.shape) >= layout.dropped)
        pooled, *single = trends_of(final, MARGIN, OTHERS, series=False)
        if pooled.fit and pooled.fit.slopes_differ:
            counts["differ"] += 1
            order = frame["temperature"].unique().to_pylist()
            told = [(sentence_trend(s), exponent + slopes[order.index(s.where["temperature"])]) for s in single]
        else:
            counts["pooled" if pooled.believed else "refused"] += 1
            told = [(sentence_trend(pooled), exponent + float(slopes.mean()))]
        ends = [(found.groups(), truth) for text, truth in told if (found := COVERED.search(text))]
        hits[not single] += [_number(low) - 5e-4 <= truth <= _number(high) + 5e-4 for (low, high), truth in ends]
    covered, apart = (float(np.mean(hits[pooled] or [np.nan])) for pooled in (True, False))
    return Coverage(layout, covered, apart, **counts)


def _number(text: str) -> float:
    return float(text.replace("−", "-"))  # noqa: RUF001


def _limit(k: np.ndarray, d: int) -> np.ndarray:
    return np.asarray(theory.asymptotic_exponent(d) * np.log(k))


# Laws whose large-K exponent is theory's, with corrections that the form holds exactly and others; the last law's is not.
ASYMPTOTES: dict[str, Law] = {
    "theory's power": _limit,
    "with exp(-2 K^t)": lambda k, d: _limit(k, d) - 2 * np.exp(_limit(k, d)),
    "with (1 - 1.5 K^t)": lambda k, d: _limit(k, d) + np.log1p(-1.5 * np.exp(_limit(k, d))),
    "with (1 + 3 K^t)": lambda k, d: _limit(k, d) + np.log1p(3 * np.exp(_limit(k, d))),
    "with (1 + 3 K^(2t))": lambda k, d: _limit(k, d) + np.log1p(3 * np.exp(2 * _limit(k, d))),
    "with (1 - .8 K^(t/2))": lambda k, d: _limit(k, d) + np.log1p(-0.8 * np.exp(_limit(k, d) / 2)),
    "Levenshtein's bound": lambda k, d: np.log(theory.levenshtein_curve(k, d)),
    "twice theory's exponent": lambda k, d: 2 * _limit(k, d),
}


def asymptotes(law: str, layout: Layout, studies: int, *, seed: int = 0) -> dict[str, float]:
    """Shares of the report's sentences that put theory's exponent inside, outside, or cannot tell."""
    rng, frame = np.random.default_rng([seed, list(ASYMPTOTES).index(law), layout.series]), layout.frame()
    told = []
    for _ in range(studies):
        final = with_margins(frame, layout.draw(ASYMPTOTES[law], rng)[0], np.ones(frame.num_rows, dtype=bool))
        cells = cells_of(final, MARGIN, OTHERS)
        assert cells is not None
        told.append(sentence_asymptote(compare_forms(cells, layout.dim, MARGIN, OTHERS, names=("corrected",))))
    outside = float(np.mean(["lies outside" in text for text in told]))  # of any series, where they are told apart
    inside = float(np.mean(["lies inside" in text and "lies outside" not in text for text in told]))
    return {"outside": outside, "inside": inside, "cannot tell": 1 - outside - inside}


# Laws in the family of the forms at d = 3 to 10, and near it: forms that no member of the family holds exactly.
PREDICTED: dict[str, Law] = {
    "power": power(-0.5),
    "theory, corrected": lambda k, d: _limit(k, d) - 2 * np.exp(_limit(k, d)),
    "offset": lambda k, d: np.log((k / 66) ** -0.8 + 0.4),
    "Levenshtein": ASYMPTOTES["Levenshtein's bound"],
    "best known": lambda k, d: np.log(theory.best_known_curve(k, d)),
    "curved": lambda k, d: -0.1 * np.log(k) - 0.05 * np.log(k) ** 2,
    "near: (1 + 3 K^(2t))": ASYMPTOTES["with (1 + 3 K^(2t))"],
    "near: two exponents": lambda k, d: -0.3 * np.log(k) - np.log1p((k / 100) ** 0.4),
    "near: 0.8 Levenshtein^1.1": lambda k, d: 1.1 * ASYMPTOTES["Levenshtein's bound"](k, d),
}


def predictions(law: str, layout: Layout, studies: int, *, seed: int = 0) -> tuple[float, float, int]:
    """Coverage of 90 % intervals at the largest size, predicted without it; the median error; the cells scored."""
    rng, frame = np.random.default_rng([seed, list(PREDICTED).index(law), layout.sizes]), layout.frame()
    asked = [{"num_classes": int(layout.largest), "feature_dim": layout.dim, "temperature": t}
             for t in frame["temperature"].unique().to_pylist()]  # fmt: skip
    seen = np.array(frame["num_classes"].to_pylist()) < layout.largest
    inside: list[float] = []
    errors: list[float] = []
    for _ in range(studies):
        final = with_margins(frame, layout.draw(PREDICTED[law], rng)[0], np.ones(frame.num_rows, dtype=bool))
        before = final.filter(pa.array(seen))
        cells = cells_of(before, MARGIN, OTHERS)
        assert cells is not None
        compared = with_settings(compare_forms(cells, layout.dim, MARGIN, OTHERS), before)
        scores = score(predict_cells(asked, before, [compared], []), final).scores
        inside += [s.inside for s in scores]
        errors += [s.error for s in scores]
    return float(np.mean(inside or [np.nan])), float(np.median(errors or [np.nan])), len(inside)


JOINT: dict[str, tuple[float, ...]] = {
    "power": (-0.5, 0.8), "theory": (0.6,), "levenshtein": (), "reference": (), "power-temperature": (-0.5, 0.8, -0.2),
    "reference-coldness": (0.1, -0.3),
}  # fmt: skip
DIMS = (4, 5, 6, 8, 10)


@dataclass(frozen=True)
class JointCoverage:
    """Shares of 95 % intervals of each parameter and of 90 % predictions that hold the truth; studies without intervals."""

    parameters: dict[str, float]
    predicted: float
    cells: int
    refused: int


def joint(law: str, layout: Layout, studies: int, *, seed: int = 0) -> JointCoverage:
    """Coverage of a joint form's parameters over DIMS, and of predictions of the largest size by the report's scores."""
    rng = np.random.default_rng([seed, list(JOINT).index(law), layout.sizes])
    form, frames = JOINT_FORMS[law], [replace(layout, dim=dim).frame() for dim in DIMS]
    frame, shape = pa.concat_tables(frames), (len(DIMS), layout.series, layout.sizes)
    axes = {name: np.log(frame[name].to_numpy().astype(float)) for name in AXES}
    smooth = form.fixed(axes) + sum(c * x for c, x in zip(JOINT[law], form.columns(axes), strict=True))
    before = frame["num_classes"].to_numpy() < layout.largest
    asked = [{name: row[name] for name in AXES} for row in frame.filter(pa.array(~before)).to_pylist()]
    hits: dict[str, list[float]] = {name: [] for name in form.names}
    inside: list[float] = []
    refused = 0
    for _ in range(studies):
        logs = smooth.reshape(shape) + layout.shared * (
            rng.normal(size=(len(DIMS), 1, 1)) + rng.normal(size=layout.sizes)
        )
        logs = logs + (0 if form.cold else rng.normal(size=(layout.series, 1))) + layout.cell * rng.normal(size=shape)
        final = with_margins(frame, logs, np.ones(frame.num_rows, dtype=bool))
        compared = compare_joint(final.filter(pa.array(before)), MARGIN, OTHERS)
        assert compared is not None
        fit = next(v.fit for v in compared.verdicts if v.form == law)
        known = [] if fit is None else [p for p in fit.parameters if p.low is not None]
        refused += len(known) < len(form.names)
        for p, truth in zip(known, JOINT[law], strict=bool(known)):
            hits[p.name].append(float(p.low or 0) <= truth <= float(p.high or 0))
        scores = score(predict_cells(asked, final.filter(pa.array(before)), [], [compared]), final).scores
        inside += [s.inside for s in scores]
    shares = {name: float(np.mean(found or [np.nan])) for name, found in hits.items()}
    return JointCoverage(shares, float(np.mean(inside or [np.nan])), len(inside), refused)


def print_joint(studies: int) -> None:
    """Coverage of joint forms, by law and number of sizes."""
    print(
        "| law | sizes x series x d | parameters covered | predicted | cells | no interval |\n|---|---|---|---|---|---|"
    )
    for law in JOINT:
        for layout in (Layout(6, 3, largest=256), Layout(9, 5, largest=256)):
            found = joint(law, layout, studies)
            each = ", ".join(f"{name} {share:.3f}" for name, share in found.parameters.items()) or "none"
            row = f"{layout.sizes - 1} x {layout.series} x {len(DIMS)} | {each} | {found.predicted:.3f} | {found.cells}"
            print(f"| {law} | {row} | {found.refused} |", flush=True)


def layouts() -> Iterator[tuple[str, Layout]]:
    """The layouts of the table of exponents, with what is special about each."""
    for sizes in (5, 7, 9, 12):
        for series in (1, 2, 5, 20):
            yield "", Layout(sizes, series)
    yield "no shared deviation, noisy cells", Layout(7, 5, shared=0.0, cell=0.05)
    yield "cells as noisy as sizes", Layout(7, 3, cell=0.03)
    yield "five seeds", Layout(7, 3, seeds=5, seed=0.02)
    yield "20 % not terminal", Layout(7, 5, dropped=0.2)
    yield "20 % not terminal", Layout(5, 20, dropped=0.2)
    yield "3 % wrong by half", Layout(12, 5, cell=0.05, outliers=0.03)
    yield "unequal slopes (.05)", Layout(7, 3, slopes=0.05)
    yield "slightly unequal (.01)", Layout(7, 3, slopes=0.01)


def print_exponents(studies: int) -> None:
    """Coverage by layout."""
    print(
        "| sizes x series | | covered | of series apart | pooled | refused | said to differ |\n|---|---|---|---|---|---|---|"
    )
    for note, layout in layouts():
        found = exponents(layout, studies)
        counts = f"{found.pooled} | {found.refused} | {found.differ}"
        covered = f"{found.covered:.3f} | {found.covered_apart:.3f}"
        print(f"| {layout.sizes} x {layout.series} | {note} | {covered} | {counts} |", flush=True)


def print_asymptotes(studies: int) -> None:
    """What is said of theory's exponent, by law."""
    print(
        "| law | d | sizes x series | K from | shared | outside | inside | cannot tell |\n|---|---|---|---|---|---|---|---|"
    )
    layouts = [Layout(7, series, dim=dim, least=64, shared=0.01) for dim, series in ((3, 1), (5, 1), (5, 4))]
    layouts += [Layout(5, dim=5, least=64, shared=0.01), Layout(9, dim=5, least=64, shared=0.003, cell=0.001)]
    layouts += [Layout(12, dim=dim, shared=0.01) for dim in (5, 8)]
    for law in ASYMPTOTES:
        for one in layouts:
            shares = " | ".join(f"{share:.3f}" for share in asymptotes(law, one, studies).values())
            about = f"{one.dim} | {one.sizes} x {one.series} | {one.least} | {one.shared:g}"
            print(f"| {law} | {about} | {shares} |", flush=True)


def print_predictions(studies: int) -> None:
    """Coverage of predictions, by law, without and with a deviation that the cells of a size share."""
    print("| law | sizes x series | shared | covered | median error | cells |\n|---|---|---|---|---|---|")
    for law in PREDICTED:
        for layout in (Layout(7, 2, largest=256, shared=0.0, cell=0.03), Layout(7, 2, largest=256, cell=0.01)):
            covered, error, cells = predictions(law, layout, studies)
            row = f"{layout.sizes - 1} x {layout.series} | {layout.shared:g} | {covered:.3f} | {error:.3f} | {cells}"
            print(f"| {law} | {row} |", flush=True)


PARTS: dict[str, Callable[[int], None]] = {
    "exponents": print_exponents,
    "asymptotes": print_asymptotes,
    "predictions": print_predictions,
    "joint": print_joint,
}
FEWER = {"predictions": 4, "joint": 4}  # parts whose studies cost more


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", type=int, default=500, help="of each line; predictions and joint forms take a quarter"
    )
    parser.add_argument("--part", choices=list(PARTS), action="append", help="only this table; repeatable")
    options = parser.parse_args(arguments)
    if options.studies < 4:
        parser.error(f"--studies must be at least 4, got {options.studies}. A share needs many of them.")
    for part in options.part or list(PARTS):
        PARTS[part](options.studies // FEWER.get(part, 1))


if __name__ == "__main__":
    main()
