"""What one setting does: its values beside each other, the margin it costs, its share of the variance.

Stands on rows and statistics; must not know scaling, figures or pages.
"""
