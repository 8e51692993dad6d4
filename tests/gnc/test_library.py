"""The library's names: what they cost to import, what goes in, and that they need four packages and no more."""

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gnc
from gnc_models.columns import PRODUCERS, choose
from study.design.columns import Measurement, columns_with

ROOT = Path(__file__).parents[2]


def run_example(name, names):
    """Run the example of docs/library.md that imports this module, with these names."""
    blocks = (ROOT / "docs" / "library.md").read_text().split("```python\n")[1:]
    (found,) = [block.split("```")[0] for block in blocks if f"from {name} import" in block]
    exec(found, names)  # noqa: S102 - the page's own


FOUR_PACKAGES = '''
import sys
from importlib.abc import MetaPathFinder

ALLOWED = {"torch", "numpy", "scipy", "safetensors", "gnc", "study", "gnc_models", "analysis"}
NEEDED_BY_TORCH = {"sympy", "mpmath", "filelock", "networkx", "jinja2", "markupsafe", "fsspec", "typing_extensions",
                   "setuptools", "triton", "nvidia", "cuda", "functorch", "torchgen"}

class OnlyThese(MetaPathFinder):
    """Finds nothing else, as if it were not installed."""
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED | NEEDED_BY_TORCH or top in sys.stdlib_module_names or top.startswith("_"):
            return self.finder.find_spec(name, path, target)
        return None

sys.meta_path[:] = [OnlyThese(finder) for finder in sys.meta_path]
import time
start = time.process_time()
import gnc
seconds = time.process_time() - start
import numpy as np
assert gnc.reference_margin(24, 3).lower > 0.27
assert 0 < gnc.random_margin(24, 3) < 0.1
assert not {"torch", "scipy", "pyarrow", "ray", "pydantic"} & set(sys.modules)
rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float16)
labels = np.arange(60) % 12
features = rows[labels] + 0.1
found = gnc.measure(features, labels, rows)
assert found["margin_min_lower"] > 0
assert gnc.margins(rows, mode="min").minimum[0] > 0
meter = gnc.CollapseMeter(12, 4)
assert meter.update(features, labels).compute(rows)["gnc3_uncentred"] == found["gnc3_uncentred"]
assert gnc.unconstrained_optimum(12, 3, temperature=0.1).loss > 0
assert gnc.best_code(5, 4).margin_lower > 1.2
import safetensors.torch
safetensors.torch.save(meter.state_dict())
assert not {"pyarrow", "ray", "optuna", "matplotlib", "pydantic", "rich"} & set(sys.modules)
print(seconds)
'''


def test_the_library_works_where_only_four_packages_are(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FOUR_PACKAGES],
        cwd=ROOT,
        env={"PATH": "", "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.2  # CPU seconds, of which the machine's load is no part


def test_every_name_is_listed_once_for_people_and_for_type_checkers():
    tree = ast.parse((ROOT / "gnc" / "__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert sorted(alias.name for line in typed.body for alias in line.names) == sorted(gnc.__all__)
    assert set(gnc.__all__) <= set(dir(gnc))
    page = (ROOT / "docs" / "library.md").read_text()
    for name in gnc.__all__:
        assert getattr(gnc, name).__doc__
        assert f"`gnc.{name}(" in page or f"`gnc.{name}." in page, name
    with pytest.raises(AttributeError, match=r"module 'gnc' has no attribute 'margin'\. It has CollapseMeter, "):
        gnc.margin  # noqa: B018


def samples(num_classes=9, feature_dim=4, each=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_classes, feature_dim, generator=generator, dtype=torch.float64)
    labels = torch.arange(num_classes * each) % num_classes
    return rows[labels] + 0.2 * torch.randn(len(labels), feature_dim, generator=generator), labels, rows


FORMS = {
    "float64": (lambda x: x, 0.0),
    "float32": (lambda x: x.float(), 1e-5),
    "float16": (lambda x: x.half(), 1e-1),
    "bfloat16": (lambda x: x.bfloat16(), 5e-1),
    "numpy": (lambda x: x.numpy(), 0.0),
    "numpy float16": (lambda x: x.numpy().astype(np.float16), 1e-1),
    "big-endian": (lambda x: x.numpy().astype(">f8"), 0.0),
    "transposed": (lambda x: np.asfortranarray(x.numpy()), 0.0),
    "with gradients": (lambda x: x.clone().requires_grad_(), 0.0),
}


def test_margins_tell_how_far_they_are_and_may_be_ended():
    rows, told = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), []

    def progress(certified, count, minimum):
        told.append((certified, count))
        return True

    ended, whole = gnc.margins(rows, progress=progress), gnc.margins(rows)
    assert told == [(0, 40)]
    assert bool((ended.lower <= whole.upper).all())
    assert bool((ended.upper >= whole.lower).all())


@pytest.mark.parametrize("form", FORMS)
def test_arrays_and_tensors_of_any_float_type_go_in(form):
    make, tolerance = FORMS[form]
    features, labels, rows = samples()
    expected = gnc.measure(features, labels, rows)
    found = gnc.measure(make(features), labels.numpy().astype(np.uint16), make(rows))
    for name in ("gnc1_quotient", "margin_min_lower", "gnc3_uncentred", "sample_margin_min"):
        assert found[name] == pytest.approx(expected[name], rel=tolerance), name
    assert gnc.margins(make(rows)).minimum[0] == pytest.approx(expected["margin_min_lower"], rel=tolerance)


def test_a_read_only_array_is_neither_copied_nor_warned_of(recwarn):
    features, labels, rows = samples()
    array = features.numpy()
    array.flags.writeable = False
    gnc.measure(array, labels, rows, columns=["variability"])
    assert not recwarn.list


def test_columns_asked_for_are_those_of_the_whole_and_no_other_is_made(monkeypatch):
    features, labels, rows = samples()
    whole = gnc.measure(features, labels, rows)
    assert set(choose(None, ())) == set(whole)
    monkeypatch.setattr("gnc_models.metrics.collapse.margins_of_directions", None)  # no column here needs margins
    groups = sorted(
        {producer.group for producer in PRODUCERS} - {"minimum", "margins", "means", "scale-free", "imbalance"}
    )
    for group in (*groups, "gnc3", "cdnv"):
        found = gnc.measure(features, labels, rows, columns=[group])
        assert found
        assert dict(found) == {name: whole[name] for name in found}


def test_the_smallest_margin_alone_lies_in_the_interval_of_all():
    features, labels, rows = samples()
    whole, found = gnc.measure(features, labels, rows), gnc.measure(features, labels, rows, columns=["minimum"])
    assert set(found) == {"margin_min_lower", "margin_min_upper"}
    assert found["margin_min_lower"] <= whole["margin_min_upper"]
    assert whole["margin_min_lower"] <= found["margin_min_upper"]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (["gnc1_rnak"], "got 'gnc1_rnak'. Did you mean 'gnc1_rank'. Groups are duality, "),
        (["variability", "nothing like it"], "columns must be names of columns or of groups, got 'nothing like it'"),
    ],
)
def test_a_wrong_column_names_its_neighbour(columns, text):
    with pytest.raises(ValueError, match=text.replace("'. G", "'\\? G")):
        gnc.measure(*samples(), columns=columns)


def test_a_column_that_was_not_measured_names_what_others_call_so():
    with pytest.raises(KeyError, match=r"got .gnc1.\. Did you mean .gnc1_rank."):
        gnc.measure(*samples())["gnc1"]


def test_rows_the_wrong_way_round_are_told_from_wrong_features():
    features, labels, rows = samples()
    with pytest.raises(ValueError, match=r"weights must be \[classes, \d+\] .* They look transposed: give weights.T"):
        gnc.measure(features, labels, rows.T)
    meter = gnc.CollapseMeter(len(rows), rows.shape[1]).update(features, labels)
    with pytest.raises(ValueError, match="They look transposed"):
        meter.compute(rows.T)


def test_every_column_has_one_definition_and_a_meaning_and_groups_need_the_same_data():
    names = [name for producer in PRODUCERS for name in producer.names]
    assert len(set(names)) == len(names)
    meant = {field.name for field in dataclasses.fields(Measurement)}
    assert set(names) <= meant
    of_rows = {name for producer in PRODUCERS if "rows" in producer.needs for name in producer.names}
    assert of_rows == set(columns_with("rows")) & set(names)
    for group in {producer.group for producer in PRODUCERS}:
        needs = [producer.needs - {"rows"} for producer in PRODUCERS if producer.group == group]
        assert all("samples" in need for need in needs) or len(set(needs)) == 1, group
    page = (ROOT / "docs" / "library.md").read_text()
    for producer in PRODUCERS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{producer.group}` |")]
        for name in producer.names:
            assert f"`{name}`" in row, name
        need = (
            "samples" if "samples" in producer.needs else "unit features" if "unit features" in producer.needs else ""
        )
        assert need in row.split("|")[3], (producer.group, need)


def test_a_bias_decides_what_the_head_answers_and_is_told_of():
    features, labels, rows = samples()
    bias = torch.zeros(9)
    assert (
        gnc.measure(features, labels, rows, bias=bias)["ncc_agreement"]
        == gnc.measure(features, labels, rows)["ncc_agreement"]
    )
    bias[2] = 1e6  # every sample is then of class 2
    found = gnc.measure(features, labels, rows, bias=bias)
    nearest = torch.cdist(features, torch.stack([features[labels == k].mean(0) for k in range(9)])).argmin(1)
    assert found["ncc_agreement"] == pytest.approx(float((nearest == 2).double().mean()))
    assert found["margin_min_lower"] == gnc.measure(features, labels, rows)["margin_min_lower"]
    assert found.notes == ["Margins are of the classifier's rows without the bias; the bias enters the logits only."]


@pytest.mark.parametrize(
    ("columns", "unread"),
    [
        (["variability"], "weights and bias and test_features and ood_features"),
        (["gnc3", "ood_deviation"], "bias and test_features"),
        (["ncc_test_accuracy", "active_classes"], "ood_features"),
        (["ncc_agreement", "samples"], None),
        (None, None),
    ],
)
def test_an_array_that_no_column_reads_is_said(columns, unread):
    features, labels, rows = samples()
    bias, more = torch.zeros(9), {"test_features": features, "test_labels": labels, "ood_features": features + 3}
    notes = gnc.measure(features, labels, rows, bias=bias, columns=columns, **more).notes
    said = [note for note in notes if note.startswith("No column here depends on")]
    assert said == ([f"No column here depends on {unread}, which changed nothing."] if unread else [])
    for name in (unread or "").split(" and ") if unread else ():  # and it is true
        changed = {"weights": rows, "bias": bias, **more}
        changed[name] = changed[name] + torch.randn(changed[name].shape)
        assert gnc.measure(features, labels, changed.pop("weights"), columns=columns, **changed) == gnc.measure(
            features, labels, rows, bias=bias, columns=columns, **more
        )


def test_a_column_whose_samples_were_not_given_is_said_to_lack_them():
    features, labels, rows = samples()
    found = gnc.measure(features, labels, rows, columns=["ncc_test_accuracy", "ood_deviation", "gnc3"])
    assert (found["ncc_test_accuracy"], found["ood_deviation"]) == (None, None)
    assert found.notes == ["Columns that need test_features or ood_features are None, since it was not given."]
    assert gnc.measure(features, labels, rows).notes == []  # of what nobody asked for by name nothing is said


def test_classes_of_one_sample_are_counted():
    features, labels, rows = samples()
    kept = torch.cat([torch.arange(9), (labels > 1).nonzero()[:, 0]]).unique()
    found = gnc.measure(features[kept], labels[kept], rows, columns=["variability", "gnc3"])
    assert "2 classes of one sample each" in found.notes[0]
    assert gnc.CollapseMeter(9, 4).update(features[kept], labels[kept]).compute(rows).notes == found.notes


def test_test_samples_of_classes_that_training_lacks_are_left_out_and_counted():
    features, labels, rows = samples()
    kept, tested = labels < 6, {"test_features": features, "test_labels": labels}
    found = gnc.measure(features[kept], labels[kept], rows, **tested)
    assert (
        found["ncc_test_accuracy"]
        == gnc.measure(features[kept], labels[kept], rows, test_features=features[kept], test_labels=labels[kept])[
            "ncc_test_accuracy"
        ]
    )
    assert found.notes == ["18 test samples of classes that training lacks left out."]
    assert gnc.measure(features[kept], labels[kept], rows, columns=["gnc3"], **tested).notes[1:] == []


def test_without_rows_there_are_the_columns_of_features_alone():
    features, labels, rows = samples()
    whole, found = gnc.measure(features, labels, rows), gnc.measure(features, labels)
    assert set(found) == set(whole) - set(columns_with("rows"))
    assert found["gnc1_rank"] == whole["gnc1_rank"]
    assert found.notes == ["No classifier rows were given, so there are no columns about rows."]
    with pytest.raises(ValueError, match="got 'gnc3', which needs rows"):
        gnc.measure(features, labels, columns=["gnc3"])


def test_labels_to_ignore_and_classes_never_seen_are_left_out():
    features, labels, rows = samples()
    noisy, marked = torch.cat([features, 100 + features]), torch.cat([labels, torch.full_like(labels, -100)])
    assert gnc.measure(noisy, marked, rows) == gnc.measure(features, labels, rows)
    tested = gnc.measure(features, labels, rows, test_features=noisy, test_labels=marked)
    assert tested["ncc_test_accuracy"] == 1.0
    longer = torch.cat([rows, 3 + rows])
    found = gnc.measure(features, labels, longer)
    assert found["gnc3"] == gnc.measure(features, labels, rows)["gnc3"]
    assert found["margin_min_upper"] == gnc.margins(longer).minimum[1]


# the change in Python, and what is said of it
REFUSED = {
    "columns=[]": "columns must name at least one column or group, got none. None asks for all.",
    "columns=['variability'], tolerance=-1.0": "tolerance must be above 0 and below 1, got -1.0",
    "features=np.ones((54, 4), int)": "features must be floating-point numbers of 2 bytes or more, got torch.int64",
    "labels=np.ones(54)": "labels must be integers below 2^63, one per sample, got torch.float64",
    "labels=torch.arange(9)": "labels must be 54 integers, one per sample, got shape (9,)",
    "features='some text'": "features must be a tensor or an array of numbers",
    "weights=torch.zeros(9, 4)": "weights must have no row of zeros, got 9, the first is 0",
    "weights=torch.ones(9, 5)": "weights must be [classes, 4] as the features are, got (9, 5).",
    "weights=torch.ones(9)": "weights must be a matrix, one row per class or sample, got shape (9,)",
    "bias=torch.zeros(3)": "bias must be finite, one number per classifier row, got shape (3,)",
    "bias=torch.full((9,), torch.nan)": "bias must be finite, one number per classifier row, got NaN or infinity in it",
    "bias=torch.zeros(9), weights=None": "bias must be finite, one number per classifier row, got it without weights",
    "features=features.numpy().astype(np.longdouble)": "features must be a tensor or an array of numbers, got ",
    "features=features.to(torch.float8_e4m3fn)": "features must be floating-point numbers of 2 bytes or more, got torch.float8_e4m3fn.",
    "features=np.ma.masked_less(features.numpy(), 0)": "features must have no masked values, got ",
    "labels=np.ma.masked_equal(labels.numpy(), 3)": "labels must have no masked values, got 6. Leave these samples out.",
    "labels=labels.numpy().astype(np.uint64) + np.uint64(2**63)": "labels must be integers below 2^63, one per sample, got torch.uint64",
    "labels=torch.full((54,), 2**64 - 1, dtype=torch.uint64)": "labels must be integers below 2^63, one per sample, got torch.uint64",
    "labels=labels * 10**9, weights=None": "labels must be class numbers from 0 on, got 8000000000 of 54 samples. Num",
    "ignore_index=None": "ignore_index must be an integer, got None.",
    "normalization='both', temperature='0.1'": "temperature must be a number, got '0.1'.",
    "tolerance='1e-3'": "tolerance must be a number, got '1e-3'.",
    "columns=3": "columns must be names of columns or of groups, got 3.",
    "features=features[:, :0], weights=None": "feature_dim must be at least 1, got 0.",
    "normalization='both'": "temperature must be above 0 and finite, and None with normalization 'none', got None",
    "normalization='both', temperature=float('inf')": "temperature must be above 0 and finite",
    "features=features.double() * 1e200": "features must be at most 1e+100 in size, got ",
    "features=[features[:20].tolist(), features[20:].tolist()]": "features must be one tensor or array of numbers, got a list whose entries differ in shape. Join batches first",
    "features=features[:0], labels=labels[:0]": "features must have at least one row, got none.",
    "labels=torch.full_like(labels, -100)": "labels must be of some class, got ignore_index, -100, for each sample.",
    "test_features=features": "test_features and test_labels must be given together or not at all",
    "test_features=features, test_labels=labels + 1": "test_labels must be in 0..8, got 9.",
    "features=torch.ones(54, 4).to_sparse()": "features must be a dense tensor with values, got one of torch.sparse_coo",
}


ASKED = {
    'gnc.random_margin("10", 2)': "num_classes must be a number, got '10'",
    "gnc.reference_margin(10, None)": "feature_dim must be a number, got None",
    'gnc.best_code("4", 2)': "num_classes must be a number, got '4'",
    'gnc.unconstrained_optimum(3, 2, temperature=float("nan"))': "temperature must be above 0, got nan",
    'gnc.unconstrained_optimum(3, 2, temperature=float("inf"))': "temperature must be above 0 and below inf, got inf",
    'gnc.unconstrained_optimum(12, 3, temperature="1")': "temperature must be a number, got '1'",
    "gnc.unconstrained_optimum(1, 3, temperature=1)": "num_classes must be at least 2, got 1",
    "gnc.CollapseMeter(5.0, 4)": "num_classes must be an integer, got 5.0",
    'gnc.CollapseMeter(5, "4")': "feature_dim must be an integer, got '4'",
    'gnc.CollapseMeter(5, 4, device="bogus")': "device must be one that torch has here, got 'bogus'",
    "gnc.CollapseMeter(5, 4, ignore_index=None)": "ignore_index must be an integer, got None",
    "gnc.CollapseMeter(5, 4).merge(3)": "other must be another meter, got 3",
    'gnc.CollapseMeter(5, 4).watch("fc")': "head must be the module that gives the logits, got 'fc'",
    "gnc.CollapseMeter(5, 4).load_state_dict(None)": "state must be what state_dict gave, got None",
    "gnc.CollapseMeter(5, 4).load_state_dict({'settings': None})": "state must be of a meter of normalization 'none'",
    "gnc.margins(torch.eye(3), normalize='no')": "normalize must be True or False, got 'no'",
    "gnc.reference_margin(10**9, 3)": "num_classes must be at most 10,000,000 in 3 dimensions, got 1000000000",
    "gnc.CollapseMeter(5, 4).watch(torch.nn.Conv2d(4, 5, 1))": "head must have a weight of shape (5, 4), got (5, 4, 1, 1). Give features to update, dim last.",
    "gnc.CollapseMeter(5, 4).load_state_dict({})": "counts must have the shape (5,), got None",
}


def refusals():
    """Run in a process of its own, where nothing but the library checks what is given."""
    features, labels, rows = samples()
    for change in REFUSED:
        given = {"features": features, "labels": labels, "weights": rows, **eval(f"dict({change})")}
        try:
            gnc.measure(**given)
        except ValueError as error:
            print(str(error).replace("\n", " "))
    for given in ({"weights": rows[0]}, {"weights": rows, "tolerance": 2}, {"weights": rows, "warm_start": "x"}):
        try:
            gnc.margins(**given)
        except ValueError as error:
            print(error)
    assert set(gnc.measure(features, labels, rows, columns=iter(["gnc3", "gnc1_rank"]))) == {"gnc3", "gnc1_rank"}
    assert set(gnc.CollapseMeter(9, 4, columns=iter(["gnc3", "gnc1_rank"])).columns) == {"gnc3", "gnc1_rank"}
    for call in ASKED:
        try:
            eval(call)
        except ValueError as error:
            print(error)


def test_what_cannot_be_measured_is_said():
    code = "from tests.gnc.test_library import refusals; refusals()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    margins = (
        "weights must be a matrix of floating-point rows",
        "tolerance must be above 0 and below 1",
        "warm_start must",
    )
    for said, expected in zip(done.stdout.splitlines(), (*REFUSED.values(), *margins, *ASKED.values()), strict=True):
        assert said.startswith(expected), said


def test_an_optimum_that_no_table_has_is_searched():
    tabulated = gnc.unconstrained_optimum(12, 3, temperature=0.1)
    assert tabulated.source == "table"
    assert gnc.unconstrained_optimum(5, 2, temperature=0.123).source == "phases"
    found = gnc.unconstrained_optimum(9, 2, temperature=0.123, starts=3)
    assert (found.source, found.starts) == ("search", 3)
    assert gnc.unconstrained_optimum(4, 3, temperature=0.123).source == "closed form"
