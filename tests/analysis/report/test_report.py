"""The report: complete for a full study, a clear sentence where something is missing, and never a traceback."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files

import pyarrow as pa
import pytest

from analysis.report.page import Details, Heading, Link, Long, Number, Page, Paragraph, Preformatted, Section, Table
from analysis.report.report import NothingToReport, write_report
from analysis.report.trial_tables import trials_table
from analysis.report.writers import parts_to_markdown, to_html, to_markdown
from analysis.rows.frames import load_study

pytestmark = pytest.mark.xdist_group("report")  # its fixtures take longer than its tests: built in one process

VOID = {"meta", "br", "path", "use", "rect", "circle", "line"}


class Parsed(HTMLParser):
    """Collects text, links, ids and tags, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        self.ids += [given["id"]] if given.get("id") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style",):
            self.text.append(data)


def parsed(store) -> Parsed:
    page = Parsed()
    page.feed(store.written["report.html"].decode())
    page.close()
    assert page.open == []
    return page


def check_page(store) -> str:
    """What must hold for every report; its text."""
    page = parsed(store)
    outside = [link for link in page.links if not link.startswith("#")]
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("script") == 1  # its own, which fetches nothing
    assert not [link for link in page.links if link.endswith(".js")]
    markup = store.written["report.html"].decode()
    assert not re.search(r"<(h\d|th|td|text|title|figcaption|summary|li|a)\b[^>]*>\s*</\1>", markup), "a blank label"
    text = " ".join(page.text)
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text), re.search(r".{40}\b(nan|NaN|None|inf)\b.{40}", text)
    assert "Traceback" not in text
    json.loads(store.written["fits.json"])
    return text


@pytest.fixture(scope="module")
def full(full_store):
    full_store.written.clear()
    return full_store, write_report(full_store, keys=full_store.trials["trial"].to_pylist())


def test_a_full_study_has_every_figure_in_the_page_and_as_a_file(full):
    store, summary = full
    text = check_page(store)
    names = ["codes", "collapse", "margin", "phase", "variability", "effect-temperature"]
    names += ["effect-normalization", "classes", "ladder", "pareto"]
    assert "there are 2 at d = 2, 3 at d = 3 and 3 at d = 10" in summary.answer
    assert "An interval needs two more class counts." in text
    assert list(summary.figures) == names
    assert {f"figures/{n}.svg" for n in names} | {"fits.json", "report.html"} == set(store.written)
    page = store.written["report.html"].decode()
    places = [page.index(f'<div id="{n}">') for n in (*names, "fits", "prediction", "trials", "provenance")]
    assert places == sorted(places)
    assert page.count('role="img"') == page.count("<svg") >= 25
    assert all(paragraph in text for paragraph in summary.answer.splitlines())
    assert (summary.trials, summary.complete) == (31, 28)


def test_the_answer_takes_its_exponent_from_the_fit(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 17, 24, 34, 48)])
    summary = write_report(store)
    trends = json.loads(store.written["fits.json"])["trends"]
    (margin,) = [t for t in trends if t["measure"] == "margin_min_lower"]
    exponent = margin["fit"]["exponents"][0]
    quoted = re.search(r"K to the power −([\d.]+) \(95 % interval", summary.answer)  # noqa: RUF001
    assert float(quoted[1]) == pytest.approx(-exponent["estimate"], abs=6e-4)
    assert exponent["low"] < exponent["estimate"] < exponent["high"]
    assert "5 class counts from 12 to 48, one seed each" in check_page(store)


def test_a_setting_of_too_many_values_to_compare_is_named(make_store):
    store = make_store([(3, 12, 0.05 * 1.1**i, "both", seed) for i in range(13) for seed in (0, 1)])
    summary = write_report(store)
    assert not [name for name in summary.figures if name.startswith("effect")]
    text = check_page(store)
    assert "Not compared: temperature (13 values). At most 8 settings of at most 12 values are compared here" in text
    assert "No setting but the sizes takes two values" not in text


def test_the_header_counts_the_trials_that_came_to_rest(make_store):
    store = make_store([(3, 12, 0.1, "both", seed) for seed in range(4)])
    assert "rest" not in write_report(store).studied
    place = store.results.schema.get_field_index("stationary")
    at_rest = pa.array([trial != store.results["trial"][0].as_py() for trial in store.results["trial"].to_pylist()])
    store.results = store.results.set_column(place, store.results.schema.field(place), at_rest)
    assert "3 of 4 trials that were to train until they rest came to rest." in write_report(store).studied


def test_what_comes_from_data_is_escaped(full):
    store, _ = full
    page = store.written["report.html"].decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; more" in page
    assert "made up &lt;for tests&gt;" in page


def test_trials_that_are_not_complete_are_listed_with_their_reasons(full):
    text = check_page(full[0])
    assert "3 of 31 trials not complete" in text
    assert "train_loss is not finite at step 40" in text
    assert "no reason was recorded" in text


def test_two_reports_of_the_same_rows_are_the_same_bytes(make_store):
    grid = [(3, k, 0.1, "both", 0) for k in (12, 24)]
    first, second = make_store(grid), make_store(grid)
    write_report(first)
    write_report(second)
    assert first.written == second.written


def test_the_same_report_as_markdown(make_store):
    store = make_store(
        [(3, k, 0.1, "both", 0) for k in (12, 24)], broken=[((3, 96, 0.1, "both", 0), "failed", "a $x$ | b")]
    )
    summary = write_report(store, page_format="md")
    text = store.written["report.md"].decode()
    assert text.startswith("Generalized neural collapse, a scaling study\n\n# made up <for tests>")
    assert all(paragraph in text for paragraph in summary.answer.splitlines())
    assert "![margin](figures/margin.svg)" in text
    assert "a $x$ \\| b" in text
    assert "<" not in text.replace("<for tests>", "").split("```")[0]


ODD = Page(
    "<title>",
    [Heading("A & B", 1), Paragraph("1 < 2", "warning")],
    [
        Section(
            "part",
            "A part",
            [
                Table(
                    "numbers",
                    ("name", "n"),
                    [["x | y", Number("1")], [Link("key", "row-2"), Number("2")]],
                    ["row-1", "row-2"],
                ),
                Details("more", [Preformatted("a\n  b\n"), Table("prose", ("text",), [[Long("two\nlines")]])]),
            ],
        )
    ],
    Paragraph(["see ", Link("paper", "https://arxiv.org/abs/1"), "."]),
)


def test_html_escapes_text_anchors_rows_and_aligns_columns_of_numbers():
    page = to_html(ODD)
    assert "<title>&lt;title&gt;</title>" in page
    assert '<h1>A &amp; B</h1>\n<p class="note warn">1 &lt; 2</p>' in page
    assert '<tr id="row-1"><td>x | y</td><td class="number">1</td></tr>' in page
    assert '<td><a class="key" href="#row-2">key</a></td>' in page
    assert '<th scope="col">name</th><th scope="col" class="number">n</th>' in page
    assert '<a href="https://arxiv.org/abs/1">paper</a>' in page


def test_markdown_keeps_lines_of_code_and_bars_inside_cells():
    text = to_markdown(ODD)
    assert text.startswith("# A & B\n\n> 1 < 2\n\n## A part\n\n| name | n |\n|---|---|\n| x \\| y | 1 |\n| key | 2 |")
    assert "**more**\n\n```\na\n  b\n```\n\n| text |" in text
    assert "| two lines |" in text
    assert text.endswith("see [paper](https://arxiv.org/abs/1).\n")
    assert parts_to_markdown([Heading("t")]) == "### t\n"


def test_what_the_tables_show_is_written_to_fits_json_under_its_schema(full):
    jsonschema = pytest.importorskip("jsonschema")
    store, _ = full
    fits = json.loads(store.written["fits.json"])
    jsonschema.validate(
        fits,
        json.loads((files("analysis.report") / "fits.schema.json").read_text()),
        cls=jsonschema.Draft202012Validator,
    )
    assert {c["setting"] for c in fits["contrasts"]} == {"temperature", "normalization"}
    levels = next(c["levels"] for c in fits["contrasts"] if c["setting"] == "normalization")
    assert [level["value"] for level in levels] == ["both", "features", "none"]
    assert levels[1]["difference"]["verdict"] == "no verdict: 1 of 5 seeds"
    assert {g["setting"] for g in fits["ladder"]} >= {"feature_dim", "num_classes", "temperature"}
    assert [e["measure"] for e in fits["explained"]] == ["margin_min_lower", "gnc1_rank", "gnc3_uncentred"]


@pytest.mark.parametrize("margin", [float("nan"), None])
def test_a_class_count_without_a_number_for_its_margin_is_no_reason_for_no_report(margin, make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 17, 24, 34, 48, 68)])
    for at in (24, None):  # at one class count, then at all
        rows = store.results.to_pylist()
        for row in rows:
            if at in (None, row["num_classes"]):
                row |= {"margin_min_lower": margin, "margin_min_upper": margin}
        store.results = pa.Table.from_pylist(rows, schema=store.results.schema)
        write_report(store)
    assert "complete trial has measured its minimum margin" in check_page(store)


def test_trials_that_are_not_done_are_told_from_class_counts_that_are_lacking(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 17, 24, 34, 48, 68)])
    rows = [row | {"terminal": False} for row in store.results.to_pylist()]
    store.results = pa.Table.from_pylist(rows, schema=store.results.schema)
    write_report(store)
    assert "class counts with a margin above 0 at 99 % training accuracy" in check_page(store)


def test_one_trial_gives_a_report_that_claims_no_trend(make_store):
    store = make_store([(3, 12, 0.1, "both", 0)])
    summary = write_report(store)
    text = check_page(store)
    assert "No trend in the number of classes can be told" in summary.answer
    assert "No setting but the sizes takes two values" in text
    assert "No power law can be claimed" in text
    assert summary.fits == 0


def test_one_class_count_says_that_no_trend_can_be_seen(make_store):
    store = make_store([(d, 12, 0.1, "both", s) for d in (2, 3) for s in (0, 1, 2)])
    write_report(store)
    assert "Every series has one class count only" in check_page(store)


def test_without_a_finished_trial_nothing_is_written(make_store):
    store = make_store([])
    with pytest.raises(NothingToReport, match="No trial in results/made-up has finished yet, so no report was written"):
        write_report(store)
    store.unreadable = ["rows/0123456789abcdef.parquet"]
    with pytest.raises(NothingToReport, match=r"can be read.*1 file could not be read.*rows/0123456789abcdef"):
        write_report(store)
    store = make_store([(3, 12, 0.1, "both", 0)])
    with pytest.raises(NothingToReport, match="--all reports on 1 trial of other studies"):
        write_report(store, keys=["0123456789abcdef"])
    assert store.written == {}


def test_failed_trials_alone_are_reported_without_figures(make_store):
    broken = [((3, 12, 0.1, "both", s), "failed", "OSError: disk full") for s in (0, 1)]
    store = make_store([], broken=broken)
    summary = write_report(store)
    text = check_page(store)
    assert (summary.trials, summary.complete, summary.figures) == (2, 0, ())
    assert all(sentence.endswith(".") and sentence in text for sentence in summary.missing.values())
    assert "No trial is complete, so there is no answer yet." in text
    assert text.count("OSError: disk full") == 2


def test_unreadable_fragments_are_named(make_store):
    names = ["rows/0123456789abcdef.parquet", "rows/<odd>.parquet"]
    store = make_store([(3, 12, 0.1, "both", 0)], unreadable=names)
    summary = write_report(store)
    assert "2 files could not be read, skipped here: rows/0123456789abcdef.parquet, rows/<odd>.parquet" in check_page(
        store
    )
    assert summary.unreadable == tuple(sorted(names))


def test_mixed_versions_and_digests_are_warned_of(make_store):
    store = make_store([(3, 12, 0.1, "both", s) for s in (0, 1)])
    trials = store.trials.to_pylist()
    trials[1] |= {"versions": '{"torch": "2.7.0"}', "dataset_digest": "another"}
    store.trials = store.trials.from_pylist(trials, schema=store.trials.schema)
    summary = write_report(store)
    text = check_page(store)
    assert any("2 values of torch: 2.15.0, 2.7.0" in w for w in summary.warnings)
    assert any("gave 2 different data sets" in w for w in summary.warnings)
    assert "2 values of torch" in text


def test_more_than_two_hundred_trials_are_cut_and_said_to_be_in_the_table(make_store):
    store = make_store([(3, 12, 0.1, "both", s) for s in range(205)])
    table, listed = trials_table(load_study(store))
    told, rows = table
    assert told.text == "Final rows of 200 of the 205 complete trials; the others are in results.parquet."
    assert len(rows.rows) == len(rows.anchors) == len(listed) == 200


def test_null_measurements_are_dashes_and_missing_figures_sentences(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 24)])
    rows = store.results.to_pylist()
    for row in rows:
        row |= dict.fromkeys(("gnc1_rank", "trace_within", "cdnv_nearest", "ufm_margin_low", "reference_margin_lower"))
        row |= {"random_margin": None, "margin_ratio_upper": None, "unseen_accuracy": None}
    store.results = store.results.from_pylist(rows, schema=store.results.schema)
    store.margins, store.heads = {}, {}
    summary = write_report(store)
    check_page(store)
    assert {"codes", "variability", "classes"} <= set(summary.missing)
    assert "no best known code is tabulated to compare it with" in summary.answer


PROBE = """<script>addEventListener('load', () => {
const found = { folded: document.querySelectorAll('details.section:not([open])').length };
for (const part of document.querySelectorAll('details')) part.open = true;
const box = (part) => part.getBoundingClientRect();
const drawn = [...document.querySelectorAll('svg')];
found.figures = drawn.length;
found.bad = drawn.filter((s) => box(s).width < 100 || box(s).height < 60 || s.getBBox().width < 50).length;
found.wide = document.documentElement.scrollWidth > innerWidth;
const meets = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
found.overlaps = drawn.flatMap((s) => {
  const texts = [...s.querySelectorAll('text')];
  return texts.flatMap((a, i) => texts.slice(i + 1).filter((b) => meets(box(a), box(b)))
    .map((b) => a.textContent + ' | ' + b.textContent));
});
const results = ['verdict', 'exponent of K [95 %]', 'why refused', 'minimum margin', 'within-class variability'];
found.hidden = [...document.querySelectorAll('th')].filter((head) => results.some((name) => head.textContent.startsWith(name))
  && box(head).right > box(head.closest('.scroll')).right + 1).map((head) => head.textContent);
const table = document.querySelector('#trials .scroll:last-child table');
const [head] = [...table.tHead.rows[0].cells].filter((cell) => cell.textContent.startsWith('within-class'));
const column = () => [...table.tBodies[0].rows].map((row) => row.cells[head.cellIndex].textContent);
head.click();
found.rises = column();
head.click();
found.falls = column();
document.querySelector('#provenance').scrollIntoView();
const contents = box(document.querySelector('nav ul'));
found.contents = contents.bottom > 0 && contents.top < innerHeight;
document.title = 'found ' + JSON.stringify(found);
})</script>"""


def browse(chromium: str, folder, *flags: str) -> str:
    known = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    known += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}"]
    command = [chromium, *known, *flags, (folder / "report.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False).stdout


@pytest.fixture
def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine: the report was not opened in a browser")
    return found


@pytest.mark.chromium
@pytest.mark.parametrize("width", [390, 1200, 1440])
def test_the_report_in_a_browser_on_a_phone_and_on_laptops(full, chromium, tmp_path, width):
    markup = full[0].written["report.html"].decode()
    (tmp_path / "report.html").write_text(markup.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    dumped = browse(chromium, tmp_path, f"--window-size={width},1000", "--dump-dom")
    title = re.search(r"<title>found ([^<]*)</title>", dumped)
    assert title, dumped[:300]
    found = json.loads(html.unescape(title[1]))
    assert (found["figures"], found["bad"], found["wide"]) == (markup.count("<svg"), 0, False)
    assert found["folded"] == markup.count('<details class="section">')
    assert found["overlaps"] == []
    rising = [float(text) for text in found["rises"]]
    assert rising == sorted(rising)
    assert found["falls"] == found["rises"][::-1]
    if width >= 1200:
        assert found["hidden"] == []
    assert found["contents"] == (width >= 1280)  # the table of contents stays in view on wide screens


@pytest.mark.chromium
def test_the_printed_report_unfolds_what_the_screen_folds(full, chromium, tmp_path):
    (tmp_path / "report.html").write_bytes(full[0].written["report.html"])
    browse(chromium, tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert pages >= 6
