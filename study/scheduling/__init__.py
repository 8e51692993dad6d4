"""Decides which trial is next: what is missing, what a search suggests, what is tried again and when.
Must not know Ray, torch or how a trial is run. Optuna is known to `optuna_sampler` and `optuna_study` alone."""
