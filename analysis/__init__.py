"""Turns the tables of a study into a report with fits and figures, in this order: rows, statistics, scaling and effects,
figures, report. Never imports torch or Ray."""
