"""Randomly timed faults while trials are in flight; after each one the study must end with the very same tables.

    python -m tests.chaos --faults 20              a line a fault; the seed is printed
    python -m tests.chaos --faults 20 --seed 7     the same faults again
    python -m tests.chaos --only torn-live:7003    one of them

The moments are drawn from the seed; what a process is doing at that moment is the machine's own. Exit status 1 where
tables differed or something did not end.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from study.store.store import Store
from tests.chaos.faults import KINDS, ON_RAY
from tests.chaos.scene import Broken, Scene, Skipped, make_undisturbed


def main() -> int:
    """Make the faults, one after the other."""
    options = make_parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what the fault started is ended on the way out
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    if options.only:
        faults = [options.only]
    else:
        print(f"{options.faults} faults, seed {seed}; to repeat: --faults {options.faults} --seed {seed}", flush=True)
        faults = plan(options.faults, seed)
    outcomes: Counter[str] = Counter()
    started, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="gnc-chaos-"))
    undisturbed = make_undisturbed(folder / "undisturbed")
    for index, fault in enumerate(faults, 1):
        began = time.monotonic()
        outcome, notes = disturb(fault, folder / fault.replace(":", "-"), undisturbed)
        outcomes[outcome.split(":")[0]] += 1
        print(f"[{index}/{len(faults)}] {fault}  {outcome}  {time.monotonic() - began:.0f} s  {notes}", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{', '.join(f'{count} {what}' for what, count in outcomes.items())} in {minutes:.0f} min, seed {seed}")
    if not outcomes["broken"]:
        shutil.rmtree(folder)
    return 1 if outcomes["broken"] else 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Randomly timed faults.")
    parser.add_argument("--faults", type=int, default=20, help="how many; their kinds take turns")
    parser.add_argument("--seed", type=int, help="of all chance; left out: drawn and printed")
    parser.add_argument("--only", metavar="KIND:SEED", type=_fault, help=f"one fault; kinds: {', '.join(KINDS)}")
    return parser


def _fault(text: str) -> str:
    if text.partition(":")[0] not in KINDS:
        raise argparse.ArgumentTypeError(f"KIND must be one of {', '.join(KINDS)}, got {text!r}")
    return text


def plan(faults: int, seed: int) -> list[str]:
    """Which faults: every kind in turn, from a kind that the seed chooses."""
    kinds = list(KINDS)
    first = random.Random(seed).randrange(len(kinds))
    return [f"{kinds[(first + index) % len(kinds)]}:{1000 * seed + index}" for index in range(faults)]


def disturb(fault: str, folder: Path, undisturbed: Store, *, on_ray: bool | None = None) -> tuple[str, str]:
    """Make one fault and see what came of it: ok, skipped or broken with its reason, and what was done.

    on_ray: whether `gnc run` completes the study afterwards, else a process without Ray; left out: by chance.
    """
    kind = fault.partition(":")[0]
    scene = Scene(folder, fault)
    try:
        chosen = scene.chance.random() < (0.6 if kind in ON_RAY else 0.15)
        with KINDS[kind](scene):
            scene.finish(on_ray=chosen if on_ray is None else on_ray)
            scene.check(undisturbed)
    except Skipped as reason:
        return f"skipped: {reason}", ""
    except Broken as reason:
        return (
            f"broken: {reason}\n  its folder: {folder}\n  to repeat: python -m tests.chaos --only {fault}\n ",
            "; ".join(scene.notes),
        )
    finally:
        scene.close()
    shutil.rmtree(folder, ignore_errors=True)
    return "ok", "; ".join(scene.notes)


if __name__ == "__main__":
    sys.exit(main())
