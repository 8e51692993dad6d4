"""Networks from inputs to features, each ending in a linear map. Does not know classifiers, losses or data sets."""
