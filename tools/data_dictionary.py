"""The generated pages: `python -m tools.data_dictionary docs/rows.md docs/settings.md` writes every column and setting.

Knows records and settings; does not know any stored row.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from gnc_models.catalog.members import FAMILIES
from study.design.config import NUMBERS_VERSION, TrialConfig
from study.design.lookup import TABLES, Facts, member_lines, setting_facts, table_facts
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
setting without effect, a spread over one sample, a reference that is not tabulated. "Better" says whether little (min)
or much (max) of a column is better, where either is: `gnc best` goes by it.
"""

SETTINGS_INTRODUCTION = """# The settings

Generated from `study/design/config.py` and `gnc_models/catalog/members.toml` by `make docs`; checked by `make check`.
`gnc settings NAME` shows the same on the command line, for a setting, a family (`gnc settings encoder`) or a table
(`gnc settings tune`). How a study file is written is in [studies.md](studies.md).

A setting that only some members of a family read is refused beside the others, since it would have no effect there. A
setting of a later release counts in trials from before as the value named, so that their keys are the same.
"""
HEAD = ("setting", "type", "unit", "allowed", "default", "read by", "since", "meaning")


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
    rows = [(f"`{c.name}`", str(c.type), c.unit, c.better, c.meaning) for c in columns]
    with_better = any(c.better for c in columns)
    head = ("column", "type", "unit", "better", "meaning")
    return _table(title, *([*row[:3], *row[3 if with_better else 4 :]] for row in (head, *rows)))


def _table(title: str, head: Sequence[str], *rows: Sequence[str]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (head, *rows)]
    return "\n".join([f"\n## {title}\n", lines[0], "|---" * len(head) + "|", *lines[1:], ""])


def settings_page() -> str:
    """The page of settings as Markdown."""
    parts = [_table("Settings of a trial", HEAD, *(_row(setting_facts(name)) for name in TrialConfig.model_fields))]
    for table in TABLES:
        rows = [_row(facts) for facts in table_facts(table)]
        parts.append(_table(f"The table `[{table}]`", *([*row[:5], row[7]] for row in (HEAD, *rows))))
    for family in FAMILIES:
        rows = [(f"`{name}`", settings) for name, settings in member_lines(family)]
        parts.append(_table(f"Members of `{family}`", ("member", "settings that it reads, with their defaults"), *rows))
    return SETTINGS_INTRODUCTION + "".join(parts)


def _row(facts: Facts) -> tuple[str, ...]:
    return (f"`{facts['name']}`", *(facts.get(label, "") for label in HEAD[1:]))


PAGES = {"rows.md": rows_page, "settings.md": settings_page}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which files are out of date."""
    old = []
    for path in map(Path, (name for name in arguments if name != "--check")):
        page = PAGES[path.name]()
        if "--check" not in arguments:
            path.write_text(page, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != page:
            old.append(path)
            print(f"{path} must match the code that it is made from, but differs. Run: make docs", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
