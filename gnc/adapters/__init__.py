"""The meter inside Lightning, the Hugging Face Trainer and torchmetrics: each module imports its framework, which is no
dependency of this package. Where a measurement fails, the training run goes on and a warning says so."""
