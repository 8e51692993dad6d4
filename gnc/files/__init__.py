"""Checkpoints and features as their framework left them: names, shapes and numbers of arrays. Nothing in a file is run.
Knows file formats, numpy and torch; does not know margins, metrics or the command line."""
