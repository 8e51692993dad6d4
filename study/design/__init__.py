"""What is to be run: settings and their rules, the key, study files, searches and expressions.
Knows the catalog of gnc_models and pydantic; does not know torch, Ray or the disk."""
