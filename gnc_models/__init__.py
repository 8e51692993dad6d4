"""The mathematics: tensors in, tensors or numbers out. Knows torch, torchvision, numpy, scipy and Pillow.

Does not know the study, results folders, Ray, Optuna, Parquet or figures.
"""
