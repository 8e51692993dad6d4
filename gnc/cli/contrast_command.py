"""`gnc contrast`: the values of one setting beside each other, as tables in Markdown and as a figure."""

import argparse
import sys
from pathlib import Path

from study.design.errors import StudyError


def add_contrast_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command with its options."""
    parser = commands.add_parser("contrast", help="compare the values of one setting, paired over seeds and cells")
    parser.add_argument("results", help="results folder or URI")
    parser.add_argument("--setting", required=True, help="the setting whose values are compared")
    parser.add_argument(
        "--measure", action="append", metavar="COLUMN", help="repeatable; COLUMN[INDEX] reads an entry of a list"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help='only these rows, e.g. "num_classes == 100"'
    )
    parser.add_argument("--by", metavar="COLUMN", help="one table for each value of this column")
    parser.add_argument("--against", metavar="VALUE", help="the value to compare with; null for no effect")
    parser.add_argument("--figure", metavar="FILE", help="draw into this .svg, .pdf or .png file")


def command_contrast(options: argparse.Namespace) -> int:
    """Print the tables and draw the figure; 0 done, StudyError for a wrong request or rows that share nothing."""
    from analysis.effects.contrast import DEFAULT_MEASURES, adjust_together, contrasts
    from analysis.figures.contrast import contrast_file
    from analysis.report.effect_tables import contrast_parts
    from analysis.report.markdown import parts_to_markdown
    from analysis.rows.frames import check_results_folder, final_rows, parts_by
    from study.design.conditions import ConditionRefused, rows_where
    from study.store.store import open_store

    store = open_store(options.results)
    check_results_folder(store)
    try:
        final = final_rows(store)
        for condition in options.where:
            final = rows_where(final, condition)
        found = adjust_together(
            [
                contrast
                for rows, where in parts_by(final, options.by, options.where)
                for contrast in contrasts(
                    rows, options.setting, options.measure or DEFAULT_MEASURES, against=options.against, where=where
                )
            ]
        )
    except ConditionRefused as error:
        raise StudyError(str(error)) from None
    if not found:
        raise StudyError(
            f"{options.setting} must vary between complete trials that share a seed and every other setting, got "
            f"{final.num_rows} rows where it does not. Widen --where, or run more of the grid."
        )
    print(parts_to_markdown(contrast_parts(found)), end="")
    if options.figure:
        path = Path(options.figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contrast_file(found, path.suffix))
        print(f"figure: {path}", file=sys.stderr)
    return 0
