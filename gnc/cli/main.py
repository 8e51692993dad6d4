"""The command `gnc`: parse, call, print. Data on stdout, progress and refusals on stderr; exit 0, 1 or 2.

Imports lazily: `gnc check`, `gnc status` and `gnc report` start without torch or ray.
"""

import argparse
import importlib
import sys

ROOMS = {
    **dict.fromkeys(("run", "trial"), "run_commands"),
    **dict.fromkeys(("margins", "code"), "geometry_commands"),
    "measure": "measure_command",
    **dict.fromkeys(("doctor", "prepare"), "doctor_commands"),
    **dict.fromkeys(("compare", "merge", "prune", "best"), "store_commands"),
}
EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run one gnc command; 0 done, 1 trials failed or were left, 2 the user's input is wrong."""
    options = make_parser().parse_args(arguments)
    from study.design.errors import StudyError
    from study.store.schemas import UnknownSchema

    try:
        room = importlib.import_module(f"gnc.cli.{ROOMS.get(options.command, 'folder_commands')}")
        return int(getattr(room, f"command_{options.command}")(options))
    except BrokenPipeError:
        return EXIT_DONE  # the reader of our output left; what was asked for was done
    except (StudyError, UnknownSchema, OSError) as error:
        if options.debug:
            raise
        for line in (str(error), *getattr(error, "__notes__", ())):
            print(line, file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_FAILED


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(prog="gnc", description="Scaling studies of generalized neural collapse.")
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--debug", action="store_true", help="show a traceback with a refusal")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="what a study would run, what is stored, what it costs; runs nothing")
    _study_and_results(check)
    check.add_argument("--trials", action="store_true", help="a line for each trial: key, state, settings that vary")
    check.add_argument("--probe", action="store_true", help="time a few steps of each kind of trial for the price")
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")

    run = commands.add_parser("run", help="run the trials that the results folder does not hold yet")
    _study_and_results(run)
    run.add_argument("--address", help="Ray cluster to join, e.g. auto; without it, this machine")
    run.add_argument("--max-concurrent", type=int, metavar="N", help="at most N trials at once")
    run.add_argument("--retry-failed", action="store_true", help="start trials again whose attempts are used up")

    status = commands.add_parser("status", help="how far the latest study is; from any machine that sees the folder")
    status.add_argument("results")
    status.add_argument("--all", action="store_true", help="every trial of the folder, not the latest study's")
    status.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=5.0,
        metavar="SECONDS",
        help="look again until the study ends; default 5 s",
    )
    _where(status)
    status.add_argument("--json", action="store_true", help="one JSON object on stdout, with --watch one a line")

    trial = commands.add_parser("trial", help="run one trial in this process, without Ray")
    trial.add_argument("source", metavar="STUDY|RESULTS", help="a study file, or a results folder that ran one")
    trial.add_argument("key", help="key of the trial, or its first digits")
    trial.add_argument("--results", help="results folder; default results/<name>, or the folder given")

    seal = commands.add_parser("seal", help="bring results.parquet and trials.parquet up to date")
    seal.add_argument("results")
    seal.add_argument("--compact", action="store_true", help="remove the one-trial files that the tables now hold")

    report = commands.add_parser("report", help="fit, draw and write report/report.html")
    report.add_argument("results")
    report.add_argument("--all", action="store_true", help="every trial of the folder, not the latest study's")
    report.add_argument(
        "--format",
        choices=("html", "md", "pdf"),
        default="html",
        help="of the page; with pdf the figures are PDF files too",
    )
    report.add_argument("--check", action="store_true", help="score earlier predictions by trials that arrived since")
    _add_store(commands)
    _add_best(commands)
    _add_geometry(commands)
    _add_doctor(commands)
    return parser


def _add_store(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser("compare", help="do two results folders hold the same numbers? exit 1 if not")
    compare.add_argument("first", metavar="A")
    compare.add_argument("second", metavar="B")
    _where(compare)
    compare.add_argument("--json", action="store_true", help="one JSON object on stdout")

    prune = commands.add_parser(
        "prune", help="list files of a results folder that nothing will read again; --yes: delete"
    )
    prune.add_argument("results")
    prune.add_argument("--yes", action="store_true", help="delete them; without it nothing is changed")
    prune.add_argument(
        "--silent", type=float, default=24.0, metavar="HOURS",
        help="a trial that wrote nothing for so long is dead, unless its process is alive on this machine; default 24",
    )  # fmt: skip
    prune.add_argument("--json", action="store_true", help="one JSON object on stdout")

    merge = commands.add_parser(
        "merge", help="bring the finished trials of several results folders into one, the last named"
    )
    merge.add_argument("sources", metavar="A", nargs="+", help="folders to take from; they are not changed")
    merge.add_argument("into", metavar="INTO", help="folder to bring them into; may hold trials already, or not exist")
    merge.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_best(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    best = commands.add_parser("best", help="the best settings of each cell, and a study file that runs them again")
    best.add_argument("results")
    best.add_argument("--metric", required=True, help="a measured column, of each trial's last row")
    best.add_argument("--mode", choices=("min", "max"), default="max", help="default max")
    best.add_argument("--by", metavar="NAMES", help="settings that make a cell, parted by commas; default: the grid's")
    best.add_argument("--write", metavar="NEXT.toml", help="write a study file of the winners")
    best.add_argument("--seeds", default="", metavar="0,1,2", help="seeds to add in that file")
    best.add_argument("--all", action="store_true", help="every trial of the folder, not the latest study's")
    _where(best)
    best.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser("doctor", help="is everything there that a study needs? a line a check, with its cure")
    doctor.add_argument("cluster", nargs="?", metavar="CLUSTER.yaml", help="a cluster file; without it, this machine")
    doctor.add_argument("--study", metavar="STUDY", help="a study file whose needs are checked too")
    doctor.add_argument("--results", help="results folder or URI; default results/, or that of the cluster file")
    doctor.add_argument("--address", help="Ray cluster that runs, e.g. auto: compare its machines")
    doctor.add_argument("--json", action="store_true", help="one JSON object on stdout")

    prepare = commands.add_parser("prepare", help="make on AWS what a cluster file names: security group and roles")
    prepare.add_argument("cluster", metavar="CLUSTER.yaml")


def _add_geometry(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    margins = commands.add_parser("margins", help="certified one-vs-rest margins of anyone's classifier")
    margins.add_argument("file", help="weights: .npy .npz .pt .safetensors; no pickle is executed")
    margins.add_argument("--tensor", metavar="NAME", help="which matrix, where the file holds several")
    margins.add_argument("--tolerance", type=float, default=1e-6, help="relative gap of the bounds; default 1e-6")
    margins.add_argument("--mode", choices=("all", "min"), default="all", help="all classes, or the minimum only")
    margins.add_argument("--raw", action="store_true", help="rows as they are; else scaled to unit length first")
    margins.add_argument("--per-class", action="store_true", help="a line for every class")
    margins.add_argument("--top", type=int, metavar="N", help="a line for the N classes of smallest margin")
    margins.add_argument("--json", action="store_true", help="one flat JSON object on stdout")

    code = commands.add_parser("code", help="the best code known for K classes in d dimensions")
    code.add_argument("--classes", type=int, required=True, metavar="K")
    code.add_argument("--dim", type=int, required=True, metavar="D")
    code.add_argument("--temperature", type=float, metavar="T", help="the unconstrained-feature optimum at T instead")
    code.add_argument(
        "--results", help="keep an optimum computed now in this results folder, for its reference columns"
    )
    code.add_argument("--optimise", action="store_true", help="search now, whatever is tabulated or explicit")
    code.add_argument("--starts", type=int, default=16, metavar="N", help="random starts of a search; default 16")
    code.add_argument("--seed", type=int, default=0, help="of the random starts; default 0")
    code.add_argument("--output", metavar="FILE.npy", help="write the code's rows")
    code.add_argument("--json", action="store_true", help="one JSON object on stdout")

    measure = commands.add_parser("measure", help="collapse metrics of features in a file, or of kept heads")
    measure.add_argument("source", metavar="FEATURES.npz|RESULTS", help="arrays features, labels, optional weights")
    measure.add_argument("--normalization", choices=("both", "features", "weights", "none"), default="both")
    measure.add_argument("--temperature", type=float, default=1.0, help="of the head; default 1")
    measure.add_argument("--json", action="store_true", help="JSON on stdout")


def _study_and_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="study file, TOML")
    parser.add_argument("results", nargs="?", help="results folder or URI; default results/<name>")
    _where(parser)


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--where", metavar="EXPRESSION", help="only these trials, e.g. 'num_classes <= 100'")


def _version() -> str:
    from importlib.metadata import version

    return f"gnc-study {version('gnc-study')}"


if __name__ == "__main__":
    sys.exit(main())
