"""`gnc report` on a large study: made-up tables under the real schemas, sealed, then the real command, timed.

    python -m benchmarks.report                      # 10,000 trials of 100 measured epochs: a million rows
    python -m benchmarks.report --trials 100000 --epochs 10      # as many rows of a study of many settings and seeds
    python -m benchmarks.report --trials 100000 --epochs 10 --sizes 400

Prints seconds and peak memory of the command. Rows are formulas with noise, never results.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gnc_models.references import margin as bounds
from study.design.config import TrialConfig
from study.store.schemas import RESULTS_SCHEMA, TRIALS_SCHEMA, to_parquet

DIMS, TEMPERATURES, SEEDS = (3, 4, 5, 8, 10), (0.05, 0.1, 0.2, 0.3, 1.0), 10
# Beyond so many trials a study has more settings and seeds, and no more class counts than somebody would train.
FEW_TRIALS, MANY_SIZES = 10_000, 20
MANY_TEMPERATURES, LEARNING_RATES = (0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 1.0), (0.003, 0.01, 0.03, 0.1, 0.3)
TRIALS_AT_ONCE = 500


def configs(count: int, sizes: int | None = None) -> list[TrialConfig]:
    """Distinct settings: dimensions, temperatures, learning rates of many trials, seeds, and class counts.

    sizes: class counts; None: as many as few trials take, and MANY_SIZES of many.
    """
    if count > FEW_TRIALS and sizes is None:
        classes = [round(k) for k in np.geomspace(12, 1200, MANY_SIZES)]
        cells = list(product(classes, DIMS, MANY_TEMPERATURES, LEARNING_RATES))
        grid: list[tuple[Any, ...]] = [(*cell, seed) for seed in range(-(-count // len(cells))) for cell in cells]
        names = ["num_classes", "feature_dim", "temperature", "learning_rate", "seed"]
    else:
        sizes = sizes or -(-count // (len(DIMS) * len(TEMPERATURES) * SEEDS))
        classes = sorted({round(k) for k in np.geomspace(12, 1200, sizes)})
        grid = list(product(classes, DIMS, TEMPERATURES, range(SEEDS)))
        names = ["num_classes", "feature_dim", "temperature", "seed"]
    return [TrialConfig(**dict(zip(names, values, strict=True))) for values in grid[:count]]


def rows_of(config: TrialConfig, epochs: int) -> dict[str, object]:
    """Columns of one trial: every float column filled, the ones that are fitted by laws with noise."""
    k, d, tau = config.num_classes, config.feature_dim, float(config.temperature or 1)
    chance = np.random.default_rng(int(config.key[:8], 16))
    best = bounds.reference_margin(k, d)
    step = np.linspace(0, 3000, epochs)
    spread = 2 * (1 + step) ** -0.7 * (k / 12) ** 0.3 * (1 + tau) * np.exp(0.1 * chance.normal(size=epochs))
    margin = best.lower * np.minimum(0.2 + 0.7 * (step / 3000) ** 0.3, 1) * np.exp(0.02 * chance.normal())
    floats = [f.name for f in RESULTS_SCHEMA if pa.types.is_floating(f.type)]
    made: dict[str, object] = {name: chance.random(epochs) for name in floats}
    made |= dict.fromkeys(config.settings(), None)
    made |= {name: np.full(epochs, value) for name, value in config.settings().items() if value is not None}
    made |= {"trial": np.full(epochs, config.key), "cell": np.full(epochs, config.cell)}
    made |= {"epoch": np.arange(epochs), "step": step.astype(int), "terminal": step > 900}
    made |= {"gnc1_rank": spread, "trace_within": spread / 2, "cdnv_nearest": 3 * spread, "gnc3_uncentred": spread / 20}
    made |= {
        "margin_min_lower": margin,
        "margin_min_upper": margin * (1 + 1e-6),
        "peak_memory_bytes": np.full(epochs, 10**8),
    }
    made |= {
        "reference_margin_lower": np.full(epochs, best.lower),
        "reference_margin_upper": np.full(epochs, best.upper),
    }
    made |= {"reference_source": np.full(epochs, str(best.source)), "mean_direction_margin_min": 0.9 * margin}
    made |= {"reference_version": np.full(epochs, bounds.REFERENCE_VERSION), "sample_margin_min": 0.8 * margin}
    return made


def table_of(trials: list[TrialConfig], epochs: int) -> pa.Table:
    """The rows of several trials under RESULTS_SCHEMA."""
    made = [rows_of(config, epochs) for config in trials]
    columns = []
    for field in RESULTS_SCHEMA:
        parts = [m.get(field.name) for m in made]
        arrays = [pa.nulls(epochs, field.type) if p is None else pa.array(p, field.type) for p in parts]  # type: ignore[arg-type]
        columns.append(pa.chunked_array(arrays, field.type))
    return pa.Table.from_arrays(columns, schema=RESULTS_SCHEMA)


def write_tables(folder: Path, trials: list[TrialConfig], epochs: int) -> None:
    """results.parquet and trials.parquet as a compacted folder holds them, written in pieces."""
    trials = sorted(trials, key=lambda config: config.key)
    with pq.ParquetWriter(folder / "results.parquet", RESULTS_SCHEMA, compression="zstd") as writer:
        for start in range(0, len(trials), TRIALS_AT_ONCE):
            writer.write_table(table_of(trials[start : start + TRIALS_AT_ONCE], epochs).combine_chunks())
    ended = {"state": "complete", "attempts": 1, "resumed": False, "reached_terminal": True, "seconds": 9.0}
    ended |= {
        "host": "made-up",
        "cpu_model": "made-up",
        "versions": '{"torch": "made-up"}',
        "dataset_digest": "made-up",
    }
    rows = [{"trial": c.key, "cell": c.cell, **c.settings(), **ended} for c in trials]
    table = pa.Table.from_pylist(rows, schema=TRIALS_SCHEMA)
    (folder / "trials.parquet").write_bytes(to_parquet(table))
    (folder / "compacted").write_bytes(b"")


def main() -> None:
    """Make the tables, run the command, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--sizes", type=int, help="class counts; default: as many as the trials take, 20 of many trials"
    )
    parser.add_argument("--folder", help="keep the tables here, and use those that are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "trials.parquet").exists():
            write_tables(folder, configs(options.trials, options.sizes), options.epochs)
        rows = pq.ParquetFile(folder / "results.parquet").metadata.num_rows
        size = (folder / "results.parquet").stat().st_size / 2**20
        started = time.perf_counter()
        command = [sys.executable, "-m", "gnc.cli.main", "report", str(folder)]
        done = subprocess.run(command, check=False, env=os.environ)
        seconds = time.perf_counter() - started
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{rows} rows ({size:.0f} MiB on disk): {seconds:.1f} s, of them {spent.ru_utime + spent.ru_stime:.1f} s of CPU; "
            f"peak {spent.ru_maxrss / 2**20:.2f} GiB; exit {done.returncode}"
        )


if __name__ == "__main__":
    main()
