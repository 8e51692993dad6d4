"""A table is completed row by row: whole rows stay as they are, rows with an empty field are computed again."""

from types import SimpleNamespace

from gnc_models.references.tables import read_table
from tools.tabulate import Recipe, _budget, layer_rows, make_table, optimum_rows, unsettled_optima


def test_whole_rows_stay_rows_of_an_older_search_are_replaced_and_missing_ones_added(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("# made up, with a comma,, in its comment\nk,tau,value,found\n8,0.1,1,2\n9,0.10,1,\n9,0.2,1,3\n")
    recipe = Recipe("t.csv", 2, [(8, 0.1), (9, 0.1), (10, 0.1)], lambda k, tau: [[k, tau, 2 * k, 1]])
    assert make_table(recipe, tmp_path, 60.0) == 2
    assert table.read_text().splitlines()[1:] == [
        "k,tau,value,found",
        "8,0.1,1,2",
        "9,0.2,1,3",
        "9,0.1,18,1",
        "10,0.1,20,1",
    ]
    assert make_table(recipe, tmp_path, 60.0) == 0


def test_rows_searched_again_are_replaced_and_others_stay(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("k,value\n8,1\n9,2\n")
    assert make_table(Recipe("t.csv", 1, [(8,)], lambda k: [[k, 7]]), tmp_path, 60.0, again=True) == 1
    assert table.read_text().splitlines() == ["k,value", "9,2", "8,7"]


def test_an_optimum_enters_the_table_only_where_its_loss_is_lower(monkeypatch):
    stored = next(row for row in read_table("unconstrained_optima.csv") if row["num_classes"] == "24")
    size = int(stored["num_classes"]), int(stored["feature_dim"]), float(stored["temperature"])
    for factor, row in ((1.001, list(stored.values())), (0.999, None)):
        found = SimpleNamespace(loss=factor * float(stored["loss"]), margin=1, margin_low=1, margin_high=1, found=3)
        monkeypatch.setattr("tools.tabulate.optimise_unconstrained", lambda *a, found=found, **k: found)
        (got,) = optimum_rows(*size, seed=5)
        assert got == row or (row is None and float(got[3]) < float(stored["loss"]) and got[-2:] == [3, 5])
    same = SimpleNamespace(loss=float(stored["loss"]), margin=1, margin_low=1, margin_high=1, found=900)
    monkeypatch.setattr("tools.tabulate.optimise_unconstrained", lambda *a, **k: same)
    (got,) = optimum_rows(*size, seed=5)
    assert got == [*list(stored.values())[:7], 2048, 60, 900, 5]  # its numbers, and the search that found it again


def test_rows_that_few_starts_reached_and_rows_of_fewer_starts_than_today_are_searched_again():
    rows = {
        (int(r["num_classes"]), int(r["feature_dim"]), float(r["temperature"])): r
        for r in read_table("unconstrained_optima.csv")
    }
    again = unsettled_optima()
    for key, row in rows.items():
        few = int(row["starts"] or 0) < _budget(key[0])[0]
        assert (key in again) == (few or (key[0] >= 20 and int(row["found"] or 0) < 8)), key
    assert len(again) < len(rows)


def test_the_layer_of_the_schlaefli_configuration_is_the_half_five_cube(monkeypatch):
    assert layer_rows("Schlaefli") == []  # the reference holds it
    monkeypatch.setattr("tools.tabulate.reference_margin", lambda num_classes, feature_dim: SimpleNamespace(lower=0.0))
    ((dim, size, margin, method, *_),) = layer_rows("Schlaefli")
    assert (dim, size) == (5, 16)
    assert 0.8 - 1e-9 < float(margin) <= 0.8
    assert method.startswith("layer(6;27;")
