"""Making codes by search, and the optimum of free features. Knows geometry, constructions and references.

Does not know classifiers, losses or training.
"""
