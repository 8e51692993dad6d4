"""What a part of one's own must keep to: `check_encoder`, `check_dataset`, `check_loss`, `check_metric`, for own tests too.

Each raises BrokenPart with one line that says the rule and what was found. `gnc check` calls them in a process of its own
(see `gnc.part_check`), so that a part that exits, forks or leaves threads harms nothing. docs/parts.md lists the rules.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import pickle
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from gnc_models.catalog.parts import hold_code, load_part, wanted
from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.datasets.samples.draws import Draw
from gnc_models.datasets.samples.own_data import make_own_dataset
from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.datasets.samples.streamed import CHUNK, Streamed, read_batches
from gnc_models.datasets.stored.layouts import data_folder
from gnc_models.encoders.registry import feature_stages
from study.design.config import TrialConfig, settings_with
from study.execution.granted import data_room

SEED = 7001  # no one's favourite: a part that seeds torch itself is told by its other seed
BATCH = 8
ROUNDING = 1e-3  # of the largest feature: what float32 may differ by between batches of other sizes
ASLEEP = frozenset({"tqdm_monitor"})  # threads that a progress bar leaves, and that do nothing
Options = Mapping[str, Any]

# What belongs to the whole process: how it is read, and how it is put back.
_SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, torch.set_default_device),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's deterministic mode": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "torch's seed": (torch.initial_seed, lambda seed: torch.manual_seed(seed)),
    "Python's random state": (random.getstate, random.setstate),
    "NumPy's random state": (np.random.get_state, np.random.set_state),
    "the working directory": (os.getcwd, os.chdir),
}


class BrokenPart(AssertionError):
    """A part of one's own breaks a rule; the message is one line, the part's own exception is the cause."""


@contextlib.contextmanager
def behaving(what: str, *, but: str = "") -> Iterator[None]:
    """Run a part's code with torch seeded; BrokenPart for what it raises and for what it does to its process.

    but: what of the process is not looked at, as this project's own code between may change it."""
    torch.manual_seed(SEED)
    before = {name: read() for name, (read, _) in _SHARED.items()}
    process, threads, said = os.getpid(), set(threading.enumerate()), io.StringIO()
    children, began = _children(), time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0
    try:
        with contextlib.redirect_stdout(said):
            yield
    except SystemExit as error:
        raise BrokenPart(f"{what} must not end the process, got exit({error.code!r}). Raise an exception.") from error
    except BrokenPart:
        raise
    except StopIteration as error:
        raise BrokenPart(f"{what} must give data that can be read again, got an iterator that ended.") from error
    except Exception as error:
        raise BrokenPart(f"{what} must run, got {type(error).__name__}: {_first_line(error)}") from error
    finally:
        if os.getpid() != process:  # a fork of the part's making would go on as a second caller
            os._exit(0)
        after = {name: read() for name, (read, _) in _SHARED.items() if name != but}
        changed = [name for name, value in after.items() if pickle.dumps(value) != pickle.dumps(before[name])]
        for name in changed:
            _SHARED[name][1](before[name])
    cure = "Set nothing for others; torch's generator alone moves on."
    _refuse(changed, what, "leave what belongs to the whole process as it is", cure)
    _refuse(_children(began) - children, what, "leave no process behind", "End what it starts, and do not fork.")
    left = {thread.name for thread in set(threading.enumerate()) - threads} - ASLEEP
    _refuse(left, what, "leave no thread behind", "Join what it starts.")
    _refuse([said.getvalue().strip().partition("\n")[0]] if said.getvalue() else [], what, "not print", "Use warnings.")


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise BrokenPart(rule)


def _refuse(found: Any, what: str, rule: str, cure: str) -> None:
    _require(not found, f"{what} must {rule}, got {', '.join(sorted(map(str, found)))}. {cure}")


def _kind(value: Any) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _children(since: float = 0.0) -> set[int]:
    """Processes that this one started, running or not yet waited for; none where the system does not tell.
    since: seconds after the machine's start; a listing may pass over a process while a thread ends."""
    found = set()
    for task in Path("/proc/self/task").iterdir() if Path("/proc/self/task").is_dir() else ():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                born = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
                found |= {int(pid)} if (born + 2) / os.sysconf("SC_CLK_TCK") >= since else set()  # whole ticks
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").partition("\n")[0]


def _called(what: str, function: Any, given: tuple[Any, ...], options: Options, names: str) -> Any:
    """The result of a call; BrokenPart where it cannot be called like this."""
    _require(callable(function), f"{what} must be callable, got {type(function).__name__}. It is called as {names}.")
    with contextlib.suppress(ValueError):  # written in C: the call itself tells
        try:
            inspect.signature(function).bind(*given, **options)
        except TypeError as error:
            asked = "".join(f", {name}=..." for name in options)
            raise BrokenPart(f"{what} must be callable as {names[:-1]}{asked}), got: {error}.") from error
    with behaving(what):
        return function(*given, **options)
    raise AssertionError  # `behaving` raises what it suppresses


def check_encoder(
    make: Any, *, inputs: Tensor, feature_dim: int, options: Options | None = None, name: str = "encoder"
) -> None:
    """BrokenPart unless `make(in_shape, feature_dim, **options)` gives a network that a trial can train.

    Args:
        inputs: a few samples, as the data set gives them, [samples, ...].
        feature_dim: d; the network gives [batch, d].
        options: the study's. name: what messages call it."""
    given, options = (tuple(inputs.shape[1:]), feature_dim), options or {}
    first, second = (_called(name, make, given, options, "make(in_shape, feature_dim)") for _ in range(2))
    _require(isinstance(first, nn.Module), f"{name} must return a torch.nn.Module, got {type(first).__name__}.")
    states = first.state_dict(), second.state_dict()
    _check_savable(name, first, states[0])
    other = [key for key, value in states[0].items() if key not in states[1] or not torch.equal(value, states[1][key])]
    _refuse(other[:3], name, "be the same network for the same seed", "Initialise from torch's generator alone.")
    trained = []
    for network in (first, second):
        with behaving(name):
            trained.append(network.train()(inputs))
    _check_features(name, trained[0], len(inputs), feature_dim)
    alike = f"{name} must give the same features for the same seed, got other ones. Use torch's generator."
    _require(torch.equal(*trained), alike)
    with behaving(name):
        trained[0].square().mean().backward()
    parameters = [parameter.grad for parameter in first.parameters() if parameter.requires_grad]
    gradients = [gradient for gradient in parameters if gradient is not None]
    reaches = f"{name} must have a gradient from its features to its parameters, got none. Do not detach."
    _require(bool(gradients) or not parameters, reaches)
    is_finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    _require(is_finite, f"{name} must have a finite gradient, got NaN or infinity.")
    _check_evaluation(name, first, inputs, feature_dim)


def _check_features(name: str, features: Any, samples: int, feature_dim: int) -> None:
    got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    rule = f"{name} must give features [batch, feature_dim], here {[samples, feature_dim]}, got {got}."
    _require(got == [samples, feature_dim], rule)
    _require(bool(torch.isfinite(features).all()), f"{name} must give finite features, got NaN or infinity.")


def _check_savable(name: str, network: nn.Module, state: Mapping[str, Any]) -> None:
    strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
    _refuse(strange, name, "keep tensors alone in its state, which safetensors saves", "Leave the rest out of it.")
    try:
        kept = load(save({key: value.detach().clone().contiguous() for key, value in state.items()}))
        network.load_state_dict(kept)
    except Exception as error:
        raise BrokenPart(f"{name} must have a state that safetensors can save, got: {_first_line(error)}") from error


@torch.no_grad()
def _check_evaluation(name: str, network: nn.Module, inputs: Tensor, feature_dim: int) -> None:
    batches = (inputs, inputs, *inputs.split(1))
    with behaving(name):
        found = [network.eval()(batch) for batch in batches]
    for features, batch in zip(found, batches, strict=True):
        _check_features(name, features, len(batch), feature_dim)
    alike = f"{name} must give the same features twice in evaluation, got other ones. Look at self.training."
    _require(torch.equal(found[0], found[1]), alike)
    apart = float((torch.cat(found[2:]) - found[0]).abs().max())
    rule = f"{name} must give a sample's features whatever its batch mates are in evaluation, got a difference of {apart:.2g}"
    cure = "Keep running statistics, or normalise each sample."
    _require(apart <= ROUNDING * float(found[0].abs().max()), f"{rule}. {cure}")


def check_dataset(
    make: Any, *, num_classes: int, samples_per_class: int, test_samples_per_class: int, data_seed: int = 0,
    options: Options | None = None, name: str = "dataset", room: Room = HELD,
) -> Dataset:  # fmt: skip
    """The data set as a trial sees it; BrokenPart unless `make(**options)` gives training and test data each time alike.

    options and sizes: as in a study. name: what messages call it. room: of inputs that take more, some are looked at.
    """
    options = options or {}
    wanted = Draw(num_classes, samples_per_class, test_samples_per_class, data_seed)
    returned = _called(name, make, (), options, "make()")
    found, looked_at = list[Dataset](), list[str]()
    for again in (returned, returned, None):
        again = _called(name, make, (), options, "make()") if again is None else again
        with behaving(name, but="Python's random state"):  # from which a checker of types may draw
            found.append(make_own_dataset(again, wanted, room=room))
            looked_at.append(_some(found[-1]).digest)
    for rule, other in zip(("when it is read again", "each time it is made"), looked_at[1:], strict=True):
        same = f"{name} must give the same samples {rule}, got other ones. Draw by a seed of its own."
        _require(other == looked_at[0], same)
    return found[0]


def _some(dataset: Dataset) -> Dataset:
    """The data set; of a streamed one a few samples evenly over all."""
    train, test = dataset.train_inputs, dataset.test_inputs
    if not isinstance(train, Streamed) or not isinstance(test, Streamed) or dataset.test_labels is None:
        return dataset
    few, fewer = (slice(None, None, -(-len(part) // CHUNK)) for part in (train, test))
    trained = dataclasses.replace(dataset, train_inputs=train[few], train_labels=dataset.train_labels[few])
    return dataclasses.replace(trained, test_inputs=test[fewer], test_labels=dataset.test_labels[fewer])


def check_loss(
    loss: Any, *, num_classes: int, feature_dim: int, options: Options | None = None, name: str = "loss"
) -> None:
    """BrokenPart unless `loss(features, labels, weights, **options)` is a finite scalar with a gradient to the features.

    options: the study's, and `temperature` or `normalization` where it takes these. name: what messages call it."""
    value, features = _reduced(loss, num_classes, feature_dim, options or {}, name, "loss")
    is_scalar = isinstance(value, Tensor) and not value.ndim
    _require(is_scalar, f"{name} must return a scalar tensor, got {_kind(value)}. Take the mean over the batch.")
    _require(bool(torch.isfinite(value)), f"{name} must be finite, got {value.item()}.")
    if value.requires_grad:
        with behaving(name):
            value.backward()
    got = "none" if features.grad is None else "NaN or infinity"
    is_finite = features.grad is not None and bool(torch.isfinite(features.grad).all())
    _require(is_finite, f"{name} must have a finite gradient to the features, got {got}.")


def check_metric(
    metric: Any, *, num_classes: int, feature_dim: int, options: Options | None = None, name: str = "metric"
) -> None:
    """BrokenPart unless `metric(features, labels, weights)` is a finite number; arguments as of `check_loss`."""
    value, _ = _reduced(metric, num_classes, feature_dim, options or {}, name, "metric")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BrokenPart(f"{name} must return one number, got {_kind(value)}.") from error
    _require(bool(np.isfinite(number)), f"{name} must be finite, got {number}.")


def _reduced(
    function: Any, num_classes: int, feature_dim: int, options: Options, name: str, kind: str
) -> tuple[Any, Tensor]:
    """What the function gives for two samples of each class, the same twice, and the features it was given."""
    draw = torch.Generator().manual_seed(SEED)
    features = torch.randn(2 * num_classes, feature_dim, generator=draw, requires_grad=kind == "loss")
    weights = torch.randn(num_classes, feature_dim, generator=draw, requires_grad=kind == "loss")
    given = features, torch.arange(num_classes).repeat_interleave(2), weights
    before = [tensor.detach().clone() for tensor in given]
    first, second = (_called(name, function, given, options, f"{kind}(features, labels, weights)") for _ in range(2))
    is_whole = all(torch.equal(*pair) for pair in zip(before, given, strict=True))
    _require(is_whole, f"{name} must leave its arguments as they are, got them changed in place. Work on copies.")
    plain = [pickle.dumps(value.detach().tolist() if isinstance(value, Tensor) else value) for value in (first, second)]
    _require(plain[0] == plain[1], f"{name} must give the same value for the same arguments, got {first} and {second}.")
    return first, features


def main() -> None:
    """Check the parts of the trials that stdin lists as JSON; one JSON line for each part begun, each fault
    found, and the end: a part may end the process as if all were well."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a part prints below Python is no answer

    def tell(**told: str) -> None:
        print(json.dumps(told), file=answers, flush=True)

    asked = json.load(sys.stdin)
    for digest, content in asked["code"].items():
        hold_code(digest, content.encode("latin-1"))
    seen: set[Any] = set()
    for settings in asked["trials"]:
        config = TrialConfig(**settings)
        dataset: Dataset | None = None  # its shape is what the network needs
        for family, reference, source in ((family, *part) for family, own in config.parts().items() for part in own):
            options = config.options_of(family) if family != "metrics" else {}
            shape = (config.values_with("data"), config.layers) if family == "encoder" else ()
            kind = (family, reference, source, json.dumps(options), shape)
            if kind in seen and family != "dataset":
                continue
            seen.add(kind)
            what = f"{family.removesuffix('s') if family == 'metrics' else family} {reference!r}"
            tell(part=what)
            try:
                with behaving(what):
                    part = load_part(reference, source)
                dataset = _check_part(part, family, config, options, dataset, what)
                if family == "dataset" and dataset is not None and dataset.test_inputs is not None:
                    samples = len(dataset.train_inputs) + len(dataset.test_inputs)
                    size = samples * dataset.train_inputs.shape[1:].numel() * dataset.train_inputs.dtype.itemsize
                    tell(road=data_room().told(f"the inputs of a trial on {reference}", size))
            except BrokenPart as error:
                tell(fault=str(error), trace="".join(traceback.format_exception(error)))
                if family == "dataset":
                    break
    tell(end="")
    os._exit(0)  # at once, whatever threads a part left


def _check_part(
    part: Any, family: str, config: TrialConfig, options: Options, dataset: Dataset | None, name: str
) -> Dataset | None:
    """Check one part of a trial; the data set, once it is known."""
    if family == "dataset":
        sizes = ("num_classes", "samples_per_class", "test_samples_per_class", "data_seed")
        options = {**wanted(part, {"data_root": data_folder()}), **options}
        given = {size: getattr(config, size) for size in sizes}
        return check_dataset(part, **given, options=options, name=name, room=data_room())
    if family == "encoder":
        dataset = dataset or _small_dataset(config)
        known: Options = {"num_samples": len(dataset.train_labels), "vocabulary": dataset.vocabulary}
        evenly = torch.arange(0, len(dataset.train_inputs), max(1, len(dataset.train_inputs) // BATCH))[:BATCH]
        (inputs,) = read_batches(dataset.train_inputs, [evenly])
        options = {**wanted(part, known), **options}
        check_encoder(part, inputs=inputs, feature_dim=config.feature_dim, options=options, name=name)
        if config.layers == "all":
            with behaving(name):
                feature_stages(config.encoder, part(tuple(inputs.shape[1:]), config.feature_dim, **options))
        return dataset
    known = {"temperature": config.temperature or 1.0, "normalization": config.normalization}
    check = check_loss if family == "loss" else check_metric
    options = {**wanted(part, known), **options}
    # of ten thousand classes a few tell as much, in a thousandth of the memory
    check(part, num_classes=min(config.num_classes, 256), feature_dim=config.feature_dim, options=options, name=name)
    return dataset


def _small_dataset(config: TrialConfig) -> Dataset:
    """A few samples of the trial's data set of the package, of the same shape as all."""
    few = {"num_classes": 4, "samples_per_class": 2, "test_samples_per_class": config.test_samples_per_class and 1}
    settings = {name: getattr(config, name) for name in settings_with("data")} | few
    settings |= dict.fromkeys(("ood_classes", "imbalance", "imbalance_ratio", "label_noise", "dataset_options"))
    return make_dataset(settings.pop("dataset"), data_root=data_folder(), **settings)


if __name__ == "__main__":
    main()
