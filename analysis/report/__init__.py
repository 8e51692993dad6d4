"""The report: all findings of a study, worded and set as a page, and written as HTML or Markdown beside fits.json.

Stands on every other folder of the analysis; must not compute, and nothing of the analysis imports it.
"""
