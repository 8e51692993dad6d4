"""From rows to claims: tables in, a report out. Never imports torch or Ray.

Data run one way: rows -> statistics -> scaling | effects -> figures -> report.
"""
