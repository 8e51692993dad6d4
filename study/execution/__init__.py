"""One attempt at one trial against the results folder: checkpoints, logs, signals, cost, and what is shown of it.
Must not know Ray, which trial comes next, or why an attempt is made again."""
