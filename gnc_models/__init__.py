"""The mathematics of generalized neural collapse: tensors in, tensors or numbers out. No Ray, no results folder."""
