"""`gnc doctor`, `gnc slurm` and `gnc prepare`: check that a machine or a cluster has what a study needs, and set up clusters.
Calls the checks in `study.doctor`; checks nothing itself. A check that fails does not stop the others."""

import argparse
import dataclasses
import importlib
import json
from collections.abc import Iterator

from gnc.cli.opening import check_code, open_study
from gnc.cli.output import say
from gnc_models.progress import amount
from study.design.errors import StudyError
from study.design.study_file import Study, read_study
from study.doctor import aws, slurm_script, this_machine
from study.doctor.check import Check, failed, guarded, ok
from study.doctor.cluster_file import PLACEHOLDER, Config, check_file, check_machines, is_own, read_cluster_file
from study.store.store import open_store
from study.training.data import find_data


def command_doctor(options: argparse.Namespace) -> int:
    """Check that this machine or a cluster has what a study needs, and say what to do about what is missing."""
    checks = []
    for check in _checks(options):
        checks.append(check)
        if not options.json:
            print(check.line(), flush=True)
    wrong = sum(check.state == "FAIL" for check in checks)
    if options.json:
        print(json.dumps({"checks": [check.facts() for check in checks], "failed": wrong}))
    elif wrong:
        say(f"{wrong} of {amount(len(checks), 'check')} failed")
    return 1 if wrong else 0


def _checks(options: argparse.Namespace) -> Iterator[Check]:
    study = read_study(options.study) if options.study else None
    if options.cluster is not None:
        config, text = read_cluster_file(options.cluster)
        yield from _cluster_file_checks(config, text, study, options.results)
    elif options.address is None:
        if options.slurm:
            yield from slurm_script.check_allocation(open_store(options.results) if options.results else None)
        yield from _local_checks(study, options)
    if options.address is not None:
        from study.doctor.ray_cluster import check_cluster

        store = open_store(options.results) if options.results else None
        yield from check_cluster(options.address, store, study)


def _local_checks(study: Study | None, options: argparse.Namespace) -> Iterator[Check]:
    yield this_machine.check_python()
    yield guarded("packages", this_machine.check_packages, "pip install -c constraints.txt gnc-study.")
    yield guarded("tested versions", this_machine.check_tested_versions, "Compare pip freeze with constraints.txt.")
    yield guarded("processors", this_machine.check_processors, "Install torch again for this machine.")
    store = open_store(options.results or (f"results/{study.name}" if study else "results"))
    yield guarded("results", lambda: this_machine.check_writable(store), "Name a folder or URI that you may write to.")
    yield guarded("disk", lambda: this_machine.check_disks(store), "Check the results folder and RAY_TMPDIR.")
    yield from this_machine.check_environment(store)
    yield guarded("RAY_ADDRESS", lambda: _about_ray("check_named_address"), "Unset RAY_ADDRESS.")
    if study is not None:
        missing, held = find_data(study.configs).missing, f"everything that {study.name} reads is here"
        yield failed("data", f"{study.name} lacks data", missing[0]) if missing else ok("data", held)
    yield guarded("ray", lambda: _about_ray("check_ray_starts"), "Mend what the lines above say.")


def _about_ray(name: str) -> Check:
    """What a function of study.doctor.ray_cluster finds; a Ray that cannot be imported is no reason to end."""
    check: Check = getattr(importlib.import_module("study.doctor.ray_cluster"), name)()
    return check


def _cluster_file_checks(config: Config, text: str, study: Study | None, results: str | None) -> Iterator[Check]:
    from study.doctor.ray_cluster import check_schema, check_study_fits

    yield check_schema(config)
    yield from check_file(config, text)
    results = results or config.get("metadata", {}).get("results")
    yield _check_results_kind(config, results)
    if study is not None:
        yield guarded(f"study {study.name}", lambda: check_study_fits(config, study), "Mend the node types first.")
    yield from check_machines(config, results) if is_own(config) else aws.check_account(config)


def _check_results_kind(config: Config, results: str | None) -> Check:
    """Results must go to one place for all machines, and outlive them."""
    cure = "Write results: s3://bucket/folder under metadata."
    if not results or PLACEHOLDER in results:
        return failed("results", f"metadata.results is {results!r}", cure)
    if "://" not in results and not is_own(config):
        return failed("results", f"{results} is a folder on a machine that ends with the cluster", cure)
    return ok("results", f"go to {results}")


def command_slurm(options: argparse.Namespace) -> int:
    """Print a SLURM script: an array of gnc run that share a results folder. It is not submitted."""
    study, store = open_study(options)
    check_code(study, store, options.allow_code)
    fields = dataclasses.fields(slurm_script.Request)
    request = slurm_script.Request(**{field.name: getattr(options, field.name) for field in fields})
    request.check(study)
    if request.time.count(":") == 1 and "-" not in request.time:
        say(f"note: --time {request.time} is minutes:seconds; four hours are 4:00:00")
    more = (["--where", options.where] if options.where else []) + ["--allow-code"] * options.allow_code
    script = slurm_script.make_script(study, store, request, study_path=options.study, more=more)
    if problem := slurm_script.ask_slurm(script):
        large = "; an array of more than 1001 tasks needs a larger MaxArraySize than usual" * (request.tasks > 1001)
        say(f"note: {problem}{large}")
    print(script, end="")
    return 0


def command_prepare(options: argparse.Namespace) -> int:
    """Create on AWS the security group and the roles that a cluster file names."""
    config, text = read_cluster_file(options.cluster)
    group, done = aws.prepare(config)
    for sentence in done or ["everything is there already"]:
        print(sentence)
    if "REPLACE-group" in text:
        try:
            with open(options.cluster, "w", encoding="utf-8") as stream:
                stream.write(text.replace("REPLACE-group", group))
        except OSError as error:
            raise StudyError(f"cluster file must be writable, got {options.cluster!r}: {error}.") from None
        print(f"wrote {group} into {options.cluster}")
    else:
        print(f"SecurityGroupIds: [{group}]")
    return 0
