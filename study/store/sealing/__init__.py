"""From finished trials to results.parquet and trials.parquet: archives, what is read from where, the columns added.
Knows finished trials and the schemas; does not know the store as a whole, Ray or torch."""
