"""The report: the findings of a study as sentences and tables on a page in HTML or Markdown, and as fits.json. Uses every
other folder of the analysis; must not compute, and no other folder of the analysis imports it."""
