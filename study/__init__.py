"""The experiment: which trials there are, where they run, how a row is written."""
