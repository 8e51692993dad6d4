"""The command `gnc`: one module per group of commands, their options in options.toml. Imports nothing heavy at the top: torch,
Ray and matplotlib are loaded by the commands that need them."""
