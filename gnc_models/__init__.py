"""The mathematics: tensors in, tensors or numbers out. Does not know the study, results folders, Ray or figures."""
