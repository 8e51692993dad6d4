"""The command `gnc` (gnc.cli). Refuses to start where Python would import another package named study or analysis.

Knows where its packages are; imports none of them.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def _hidden(home: Path) -> str | None:
    """A sentence about the first of our packages that Python finds outside `home`, None where it finds all in it."""
    for name in ("study", "gnc_models", "analysis"):
        spec = find_spec(name)
        if spec is None or spec.origin == str(home / name / "__init__.py"):
            continue
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), name))
        if found.resolve() != (home / name / "__init__.py").resolve():
            found = found.parent if found.name == "__init__.py" else found
            return (
                f"{found.absolute()} stands in the way of the package {name} of gnc-study: Python finds it first. "
                "Rename it, or work in another directory and leave this one out of PYTHONPATH."
            )
    return None


if _problem := _hidden(Path(__file__).parents[1]):
    if Path(*sys.argv[:1]).name in ("gnc", "gnc.exe", "-m"):  # a command; "-m" while Python looks for what it is to run
        print(_problem, file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(_problem)
