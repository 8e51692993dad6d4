"""Names, settings and allowed pairs of every family. Knows no torch, so that checking a study needs none."""
