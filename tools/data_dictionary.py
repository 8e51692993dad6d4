"""The data dictionary: `python -m tools.data_dictionary docs/rows.md` writes every column's type, unit and meaning.

Knows records; does not know any stored row.
"""

import sys
from pathlib import Path

from study.design.config import NUMBERS_VERSION
from study.store.schemas import (
    IDENTITY,
    MARGINS_COLUMNS,
    MEASUREMENTS,
    REFERENCES,
    SCHEMA_VERSION,
    SEALED_FROM,
    SETTINGS,
    TRIAL_COLUMNS,
    Column,
)

INTRODUCTION = f"""# The columns

Generated from `study/store/schemas.py` and `study/design/config.py` by `make docs`; checked by `make check`.
Schema version {SCHEMA_VERSION}, numbers version {NUMBERS_VERSION}.

`results.parquet` has one row per (trial, measured epoch): identity, settings, measurements, references.
`trials.parquet` has one row per trial: identity, settings, and how the trial went. Units and meanings are in the
files too, as Parquet column metadata. A missing value is null and means that the quantity does not exist there: a
setting without effect, a spread over one sample, a reference that is not tabulated.
"""


def rows_page() -> str:
    """The page as Markdown."""
    sections = (
        ("Identity", IDENTITY),
        ("Settings", SETTINGS),
        ("Measurements (results.parquet)", MEASUREMENTS),
        ("References (results.parquet; added when read or sealed)", REFERENCES),
        ("How the trial went (trials.parquet)", TRIAL_COLUMNS + SEALED_FROM),
        ("Per-class margins (margins/KEY.parquet)", MARGINS_COLUMNS),
    )
    return INTRODUCTION + "".join(_section(title, columns) for title, columns in sections)


def _section(title: str, columns: tuple[Column, ...]) -> str:
    lines = [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning.replace('|', chr(92) + '|')} |" for c in columns]
    return f"\n## {title}\n\n| column | type | unit | meaning |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether the file is up to date."""
    path = Path(arguments[-1])
    if "--check" not in arguments:
        path.write_text(rows_page(), encoding="utf-8")
        return 0
    if path.read_text(encoding="utf-8") == rows_page():
        return 0
    print(f"{path} must match study/store/schemas.py, but differs. Run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
