"""The meter against `gnc.measure` of the whole set: batches, merges, processes, hooks, states, and what it holds.

`python -m tests.gnc.test_meter 150000 768` prints the memory at that size.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gnc
from tests.gnc.processes import in_two_processes
from tests.gnc.test_library import samples

ROOT = Path(__file__).parents[2]
MODES = ("both", "features", "weights", "none")


def options(mode):
    return {"normalization": mode, "temperature": None if mode == "none" else 0.1}


def agree(found, expected, tolerance=1e-9):
    assert found
    for name, value in found.items():
        wanted = expected[name]
        assert value == (wanted if wanted is None else pytest.approx(wanted, rel=tolerance, abs=1e-15)), name


@pytest.mark.parametrize("mode", MODES)
def test_batches_tell_what_measure_tells_of_the_whole(mode):
    features, labels, rows = samples(each=11)
    labels[40:60] = 3  # unequal counts
    meter = gnc.CollapseMeter(9, 4, **options(mode))
    for part in torch.randperm(99).split(7):
        meter.update(features[part], labels[part])
    found, expected = meter.compute(rows), gnc.measure(features, labels, rows, **options(mode))
    assert tuple(found) == meter.columns
    agree(found, expected)
    left_out = set(expected) - set(found)
    assert {"sample_margin_min", "ncc_agreement", "within_log_energy"} <= left_out
    assert ("trace_within" in left_out) == (mode in ("weights", "none"))  # unit features, which the head does not make


def test_a_column_of_unit_features_holds_a_second_matrix_of_means():
    features, labels, rows = samples()
    meter = gnc.CollapseMeter(9, 4, columns=["sphere", "gnc3"]).update(features, labels)
    agree(meter.compute(rows), gnc.measure(features, labels, rows))
    held = meter.state_dict()
    parts = {f"{part}.{name}" for part in ("head", "sphere") for name in meter._seen.head.PARTS}
    assert set(held) == {*parts, "settings"}
    assert (held["head.scatter"].shape, held["sphere.scatter"].shape) == ((4, 4), (0, 0))


@pytest.mark.parametrize("column", ["sample_margin_min", "samples", "ncc_agreement"])
def test_a_column_of_single_samples_is_refused_by_name(column):
    with pytest.raises(ValueError, match=r"columns must be ones that can be had here, got '.*', which needs .*samples"):
        gnc.CollapseMeter(9, 4, columns=[column])


def test_sequences_ignored_labels_and_classes_never_seen():
    features, labels, rows = samples()
    longer = torch.cat([rows, -rows])
    meter = gnc.CollapseMeter(18, 4, ignore_index=-1, columns=["variability", "duality", "minimum", "energies"])
    marked = labels.clone()
    marked[::5] = -1
    meter.update(features.reshape(6, 9, 4), marked.reshape(6, 9))
    kept = marked >= 0
    agree(meter.compute(longer), gnc.measure(features[kept], labels[kept], longer, columns=list(meter.columns)))
    assert int(meter.counts.sum()) == int(kept.sum())
    meter.reset().update(features, torch.full_like(labels, -1))  # nothing but ignored labels
    with pytest.raises(ValueError, match="labels must name at least 2 classes, got 0"):
        meter.compute(longer)


def test_merged_meters_and_loaded_states_go_on_as_one():
    features, labels, rows = samples()
    first, second = gnc.CollapseMeter(9, 4), gnc.CollapseMeter(9, 4)
    first.update(features[:20], labels[:20])
    second.update(features[20:], labels[20:])
    restored = gnc.CollapseMeter(9, 4).load_state_dict(first.state_dict())
    agree(restored.merge(second).compute(rows), gnc.measure(features, labels, rows))
    assert int(first.counts.sum()) == 20  # a loaded state is a copy
    with pytest.raises(ValueError, match=r"the same normalization and temperature to merge, got \('none', None\) and"):
        first.merge(gnc.CollapseMeter(9, 4, **options("both")))
    with pytest.raises(ValueError, match="meters must have the same normalization and columns to merge"):
        first.merge(gnc.CollapseMeter(9, 4, columns=["sphere"]))
    with pytest.raises(ValueError, match="other must be another meter"):
        first.merge(first)
    with pytest.raises(ValueError, match=r"counts must have the shape \(8,\), got \(9,\)"):
        gnc.CollapseMeter(8, 4).load_state_dict(first.state_dict())


def test_a_meter_of_a_pass_in_inference_mode_goes_on_outside():
    features, labels, rows = samples()
    with torch.inference_mode():
        made = gnc.CollapseMeter(9, 4).update(features[:20], labels[:20])
    made.update(features[20:], labels[20:])
    agree(made.compute(rows), gnc.measure(features, labels, rows))
    other = gnc.CollapseMeter(9, 4)
    with torch.inference_mode():
        other.update(features, labels)
    assert int(other.load_state_dict(made.state_dict()).reset().counts.sum()) == 0


def test_a_state_knows_the_head_that_it_was_seen_for():
    features, labels, _ = samples()
    settings = {"normalization": "both", "temperature": 0.1, "columns": ["gnc1_rank"]}
    seen = gnc.CollapseMeter(9, 4, **settings).update(features, labels)
    for other in ({}, {"normalization": "features", "temperature": 0.1}, {"normalization": "both", "temperature": 0.2}):
        for assign in (False, True):
            with pytest.raises(
                ValueError, match=r"state must be of a meter of normalization .*, got that of another head"
            ):
                gnc.CollapseMeter(9, 4, **other).load_state_dict(seen.state_dict(), assign=assign)
    again = gnc.CollapseMeter(9, 4, **settings).load_state_dict({k: v.float() for k, v in seen.state_dict().items()})
    assert again.compute()["gnc1_rank"] == pytest.approx(seen.compute()["gnc1_rank"], rel=1e-4)
    old = {name: held for name, held in seen.state_dict().items() if name != "settings"}  # of a version before
    assert gnc.CollapseMeter(9, 4, **settings).load_state_dict(old).compute() == seen.compute()


@pytest.mark.parametrize(("part", "value"), [("means", float("nan")), ("counts", -3), ("square_deviations", -1.0)])
def test_a_broken_state_is_refused(part, value):
    state = gnc.CollapseMeter(9, 4).update(*samples()[:2]).state_dict()
    state[f"head.{part}"] = torch.full_like(state[f"head.{part}"], value)
    with pytest.raises(ValueError, match=f"{part} must be finite, and counts and sizes not negative"):
        gnc.CollapseMeter(9, 4).load_state_dict(state)


def test_margins_begin_from_those_of_the_epoch_before():
    features, labels, rows = samples(80, 8, each=2)
    meter = gnc.CollapseMeter(80, 8, columns=["margins", "means", "scale-free"])
    first = meter.update(features, labels).compute(rows)
    cold = gnc.measure(features, labels, rows * 1.001 + 1e-5, columns=list(meter.columns))
    warm = meter.reset().update(features, labels).compute(rows * 1.001 + 1e-5)
    assert warm.collapse.solved["rows"].rounds < first.collapse.solved["rows"].rounds
    for name in ("mean_margin_min", "hull_margin_min", "centred_margin_min"):
        assert warm[f"{name}_lower"] <= cold[f"{name}_upper"]
        assert cold[f"{name}_lower"] <= warm[f"{name}_upper"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float32_statistics_take_half_the_memory_and_keep_six_digits(dtype):
    features, labels, rows = samples()
    features = features.to(dtype)
    half = gnc.CollapseMeter(9, 4, dtype=torch.float32, columns=["variability", "duality", "norms"])
    for part in torch.arange(54).split(5):
        half.update(features[part], labels[part])
    agree(half.compute(rows), gnc.measure(features, labels, rows), tolerance=1e-5)
    assert half.state_dict()["head.means"].element_size() == 4


# --- the head's features as they pass ------------------------------------------------------------------------------


class CosineHead(torch.nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.weight = torch.nn.Parameter(rows.clone())

    def forward(self, features):
        unit = torch.nn.functional.normalize
        return unit(features, dim=-1) @ unit(self.weight, dim=-1).T / 0.1


def heads(rows):
    linear, tied = torch.nn.Linear(4, 9).double(), torch.nn.Linear(4, 9, bias=False)
    tied.weight = torch.nn.Embedding.from_pretrained(rows).weight
    return {"linear": (linear, "none"), "cosine": (CosineHead(rows), "both"), "tied": (tied, "none")}


@pytest.mark.parametrize("kind", ["linear", "cosine", "tied"])
def test_a_watched_head_of_any_kind_feeds_the_meter(kind):
    features, labels, rows = samples()
    head, mode = heads(rows)[kind]
    network = torch.nn.Sequential(torch.nn.Identity(), head)
    meter = gnc.CollapseMeter(9, 4, **options(mode))
    with meter.watch(head):
        for part in torch.arange(54).split(20):
            meter.labels(labels[part])
            network(features[part].clone().requires_grad_()).sum().backward()
        meter.labels(None)
        network(features + 5)  # left out
    network(features + 7)  # no longer watched
    bias = getattr(head, "bias", None)
    found = meter.compute(head.weight, bias)
    agree(found, gnc.measure(features, labels, head.weight, **options(mode)))
    assert found.notes == ["No column here depends on bias, which changed nothing."] * (bias is not None)


def test_labels_that_met_no_pass_are_said_at_the_end():
    features, labels, rows = samples()
    meter = gnc.CollapseMeter(9, 4)
    meter.update(features, labels).labels(labels)
    assert meter.compute(rows).notes == [
        "The labels given last have met no forward pass of the watched head: their batch is not in."
    ]
    assert not meter.reset().update(features, labels).compute(rows).notes


def test_features_and_labels_that_do_not_pair_are_refused():
    features, labels, _ = samples()
    head = torch.nn.Linear(4, 9).double()
    meter = gnc.CollapseMeter(9, 4)
    with meter.watch(head):
        with pytest.raises(ValueError, match="labels must be given before each forward pass of a watched head"):
            head(features)
        meter.labels(labels)
        with pytest.raises(ValueError, match="labels must be given once per forward pass, got them twice"):
            meter.labels(labels)
        with pytest.raises(
            ValueError, match=r"features must be \[\.\.\., 4\] with labels \[\.\.\.\], got shapes \(9, 4\)"
        ):
            head(features[:9])
    with pytest.raises(ValueError, match=r"head must have a weight of shape \(9, 4\), got \(9, 5\)"):
        meter.watch(torch.nn.Linear(5, 9))
    assert int(meter.counts.sum()) == 0


def test_a_batch_that_is_refused_changes_nothing():
    features, labels, _ = samples()
    meter = gnc.CollapseMeter(9, 4).update(features, labels)
    before = {name: part.clone() for name, part in meter.state_dict().items()}
    broken, wrong = features.clone(), labels.clone()
    broken[3, 1], wrong[-1] = torch.nan, 9
    with pytest.raises(ValueError, match="features must be finite, got NaN or infinity in 1 of 54 rows"):
        meter.update(broken, labels)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.8, got 9"):
        meter.update(features, wrong)
    assert all(torch.equal(part, before[name]) for name, part in meter.state_dict().items())


# --- several processes, and memory ---------------------------------------------------------------------------------


def share(rank, folder):
    """What one of two processes sees; the second sees no sample of class 3."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    features, labels, rows = samples(each=11)
    mine = torch.arange(99) < 60 if rank == 0 else (torch.arange(99) >= 60) & (labels != 3)
    meter = gnc.CollapseMeter(9, 4, columns=["variability", "sphere", "duality", "margins", "means", "norms"])
    meter.update(1e-6 * features[mine] + rows[labels[mine]], labels[mine]).all_reduce()
    torch.save((dict(meter.compute(rows)), meter.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_tell_what_one_does(tmp_path):
    in_two_processes(f"{__name__}:share", tmp_path)
    (first, state), (second, other) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    features, labels, rows = samples(each=11)
    kept = (torch.arange(99) < 60) | (labels != 3)
    features, labels = 1e-6 * features[kept] + rows[labels[kept]], labels[kept]  # small spread, large means
    assert first == second
    agree(first, gnc.measure(features, labels, rows))
    whole = gnc.CollapseMeter(9, 4, columns=["sphere"]).update(features, labels).state_dict()
    for name, held in whole.items():
        assert torch.equal(state[name], other[name])
        if name.endswith("mean_errors"):  # a bound, which depends on the steps
            assert float(state[name].max()) < 1e-13
        else:
            torch.testing.assert_close(state[name], held, rtol=1e-6, atol=1e-20)


def grown(num_classes: int, feature_dim: int) -> float:
    """Peak memory of a meter and its batches over its two matrices of float64."""
    torch.set_num_threads(1)
    gnc.CollapseMeter(10, feature_dim).update(torch.randn(64, feature_dim), torch.arange(64) % 10)  # torch's own memory
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _peak()
    meter = gnc.CollapseMeter(num_classes, feature_dim, columns=["variability"])
    for start in range(0, num_classes, 8192):  # every class is seen, so that all pages are touched
        labels = torch.arange(start, min(start + 8192, num_classes))
        meter.update(torch.randn(len(labels), feature_dim), labels)
    assert bool((meter.counts == 1).all())
    return (_peak() - before) / (8 * (num_classes * feature_dim + feature_dim**2))


def _peak() -> int:
    """Most memory of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_a_meter_of_many_classes_takes_little_more_than_its_two_matrices():
    code = "from tests.gnc.test_meter import grown; print(grown(120_000, 512))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 1 <= float(done.stdout) < 1.2


if __name__ == "__main__":
    print(f"{grown(int(sys.argv[1]), int(sys.argv[2])):.3f} times the two matrices")
