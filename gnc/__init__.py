"""The library: margins, collapse and references for anyone's code, and results of studies; `gnc.cli` is the command.

A name is imported when it is first used, so that `import gnc` costs neither torch nor time (PEP 562). What measures needs
no Ray, Optuna, Parquet or Matplotlib; `open_results` needs Parquet and `plot` Matplotlib. docs/library.md says what stays
as it is between versions. Refuses to start where Python would import another package named study or analysis."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnc import plot
    from gnc.library import margins, measure, unconstrained_optimum
    from gnc.meter import CollapseMeter
    from gnc.results import fit_power_law, open_results
    from gnc_models.codes.best_code import best_code
    from gnc_models.references.margin import random_margin, reference_margin

__all__ = [
    "CollapseMeter", "best_code", "fit_power_law", "margins", "measure", "open_results", "plot", "random_margin",
    "reference_margin", "unconstrained_optimum",
]  # fmt: skip

_HOMES = {
    "CollapseMeter": "gnc.meter",
    **dict.fromkeys(("fit_power_law", "open_results"), "gnc.results"),
    "best_code": "gnc_models.codes.best_code",
    **dict.fromkeys(("random_margin", "reference_margin"), "gnc_models.references.margin"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gnc' has no attribute {name!r}. It has {', '.join(__all__)}.")
    home = import_module("gnc.plot" if name == "plot" else _HOMES.get(name, "gnc.library"))
    value = globals()[name] = home if name == "plot" else getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _hidden(home: Path) -> str | None:
    """A sentence about the first of our packages that Python finds outside `home`, None where it finds all in it."""
    for name in ("study", "gnc_models", "analysis"):
        spec = find_spec(name)
        if spec is None or spec.origin == str(home / name / "__init__.py"):
            continue
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), name))
        if found.resolve() != (home / name / "__init__.py").resolve():
            found = found.parent if found.name == "__init__.py" else found
            rule = f"{found.absolute()} stands in the way of the package {name} of gnc-study: Python finds it first."
            return f"{rule} Rename it, or work in another directory and leave this one out of PYTHONPATH."
    return None


if _problem := _hidden(Path(__file__).parents[1]):
    if Path(*sys.argv[:1]).name in ("gnc", "gnc.exe", "-m"):  # a command; "-m" while Python looks for what it is to run
        print(_problem, file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(_problem)
