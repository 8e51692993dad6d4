"""What Ray says about a cluster file and about the machines of a running cluster. For `gnc doctor`.
Knows Ray; starts nothing but small tasks."""

import contextlib
import io
import os
import platform

import ray

from study.design.errors import StudyError
from study.design.study_file import Study
from study.doctor.check import Check, failed, guarded, ok, skipped, verdict
from study.doctor.cluster_file import Config, head_type, is_own, node_types
from study.doctor.this_machine import installed_version
from study.store.store import Store
from study.tuning import resources

COMPARED = ("gnc-study", "ray", "torch", "pyarrow")
INSTALL_RAY = "pip install -c constraints.txt gnc-study."


def check_schema(config: Config) -> Check:
    """The file as `ray up` would read it, against the schema that Ray ships."""
    cure = f"Compare it with {'cluster-own.yaml' if is_own(config) else 'cluster.yaml'} of this version."
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config  # Ray has no public name for these
    except ImportError as error:
        return skipped("schema", f"Ray {ray.__version__} does not offer its check of cluster files: {error}")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # Ray's remarks
            validate_config(prepare_config(config))
    except Exception as error:  # noqa: BLE001 - Ray raises what its parts raise; all of it is about the file
        where = ".".join(map(str, getattr(error, "absolute_path", ())))
        told = getattr(error, "message", None) or str(error) or type(error).__name__
        return failed("schema", f"{where + ': ' if where else ''}{told.splitlines()[0]}", cure)
    return ok("schema", f"valid for Ray {ray.__version__}")


def check_study_fits(config: Config, study: Study) -> Check:
    """Whether any machine that the file would start can hold one trial."""
    name = f"study {study.name}"
    types = {label: t for label, t in node_types(config).items() if t is not head_type(config)}
    if not types:
        return ok(name, "own machines: gnc run says at once whether a trial fits")
    machines = {label: t.get("resources", {}) for label, t in types.items()}
    asked, workers = study.resources, max((c.workers for c in study.configs or study.extremes), default=1)
    gpus = resources.gpu_share(asked, list(machines.values()), workers=workers)
    on_one = {label: resources.fits(machine, asked.cpus, gpus) for label, machine in machines.items()}
    at_once = {label: count * types[label].get("max_workers", 0) for label, count in on_one.items()}
    each = f"{asked.cpus:g} CPUs and {gpus:g} GPUs" + (f" for each of {workers} workers" if workers > 1 else "")
    if sum(at_once.values()) < workers:
        cure = "Ask for less under [resources], or name a larger machine and what it offers under resources."
        return failed(name, f"a trial asks {each}, machines offer {machines}", cure)
    told = ", ".join(f"{count // workers} on {label}" for label, count in at_once.items() if count)
    return ok(name, f"{study.num_planned} trials of {each}, at once {told}")


def check_named_address() -> Check:
    """Whether RAY_ADDRESS, which `gnc run` follows, names a cluster that answers."""
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return ok("RAY_ADDRESS", "not set: gnc run starts a Ray of its own")
    wrong = [f"{address}: {problem}"] if (problem := resources.no_answer(address)) else []
    return verdict("RAY_ADDRESS", wrong, f"gnc run joins {address}", "Unset RAY_ADDRESS.")


def check_ray_starts() -> Check:
    """A Ray of this machine alone starts here and runs a task."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the temporary folder has a line of its own
            resources.join_cluster("local")
        ray.get(ray.remote(_versions).options(num_cpus=0).remote(), timeout=resources.ANSWER_SECONDS)
    finally:
        resources.leave_cluster()
    problem = resources.ray_problem()
    return verdict("ray", [problem] if problem else [], f"{ray.__version__} starts here and runs a task", INSTALL_RAY)


def check_cluster(address: str, store: Store | None, study: Study | None) -> list[Check]:
    """A cluster that runs: its machines' versions, the results folder seen from each, room for a trial."""
    try:
        resources.join_cluster(address)
        checks = [check_versions()]
        if store is not None:
            checks.append(guarded("results seen", lambda: _check_folder(store), "Name another folder."))
        if study is not None:
            checks.append(guarded("room", lambda: _check_room(study), "Ask for less under [resources]."))
        return checks
    except StudyError as error:
        return [failed("cluster", str(error).rstrip("."), "Run this on the head, or through ray exec")]
    finally:
        resources.leave_cluster()


def check_versions() -> Check:
    """Python, Ray, torch and this package are the same on every machine of the joined cluster."""
    here, machines = _versions(), resources.alive_machines()
    wrong = []
    for node, there in resources.ask_machines(_versions, dict.fromkeys(machines, ())):
        if isinstance(there, Exception):
            wrong.append(f"{machines[node]}: {str(there).strip().splitlines()[-1]}")
        elif differing := [f"{name} {there[name]}" for name in here if there[name] != here[name]]:
            wrong.append(f"{machines[node]} has {', '.join(differing)}")
    told = ", ".join(f"{name} {version}" for name, version in here.items())
    cure = f"Install the same everywhere ({told} here): ray up again brings the wheel and runs the set-up."
    return verdict("versions", wrong, f"{len(machines)} machines have {told}", cure)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: installed_version(name) or "missing" for name in COMPARED}}


def _check_folder(store: Store) -> Check:
    resources.check_shared_folder(store)
    return ok("results seen", f"every machine writes to {store.uri} and this one reads it")


def _check_room(study: Study) -> Check:
    return ok("room", f"{resources.allot(study.resources).concurrent} trials of {study.name} at once")
