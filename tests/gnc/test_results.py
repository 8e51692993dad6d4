"""Results from Python: tables, power laws of any data frame, the report's figures in axes, and the notebook."""

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from safetensors.numpy import save

import gnc
from analysis.report.report import figure_blocks
from analysis.scaling.power_law import FitRefused
from study.design.columns import Measurement
from study.store.store import open_store
from tests.analysis.conftest import GRID, made_up_config, made_up_head, made_up_margins, made_up_rows
from tests.study.conftest import made_up_record

plt.switch_backend("agg")
ROOT = Path(__file__).parents[2]
STUDY = """name = "{}"
[fixed]
feature_dim = 3
temperature = 0.1
[grid]
num_classes = {}
seed = [0, 1]
"""
OF_SEARCHES = ("history", "parallel", "importance")
FIGURES = (
    "codes", "collapse", "margin", "phase", "variability", "classes", "ladder", "pareto", *OF_SEARCHES
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A results folder with the trials of the quickstart's grid, made up, and two of its studies."""
    store = open_store(tmp_path_factory.mktemp("results") / "r")
    names = [field.name for field in dataclasses.fields(Measurement)]
    for config in (made_up_config(*settings) for settings in GRID):
        rows = [Measurement(**{name: row.get(name) for name in names}) for row in made_up_rows(config)]
        store.write_fragment(config, rows, made_up_record())
        store.write_head(config.key, save(made_up_head(config)))
        store.write_margins(config.key, made_up_margins(config, rows[-1].margin_min_lower))
    store.write_study(STUDY.format("small", [12]))
    store.write_study(STUDY.format("large", [24, 48]))
    store.seal()
    return store.uri


@pytest.fixture(autouse=True)
def _no_open_figures():
    yield
    plt.close("all")


def test_the_tables_are_those_of_the_folder_and_open_in_every_data_frame(folder):
    results = gnc.open_results(folder)
    final, rows, trials = results.final(), results.rows(), results.trials()
    assert (final.num_rows, trials.num_rows, rows.num_rows) == (len(GRID), len(GRID), 8 * len(GRID))
    assert repr(results) == f"Results({folder!r}, {len(GRID)} trials)"
    assert final.schema.field("gnc1_rank").metadata[b"better"] == b"min"
    assert final["epoch"].unique().to_pylist() == [7]
    assert results.rows(["gnc1_rank"]).column_names == ["trial", "epoch", "gnc1_rank"]
    assert len(final.to_pandas()) == pl.from_arrow(final).height == len(GRID)


def test_a_study_is_taken_by_its_name(folder):
    sizes = {
        name: set(gnc.open_results(folder, study=name).final()["num_classes"].to_pylist())
        for name in ("small", "large")
    }
    assert sizes == {"small": {12}, "large": {24, 48}}
    with pytest.raises(ValueError, match=r"got 'smal'. Did you mean 'small'\?"):
        gnc.open_results(folder, study="smal")


def test_heads_and_margins_are_found_by_the_first_digits_of_a_key(folder):
    results, config = gnc.open_results(folder), made_up_config(*GRID[0])
    head = results.head(config.key[:8])
    for name, array in made_up_head(config).items():
        np.testing.assert_array_equal(np.stack(head[name].to_numpy()), array)
    assert results.margins(config.key)["class_index"].to_pylist() == list(range(config.num_classes))
    for key, count in (("", len(GRID)), ("x", 0)):
        with pytest.raises(ValueError, match=f"key must name one trial of .*, which names {count}"):
            results.head(key)


def test_folders_that_are_empty_absent_torn_or_of_one_trial_say_so(tmp_path):
    with pytest.raises(ValueError, match="which does not exist"):
        gnc.open_results(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    empty = gnc.open_results(tmp_path / "empty")
    assert (empty.final().num_rows, empty.rows().num_rows, empty.trials().num_rows) == (0, 0, 0)
    with pytest.raises(ValueError, match="There is none yet"):
        empty.margins("a")
    for name in FIGURES:
        with pytest.raises(ValueError, match="results must hold a complete trial to draw, got none"):
            getattr(gnc.plot, name)(empty)
    store, config = open_store(tmp_path / "one"), made_up_config(*GRID[0])
    store.write_fragment(config, [], made_up_record())
    for entries in store.fragments().values():
        (tmp_path / "one" / "rows" / entries[0].name).write_bytes(b"torn")
    with pytest.warns(UserWarning, match="cannot be read and was left out"):
        assert gnc.open_results(store.uri).trials().num_rows == 0
    names = [field.name for field in dataclasses.fields(Measurement)]
    row = {name: made_up_rows(config)[-1].get(name) for name in names}
    store.write_fragment(config, [Measurement(**row)], made_up_record())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = gnc.open_results(store.uri)
        assert one.final().num_rows == 1
    with pytest.raises(ValueError, match="kept its head"):
        one.head(config.key)
    told = []
    for name in FIGURES:  # drawn, or refused in a sentence
        try:
            told += [ax.get_title(loc="left") or ax.get_xlabel() for ax in getattr(gnc.plot, name)(one)]
        except ValueError as refusal:
            told.append(str(refusal))
    assert all(text.strip() for text in told)
    assert len(told) >= len(FIGURES)


def planted(exponent: float = -0.5) -> dict[str, np.ndarray]:
    """A law over seven sizes, with two groups and three seeds a cell."""
    chance = np.random.default_rng(0)
    sizes = np.repeat([10, 20, 40, 80, 160, 320, 640], 6)
    group = np.tile(["a", "a", "a", "b", "b", "b"], 7)
    measure = np.where(group == "a", 2.0, 5.0) * sizes**exponent * np.exp(0.01 * chance.normal(size=len(sizes)))
    return {"size": sizes, "measure": measure, "group": group, "cell": np.char.add(sizes.astype(str), group)}


@pytest.mark.parametrize("kind", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_a_power_law_is_the_same_from_every_kind_of_data(kind):
    columns = planted()
    fit = gnc.fit_power_law("measure", "size", data=kind(columns), group="group")
    bare = gnc.fit_power_law(columns["measure"], columns["size"], cell=columns["cell"], group=columns["group"])
    assert fit.exponent.name == "size"
    assert (fit.exponent.estimate, fit.exponent.low) == (bare.exponent.estimate, bare.exponent.low)
    assert fit.exponent.low < -0.5 < fit.exponent.high
    assert fit.exponent.high - fit.exponent.low < 0.05
    assert np.exp(fit.levels["b"] - fit.levels["a"]) == pytest.approx(2.5, rel=0.02)


def test_what_cannot_be_fitted_is_refused():
    columns = planted()
    with pytest.raises(FitRefused, match="at least 5 are needed") as refused:
        gnc.fit_power_law(columns["measure"][:12], columns["size"][:12])
    assert refused.value.estimate.exponent.estimate == pytest.approx(-0.5, abs=0.6)
    for call, words in (
        (lambda: gnc.fit_power_law("measure", data=columns), "column must be one of the table's, got 'num_classes'"),
        (lambda: gnc.fit_power_law("measure", "size"), "data must be given where a column is named"),
        (lambda: gnc.fit_power_law([1.0], [1.0, 2.0]), "must be as long as each other"),
        (lambda: gnc.fit_power_law([1.0, 2.0], [1.0, 2.0], cell=["a"]), "must be as long as each other, got"),
        (lambda: gnc.fit_power_law([1.0, np.nan], [1.0, 2.0]), "must be positive and finite, got nan"),
        (lambda: gnc.fit_power_law([], []), r"must be arrays \[rows\] of at least one row, got shapes \(0,\) and"),
        (lambda: gnc.fit_power_law(np.ones((2, 2)), np.ones((2, 2))), r"got shapes \(2, 2\) and \(2, 2\)"),
        (lambda: gnc.fit_power_law("a", "b", data="h.csv"), "data must be a table, .* got 'h.csv'"),
        (
            lambda: gnc.fit_power_law([1.0, 2.0, 3.0], [8.0, 8.0, 32.0], cell=["a", "b", "b"]),
            "the rows of a cell must be of one size, got 8 and 32 in cell b. Give another cell=",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_every_figure_of_the_report_can_be_drawn_and_no_label_is_blank(folder):
    """`contrast` stands for the figures of single settings."""
    results = gnc.open_results(folder)
    drawn = {name: getattr(gnc.plot, name)(results) for name in FIGURES if name not in OF_SEARCHES}
    drawn["contrast"] = gnc.plot.contrast(results, "temperature")
    for name, axes in drawn.items():
        assert axes, name
        for ax in axes:
            assert ax.get_title(loc="left") or ax.get_xlabel(), name
            texts = [text.get_text() for text in ax.texts]
            assert all(text.strip() for text in texts), name
    for name in OF_SEARCHES:
        with pytest.raises(ValueError, match=r"^No (trial|group) of the search"):
            getattr(gnc.plot, name)(results)
    source = Path(figure_blocks.__code__.co_filename).read_text().split("def figure_blocks")[1]
    assert {name for name in (*FIGURES, "contrast") if f"block_{name}" in source} == {*FIGURES, "contrast"}
    assert source.count("block_") == len(FIGURES) + 1  # a new figure of the report needs its function


def test_figures_can_be_drawn_into_axes_of_ones_own(folder):
    results = gnc.open_results(folder)
    figure, ax = plt.subplots()
    assert gnc.plot.margin(results, where="feature_dim == 10", ax=ax) == [ax]
    assert "d = 10" in ax.get_title(loc="left")
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="ax must be axes for each of 3 panels, got 1"):
        gnc.plot.margin(results, ax=ax)
    with pytest.raises(ValueError, match="where must select at least one of"):
        gnc.plot.margin(results, where="feature_dim == 11")
    with pytest.raises(ValueError, match="Did you mean 'temperature'"):
        gnc.plot.contrast(results, "temperatur")
    assert gnc.plot.margin(str(folder), where="feature_dim == 10", ax=ax) == [ax]
    with pytest.raises(ValueError, match=r"^where must use known names only, got 'feature_din'"):
        gnc.plot.margin(folder, where="feature_din == 3")


def test_the_notebook_runs_and_uses_gnc_alone(folder, monkeypatch, capsys):
    monkeypatch.setenv("GNC_RESULTS", folder)
    notebook = json.loads((ROOT / "docs" / "notebook" / "results_to_figure.ipynb").read_text())
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert {line.split()[1] for line in code.splitlines() if line.startswith(("import ", "from "))} == {"gnc", "os"}
    exec(compile(code, "notebook", "exec"), {})  # noqa: S102 - the project's own
    assert f"{len(GRID)} trials are complete" in capsys.readouterr().out


def test_opening_results_loads_neither_torch_nor_ray(folder):
    code = (
        "import gnc, sys; gnc.open_results(sys.argv[1]).final(); gnc.fit_power_law; "
        "assert not {'torch', 'ray', 'optuna', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True)
