"""What training minimises: a scalar from features, labels and a classifier. Does not know networks or data."""
