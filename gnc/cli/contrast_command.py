"""`gnc contrast`: compares the values of one setting, in tables in Markdown and in a figure."""

import argparse
from pathlib import Path

from gnc.cli.opening import add_results, existing_store
from gnc.cli.output import say
from gnc.cli.parser import Commands, add_command
from study.design.errors import StudyError
from study.design.where import rows_where


def add_contrast_parser(commands: Commands) -> None:
    example = (
        "gnc contrast results/quickstart --setting temperature --measure margin_min_lower --where 'feature_dim == 3'"
    )
    parser = add_command(commands, command_contrast, example, add_results)
    parser.add_argument("--setting", required=True, help="the setting whose values are compared")
    parser.add_argument(
        "--measure",
        action="append",
        metavar="COLUMN",
        help="what is compared; repeatable; COLUMN[INDEX] reads an entry of a list",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="take only these rows, such as 'num_classes == 100'; repeatable",
    )
    parser.add_argument("--by", metavar="COLUMN", help="print a table for each value of this column")
    parser.add_argument("--against", metavar="VALUE", help="the value to compare with; null: the setting has no effect")
    parser.add_argument("--figure", metavar="FILE", help="draw the comparison into this .svg, .pdf or .png file")


def command_contrast(options: argparse.Namespace) -> int:
    """Compare the values of one setting, paired over seeds and cells."""
    # matplotlib takes a second to load: only here, where figures are drawn
    from analysis.effects.contrast import DEFAULT_MEASURES, adjust_together, contrasts
    from analysis.figures.contrast import contrast_file
    from analysis.report.effect_tables import contrast_parts
    from analysis.report.markdown import parts_to_markdown
    from analysis.rows.frames import final_rows, parts_by

    final = final_rows(existing_store(options.results))
    for condition in options.where:
        final = rows_where(final, condition)
    parts = parts_by(final, options.by, options.where)
    measures = options.measure or DEFAULT_MEASURES
    found = adjust_together(
        [
            contrast
            for rows, where in parts
            for contrast in contrasts(rows, options.setting, measures, against=options.against, where=where)
        ]
    )
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
        say(f"figure: {path}")
    return 0
