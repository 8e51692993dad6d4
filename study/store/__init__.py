"""The results folder, the only state: bytes, attempts, finished trials, sealed tables and their schemas.
Does not know Ray, torch or how a trial is trained."""
