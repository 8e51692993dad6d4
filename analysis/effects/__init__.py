"""What settings do to a measure: values beside each other, shares of variance, the margin ladder, and what a search found.
Uses rows and statistics; must not know scaling, figures or pages."""
