"""Making codes by search, and the optimum of free features. Does not know classifiers, losses or training."""
