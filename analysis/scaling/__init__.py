"""Trends in the number of classes, the dimension, the temperature and time: fits, forms, tests and predictions. Uses rows
and statistics; must not know effects, figures or pages."""
