"""Data sets that lie on the disk in a layout of others: what is missing, and how it is read."""
