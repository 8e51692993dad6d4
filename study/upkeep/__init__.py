"""Whole results folders: status, watch, comparison, merge, pruning and the best settings.
Must not know Ray, torch or how a trial is run."""
