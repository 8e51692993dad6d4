"""The meter inside training frameworks: Lightning, the Hugging Face Trainer and torchmetrics.

Each module imports its framework, which is no dependency of this package: import the one that you have. `head_meter` is
what they share. None of them stops a training run because a measurement failed: it warns, and the run goes on.
"""
