"""Figures through their numbers; drawing is checked to use them and to fit the page."""

import re
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects.contrast import contrasts
from analysis.figures.classes import block_classes, numbers_classes, numbers_ladder
from analysis.figures.codes import block_codes, choose_trials, hull_edges, numbers_codes
from analysis.figures.collapse import block_collapse, block_variability, numbers_collapse, numbers_variability
from analysis.figures.contrast import block_contrast, draw_contrast
from analysis.figures.margin import block_margin, numbers_margin
from analysis.figures.panels import Panel, render, render_panel, side_by_side, svg_file
from analysis.figures.style import RAMP, label_positions, name_marks, ramp, spread_ticks
from analysis.report.writers import inline_svg
from analysis.rows import theory
from analysis.rows.frames import final_rows, is_usual, load_study
from analysis.rows.wording import number, power_of_ten
from analysis.scaling.form_choice import compare_all
from gnc_models.references import margin as bounds


@pytest.fixture(scope="module")
def frame(full_store):
    return load_study(full_store)


def test_margin_series_hold_the_rows_and_the_curves_the_bounds(frame):
    numbers = numbers_margin(frame.final, 3)
    assert [s.temperature for s in numbers.series] == [0.05, 0.1, 0.3, 1.0]
    cold = numbers.series[1]
    rows = [r for r in frame.final.to_pylist() if r["trial"] in cold.trials]
    assert len(rows) == 6
    assert all((r["feature_dim"], r["temperature"], r["normalization"]) == (3, 0.1, "both") for r in rows)
    assert sorted(cold.margin) == pytest.approx(sorted(r["margin_min_lower"] for r in rows))
    assert cold.sizes.tolist() == [12, 24, 48]
    at = numbers.curves.num_classes.tolist().index(24)
    assert numbers.curves.best_known[at] == bounds.reference_margin(24, 3).lower
    assert numbers.curves.upper_bound[at] == bounds.reference_margin(24, 3).upper
    assert numbers.pooled == ()


def test_collapse_leaves_the_untrained_network_out_and_marks_the_usual_trials(frame):
    numbers = numbers_collapse(frame.rows, frame.final, "gnc1_rank", 3)
    assert len(numbers.courses) == 17
    assert all((c.step > 0).all() and (np.diff(c.step) > 0).all() for c in numbers.courses)
    assert sum(c.usual for c in numbers.courses) == 6
    assert numbers.hidden == 0


def test_variability_is_shown_by_dimension_and_by_class_count(frame):
    numbers = numbers_variability(frame.final, "gnc1_rank", "num_classes", "feature_dim")
    assert [(s.value, sorted(set(s.x))) for s in numbers.series] == [
        (2, [8, 12]),
        (3, [12, 24, 48]),
        (10, [50, 100, 200]),
    ]
    assert all(s.terminal.all() for s in numbers.series)


def test_the_drawn_codes_are_the_best_of_each_size_then_of_each_temperature(frame):
    chosen = [(r["feature_dim"], r["num_classes"], r["temperature"]) for r in choose_trials(frame.final)]
    assert chosen[:2] == [(2, 8, 0.1), (2, 12, 0.1)]
    assert chosen[2:6] == [(3, 12, t) for t in (1.0, 0.3, 0.1, 0.05)]
    assert [size[:2] for size in chosen[6:]] == [(3, 24), (3, 48)]


def test_a_learned_code_is_laid_over_the_optimum(frame, full_store):
    picture = numbers_codes(frame.final, full_store.read_head)[0]
    assert (picture.feature_dim, picture.num_classes) == (2, 8)
    assert np.degrees(picture.angle) < 3
    distances = np.linalg.norm(picture.rows[:, None] - picture.optimum[None], axis=2).min(axis=1)
    assert distances.max() < 0.1
    assert np.allclose(np.linalg.norm(picture.rows, axis=1), 1)


def test_hull_edges_leave_out_diagonals():
    cube = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.sqrt(3)
    assert len(hull_edges(cube)) == 12
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    assert len(hull_edges(octahedron)) == 12
    assert hull_edges(octahedron[:3]) == []


def test_class_margins_are_sorted(frame, full_store):
    for curve in numbers_classes(frame.final, full_store.read_margins, 3).curves:
        assert (np.diff(curve.margin) >= 0).all()


def test_the_ladder_goes_down(frame):
    numbers = numbers_ladder(frame.final)
    assert numbers.labels[:3] == ("d = 2, K = 8", "d = 2, K = 12", "d = 3, K = 12")
    assert (np.diff(numbers.rungs, axis=1) <= 0).all()


def test_ids_of_two_panels_never_collide_and_the_same_panel_gives_the_same_bytes(frame):
    drawn = render(block_margin(frame.final))
    ids = [re.findall(r'\bid="([^"]+)"', inline_svg(d)) for d in drawn]
    assert len(drawn) == 3
    assert all(ids)
    assert len(set().union(*ids)) == sum(map(len, ids))
    assert [d.body for d in drawn] == [d.body for d in render(block_margin(frame.final))]


def test_inline_svg_refers_to_ids_it_has_and_to_nothing_outside(frame):
    for drawn in render(block_collapse(frame.rows, frame.final)):
        markup = inline_svg(drawn)
        assert "http" not in markup
        assert "<style" not in markup
        ids = set(re.findall(r'\bid="([^"]+)"', markup))
        assert set(re.findall(r'href="#([^"]+)"', markup)) <= ids
        assert set(re.findall(r"url\(#([^)]+)\)", markup)) <= ids
        assert not re.search(r"<svg[^>]*\s(width|height)=", markup)
        assert "nan" not in re.sub(r'aria-label="[^"]*"', "", markup).lower()


def test_every_figure_is_a_well_formed_svg_file(frame, full_store):
    blocks = [
        block_codes(frame.final, full_store.read_head),
        block_collapse(frame.rows, frame.final),
        block_margin(frame.final),
        block_variability(frame.final),
        block_contrast(contrasts(frame.final, "temperature", ["margin_min_lower", "gnc1_rank"])),
        block_classes(frame.final, full_store.read_margins),
    ]
    for block in blocks:
        root = ElementTree.fromstring(svg_file(render(block), block.columns))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        assert width > 250
        assert height > 200


def test_alt_text_is_escaped():
    drawn = render_panel(Panel('1 < 2 & "quoted"', lambda ax: ax.plot([0, 1])), "p")
    assert 'aria-label="1 &lt; 2 &amp; &quot;quoted&quot;"' in inline_svg(drawn)


def test_theory_curves_are_sorted_and_ordered():
    curves = theory.margin_curves([24, 8, 24, 12], 3)
    assert curves.num_classes.tolist() == [8, 12, 24]
    assert (curves.best_known <= curves.upper_bound).all()
    assert theory.sizes_between([5]) == [5]
    between = theory.sizes_between([10, 1000])
    assert (between[0], between[-1]) == (10, 1000)
    assert len(between) <= 24


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.5513, "0.551"),
        (-0.9712, "\N{MINUS SIGN}0.971"),
        (12345.0, "12345"),
        (1.234e-7, "1.23\N{MULTIPLICATION SIGN}10⁻⁷"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


def test_an_absent_number_is_a_dash_and_powers_are_plain_characters():
    assert number(float("nan")) == "\N{EN DASH}"
    assert power_of_ten(-3) == "10⁻³"


def test_ramp_keeps_its_order():
    assert ramp(6) == list(RAMP)
    assert ramp(2) == [RAMP[0], RAMP[-1]]
    assert len(ramp(9)) == 9


def test_ticks_and_labels_keep_their_distance():
    assert spread_ticks([48, 50, 100, 8, 12]) == [8, 12, 48, 100]
    assert spread_ticks([1000, 1400, 2000, 2800, 4000, 5600, 10000]) == [1000, 2000, 4000, 10000]
    moved = label_positions([1.0, 2.0, 2.5, 50.0], 13.0)
    assert (np.diff(moved) > 13 - 1e-3).all()
    assert moved[-1] == 50.0
    raised = label_positions([-20.0, 0.0], 13.0, 5.0)
    assert raised[0] == pytest.approx(5.0)
    assert raised[1] == pytest.approx(18.0)


def test_a_study_without_planar_codes_says_so(make_store):
    store = make_store([(10, 50, 0.1, "both", 0)])
    block = block_codes(final_rows(store), store.read_head)
    assert block.panels == ()
    assert block.missing == "No complete trial has feature_dim 2 or 3, the dimensions whose codes can be drawn."
    store = make_store([(3, 12, 0.1, "both", 0)])
    store.heads = {}
    assert "kept no head" in block_codes(final_rows(store), store.read_head).missing


def test_a_large_series_is_thinned_but_its_median_is_not(make_store):
    final = final_rows(make_store([(3, 12, 0.1, "both", s) for s in range(230)]))
    (series,) = numbers_margin(final, 3).series
    assert len(series.margin) == 200
    assert series.median[0] == np.median(final["margin_min_lower"].to_numpy())
    assert "At most 200 dots" in block_margin(final).caption
    (series,) = numbers_variability(final, "gnc1_rank", "num_classes", "feature_dim").series
    assert len(series.y) == 200
    assert series.medians[0] == np.median(final["gnc1_rank"].to_numpy())


def test_the_margin_figure_bands_each_series_by_the_form_that_was_chosen(make_store):
    final = final_rows(
        make_store([(3, k, t, "both", s) for k in (12, 16, 24, 32, 48) for t in (0.1, 0.3) for s in (0, 1)])
    )
    comparisons = compare_all(final)
    chosen = next(c for c in comparisons if c.measure == "margin_min_lower")
    numbers = numbers_margin(final, 3, comparisons)
    assert [s.temperature for s in numbers.series] == [0.1, 0.3]
    for series in numbers.series:
        group = f"temperature = {series.temperature}"
        assert series.fit.form == chosen.chosen
        assert (series.fit.num_classes[0], series.fit.num_classes[-1]) == pytest.approx((12, 48))
        curves = [fit.predict(series.fit.num_classes, group) for fit, _ in chosen.weighted]
        assert (np.min(curves, axis=0) <= series.fit.curve).all()
        assert (series.fit.curve <= np.max(curves, axis=0)).all()
        assert (series.fit.low < series.fit.curve).all()
        assert (series.fit.curve < series.fit.high).all()
    assert f"(the best by itself: {chosen.chosen} at d = 3)" in block_margin(final, comparisons).caption
    assert all(s.fit is None for s in numbers_margin(final, 3).series)


def test_series_whose_exponents_differ_are_banded_by_forms_of_their_own(make_store):
    final = final_rows(
        make_store([(3, k, t, "both", s) for k in (12, 16, 24, 32, 48, 64) for t in (0.1, 0.3) for s in (0, 1)])
    )
    exponent = np.where(np.array(final["temperature"].to_pylist()) == 0.1, -1.0, -0.3)
    margin = np.array(final["num_classes"].to_pylist(), dtype=float) ** exponent
    for name, factor in (("margin_min_lower", 1.0), ("margin_min_upper", 1 + 1e-6)):
        index = final.schema.get_field_index(name)
        final = final.set_column(index, final.schema.field(index), pa.array(margin * factor))
    comparisons = compare_all(final)
    assert next(c for c in comparisons if c.measure == "margin_min_lower").series
    for series, exponent in zip(numbers_margin(final, 3, comparisons).series, (-1.0, -0.3), strict=True):
        assert series.fit.curve == pytest.approx(series.fit.num_classes**exponent, rel=1e-3)


def test_temperatures_chosen_by_the_number_of_classes_are_one_series_and_all_usual(make_store):
    temperatures = {12: 0.03, 16: 0.02, 24: 0.015, 32: 0.01, 48: 0.007, 64: 0.005, 96: 0.003}
    final = final_rows(make_store([(3, k, t, "both", s) for k, t in temperatures.items() for s in (0, 1)]))
    (series,) = numbers_margin(final, 3, compare_all(final)).series
    assert series.temperature is None
    assert series.sizes.tolist() == list(temperatures)
    assert series.fit is not None
    assert is_usual(final).all()
    one_more = final_rows(make_store([(3, k, t, "both", 0) for k, t in [*temperatures.items(), (12, 0.1)]]))
    assert len(numbers_margin(one_more, 3).series) > 1


def test_every_dot_names_its_trial_and_a_columns_name_stands_small_beside_its_words(frame):
    block = block_margin(frame.final)
    bodies = [drawn.body for drawn in render(block)]
    titles = re.findall(r"<title>([^<]*)</title>", "".join(bodies))
    assert sorted(title.split(":")[0] for title in titles) == sorted(block.trials)
    assert all("K = " in title and "d = " in title for title in titles)
    assert all("minimum margin<tspan" in body and "> margin_min_lower</tspan>" in body for body in bodies)
    rows = {row["trial"]: row for row in frame.final.to_pylist()}
    key, said = next(title.split(": ") for title in titles if "K = 48" in title)
    assert rows[key]["num_classes"] == 48
    assert f"τ = {rows[key]['temperature']:g}" in said


def test_a_title_with_marks_of_markup_is_escaped_and_one_title_holds_for_all_marks():
    def draw(ax):
        (several,) = ax.plot([0, 1], [0, 1], "o")
        name_marks(several, ["<a> & b", "c"])
        (one,) = ax.plot([0, 1, 2], [1, 0, 1], "o")
        name_marks(one, ["all"])
        (none,) = ax.plot([], [], "o")
        name_marks(none, [])

    body = render_panel(Panel("", draw), "p").body
    assert re.findall(r"<title>([^<]*)</title>", body) == ["&lt;a&gt; &amp; b", "c", "all"]
    assert "titles:" not in body
    assert len(ElementTree.fromstring(svg_file([render_panel(Panel("", draw), "p")], 1)).findall(".//{*}title")) == 3


def test_a_margin_figure_says_which_trials_it_leaves_out(make_store):
    temperatures = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    final = final_rows(make_store([(3, 12, t, "both", 0) for t in temperatures] + [(3, 12, None, "none", 0)]))
    block = block_margin(final)
    told = "5 of 8 complete trials drawn: 5 of 7 temperatures at d = 3, normalization both."
    assert told in block.caption
    assert block.lead_note == told
    assert block_margin(final_rows(make_store([(3, 12, 0.1, "both", 0)]))).lead_note == ""


def test_missing_rings_and_bars_name_the_command_that_fills_them(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 13)])
    final = final_rows(store)
    caption = block_codes(final, store.read_head, folder="results/x").caption
    assert "No rings at d = 3, K = 13" in caption
    assert "gnc code --classes 13 --dim 3 --output results/x/report/code-13-3.npy" in caption
    closed = make_store([(3, k, 0.1, "both", 0) for k in (5, 6)])  # in closed form
    caption = block_codes(final_rows(closed), closed.read_head).caption
    assert "No rings" not in caption
    assert "At d = 3, K = 5 other codes are as good as the one in rings." in caption
    found = block_codes(final, store.read_head, lambda k, d: np.eye(k, d) + 1e-3)
    assert "No rings" not in found.caption
    assert "no bar" not in block_margin(final).caption
    place = final.schema.get_field_index("ufm_margin_low")
    bare = final.set_column(place, final.schema.field(place), pa.nulls(final.num_rows, pa.float64()))
    caption = block_margin(bare, folder="results/x").caption
    assert "Without a bar: 2 cells" in caption
    assert "gnc code --classes 12 --dim 3 --temperature 0.1 --results results/x computes" in caption


def test_the_axis_of_a_share_ends_at_one(frame):
    (accuracy,) = contrasts(frame.final, "temperature", ["test_accuracy"])
    figure = side_by_side([Panel("", lambda ax: draw_contrast(ax, accuracy))], 1)
    assert figure.axes[0].get_ylim()[1] == 1.0
    (margin,) = contrasts(frame.final, "temperature", ["margin_min_lower"])
    figure = side_by_side([Panel("", lambda ax: draw_contrast(ax, margin))], 1)
    assert figure.axes[0].get_ylim()[1] != 1.0
