"""The command `gnc`: one module per group of commands, each command's parser beside its function. Imports nothing heavy at
the top: torch, Ray and matplotlib are loaded by the commands that need them."""
