"""Do the intervals cover? Simulated studies with a known law, seed noise, missing cells and outliers.

    python -m tools.calibration --studies 1000
    python -m tools.calibration --choices 100

The first prints, for each form and number of cells, how often the 95 % interval of each parameter held the truth, how
often the 90 % prediction interval of a size twice the largest held a new cell, and the median error of the parameter,
absolute and relative. The second prints how often each form is chosen by held-out error, by the law that the studies
follow, and which forms cannot be told from it at this noise: those whose predictions of the held-out cells, fitted to
the law without noise, miss by less than DISTINCT standard errors of what those cells can show.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.rows.frames import median
from analysis.scaling.cells import Cells
from analysis.scaling.form_choice import choose, verdict_of
from analysis.scaling.forms import FORMS, MARGIN_FORMS, design_of, fit_form
from analysis.scaling.power_law import FitRefused

CELL_COUNTS = (6, 12, 30)
FEATURE_DIM = 3
LARGEST = 384
SEEDS, SEED_SHARE = 2, 0.4  # seeds of a cell, and their noise over the noise of cells
DISTINCT = 3.0  # standard errors
# Truth of each form; the offset form counts K in units of the geometric mean of the sizes.
TRUTHS: dict[str, dict[str, float]] = {
    "power": {"a": -0.97},
    "offset": {"a": -1.2, "log c": -1.0},
    "theory": {"c": -2.0},
    "corrected": {"a": -1.2, "c": -4.0},
    "levenshtein": {},
    "reference": {},
    "curved": {"a": -0.5, "b": -0.06},
    "corrected-slow": {"a": -1.2, "c": -2.0},
    "corrected-fast": {"a": -1.2, "c": -20.0},
}


@dataclass(frozen=True)
class Calibration:
    """One line of the table: shares and errors over `studies` simulated studies that were not refused."""

    form: str
    cells: int
    parameter: str
    covered: float
    predicted: float
    median_error: float
    relative_error: float
    studies: int


def sizes_of(num_cells: int) -> np.ndarray:
    """Class counts of the cells: as many sizes as cells up to twelve, then each several times."""
    return np.resize(np.geomspace(12, LARGEST, min(num_cells, 12)).round(), num_cells)


def law(form: str, sizes: np.ndarray, centre: float) -> np.ndarray:
    """Log of the true measure at these sizes."""
    truth, chosen = TRUTHS[form], FORMS[form]
    linear = np.array([truth[name] for name in chosen.names])
    shape = np.array([truth[name] for name in chosen.shapes])
    argument = sizes / centre if chosen.shapes else sizes
    return np.asarray(chosen.fixed(argument, FEATURE_DIM, shape) + chosen.columns(sizes, FEATURE_DIM) @ linear)


def simulate(
    form: str,
    num_cells: int,
    rng: np.random.Generator,
    *,
    noise: float = 0.05,
    seeds: int = SEEDS,
    outliers: float = 0.03,
) -> tuple[Cells, float]:
    """A study with one law: cells and seeds with noise of their own, a tenth of the cells lost, some wrong by half.

    Returns:
        The cells, and the log measure of a new cell at twice the largest size.
    """
    sizes = sizes_of(num_cells)
    kept = np.ones(num_cells, dtype=bool)
    if num_cells > 6:
        kept[rng.choice(num_cells, num_cells // 10, replace=False)] = False
    sizes = sizes[kept]
    centre = float(np.exp(np.mean(np.log(np.unique(sizes)))))
    logs = law(form, sizes, centre) + noise * rng.normal(size=len(sizes))
    logs += SEED_SHARE * noise * rng.normal(size=(seeds, len(sizes))).mean(axis=0)
    logs[rng.random(len(sizes)) < outliers] -= np.log(2)
    new = float(law(form, np.array([2.0 * LARGEST]), centre)[0] + noise * rng.normal())
    return Cells(logs, np.log(sizes)[:, None], ("",) * len(sizes), np.full(len(sizes), seeds)), new


def calibrate(
    form: str, num_cells: int, studies: int, *, seed: int = 0, noise: float = 0.05, outliers: float = 0.03
) -> list[Calibration]:
    """Coverage of one form's intervals over simulated studies of one size."""
    rng = np.random.default_rng([seed, num_cells, list(FORMS).index(form)])
    covered: dict[str, list[float]] = {name: [] for name in (TRUTHS[form] or {"prefactor": 0.0})}
    errors: dict[str, list[float]] = {name: [] for name in covered}
    predicted: list[float] = []
    for _ in range(studies):
        cells, new = simulate(form, num_cells, rng, noise=noise, outliers=outliers)
        try:
            fit = fit_form(form, cells, FEATURE_DIM)
        except FitRefused:
            continue
        for parameter in fit.parameters:
            truth = TRUTHS[form][parameter.name]
            assert parameter.low is not None
            assert parameter.high is not None
            covered[parameter.name].append(parameter.low <= truth <= parameter.high)
            errors[parameter.name].append(abs(parameter.estimate - truth))
        low, high = np.log(fit.predict_interval(2 * LARGEST)).ravel()
        predicted.append(bool(low <= new <= high))
    found = []
    for name, hits in covered.items():
        middle = median(np.array(errors[name]))
        relative = middle / abs(TRUTHS[form].get(name, np.nan))
        shares = float(np.mean(hits or [np.nan])), float(np.mean(predicted or [np.nan]))
        found.append(Calibration(form, num_cells, name, *shares, middle, relative, len(predicted)))
    return found


def calibrations(
    studies: int,
    *,
    forms: Sequence[str] = tuple(FORMS),
    cell_counts: Sequence[int] = CELL_COUNTS,
    seed: int = 0,
    noise: float = 0.05,
    outliers: float = 0.03,
) -> Iterator[Calibration]:
    """Every form at every number of cells, as they are done."""
    for form in forms:
        for num_cells in cell_counts:
            yield from calibrate(form, num_cells, studies, seed=seed, noise=noise, outliers=outliers)


def choices(form: str, num_cells: int, studies: int, *, noise: float = 0.01, seed: int = 0) -> dict[str, float]:
    """How often each form predicts the largest sizes best where `form` is the law; noise is of log measure, by cell."""
    rng = np.random.default_rng([seed, num_cells, list(FORMS).index(form), 1])
    chosen: list[str | None] = []
    for _ in range(studies):
        cells, _ = simulate(form, num_cells, rng, noise=noise, outliers=0.0)
        chosen.append(choose([verdict_of(name, cells, FEATURE_DIM) for name in MARGIN_FORMS]))
    return {name: chosen.count(name) / studies for name in MARGIN_FORMS}


def distances(form: str, num_cells: int, *, noise: float = 0.01) -> dict[str, float]:
    """How far each form's predictions of the held-out cells lie from a law, in standard errors; NaN where refused.

    Each form is fitted to the law's exact smaller sizes. The errors are those of the held-out cells, and of predicting
    them by the law itself fitted to noisy cells: a best test of the two sees no more than this.
    """
    sizes = sizes_of(num_cells)
    centre = float(np.exp(np.mean(np.log(np.unique(sizes)))))
    exact = Cells(law(form, sizes, centre), np.log(sizes)[:, None], ("",) * num_cells, np.ones(num_cells, dtype=int))
    rest, held = exact.halves
    own = fit_form(form, rest, FEATURE_DIM)
    fitted, predicted = (design_of(own, np.exp(cells.log_predictors[:, 0])) for cells in (rest, held))
    carried = predicted @ np.linalg.pinv(fitted.T @ fitted) @ predicted.T
    spread = noise**2 * (1 + SEED_SHARE**2 / SEEDS) * (np.eye(len(carried)) + carried)
    found = {}
    for name in MARGIN_FORMS:
        try:
            fit = fit_form(name, rest, FEATURE_DIM)
        except FitRefused:
            found[name] = float("nan")
            continue
        missed = np.log(fit.predict(np.exp(held.log_predictors[:, 0]))) - held.log_measure
        found[name] = float(np.sqrt(missed @ np.linalg.solve(spread, missed)))
    return found


def print_choices(studies: int, num_cells: int, noise: float) -> None:
    """The table of forms chosen by held-out error, a row for each law, beside the forms that cannot be told from it."""
    print(
        f"| law ({num_cells} cells, noise {noise:g}) | {' | '.join(MARGIN_FORMS)} | cannot be told from it | right or alike |"
    )
    print("|---" * (len(MARGIN_FORMS) + 3) + "|")
    for form in MARGIN_FORMS:
        rates = choices(form, num_cells, studies, noise=noise)
        alike = [n for n, far in distances(form, num_cells, noise=noise).items() if n != form and far < DISTINCT]
        right = rates[form] + sum(rates[name] for name in alike)
        shares = " | ".join(f"{rates[name]:.2f}" for name in MARGIN_FORMS)
        print(f"| {form} | {shares} | {', '.join(alike) or 'none'} | {right:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--form", choices=list(FORMS), action="append", help="only this one; repeatable")
    parser.add_argument("--outliers", type=float, default=0.03, help="share of cells that are wrong by half")
    parser.add_argument("--cells", type=int, action="append", help="only so many cells; repeatable")
    parser.add_argument("--noise", type=float, help="of the log measure of a cell; default 0.05, of choices 0.01")
    parser.add_argument("--choices", type=int, default=0, help="studies of each law to choose a form for, instead")
    options = parser.parse_args()
    if options.studies < 1 or min(options.cells or [5]) < 5:
        parser.error(
            "--studies must be at least 1 and --cells at least 5: fewer carry no interval, so there is none to test."
        )
    if options.choices:
        for num_cells in options.cells or CELL_COUNTS[1:2]:
            print_choices(options.choices, num_cells, options.noise or 0.01)
        return
    print("| form | cells | parameter | 95 % interval | 90 % prediction | median error | relative | studies |")
    print("|---|---|---|---|---|---|---|---|")
    for line in calibrations(
        options.studies,
        forms=options.form or list(FORMS),
        cell_counts=options.cells or CELL_COUNTS,
        noise=options.noise or 0.05,
        outliers=options.outliers,
    ):
        print(
            f"| {line.form} | {line.cells} | {line.parameter} | {_shown(line.covered)} | {_shown(line.predicted)} "
            f"| {_shown(line.median_error)} | {_shown(line.relative_error)} | {line.studies} |",
            flush=True,
        )


def _shown(value: float) -> str:
    return "\N{EN DASH}" if np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
