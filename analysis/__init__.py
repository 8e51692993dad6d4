"""From rows to claims: tables, theory curves, fits, figures, report. Never imports torch or ray."""
