"""Turns the tables of a study into a report with fits and figures. Never imports torch or Ray.

Data run one way: rows -> statistics -> scaling | effects -> figures -> report.
"""
