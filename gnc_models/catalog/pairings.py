"""Which loss, classifier, normalization and sizes go together. Knows no torch, so that a study is refused at once.

`check_pairing` raises on the first rule that is broken; the sets are the rules' subjects by name.
"""

# They scale features and rows to unit length themselves: another normalization would be a name without effect.
ON_THE_SPHERE = frozenset({"hug_mhe", "hug_mhs", "hug_mgd", "cosface", "arcface", "supervised_contrastive"})
# Their value does not depend on the temperature; accuracy and the measured cross-entropy still do.
WITHOUT_TEMPERATURE = frozenset({"hardmax", "hug_mhe", "hug_mhs", "hug_mgd"})
# Classifier rows get no gradient from them, so rows that only a gradient moves would stay where they start.
WITHOUT_ROW_GRADIENT = frozenset({"supervised_contrastive"})

# Their value is no mean over samples, one by one: workers that share a batch must bring all its features together.
ACROSS_SAMPLES = frozenset({"log_cross_entropy", "hardmax", "hug_mhe", "hug_mhs", "hug_mgd", "supervised_contrastive"})


def check_pairing(
    *,
    loss: str,
    classifier: str,
    normalization: str,
    num_classes: int,
    feature_dim: int,
    code: str | None = None,
    logdet_eps: float | None = None,
) -> None:
    """Raise unless these settings can be trained together.

    Args:
        loss: a name in `losses.LOSSES`.
        classifier: a name in `classifiers.CLASSIFIERS`.
        normalization: a name in `classifiers.NORMALIZATIONS`.
        num_classes: K.
        feature_dim: d.
        code: of the classifier "fixed", None for the others.
        logdet_eps: of the loss "hug_mgd", None for the others.
    Raises:
        ValueError: one sentence on the pair that is impossible, and its cure.
    """
    check_classifier(classifier, normalization, num_classes, feature_dim, code)
    if loss in ON_THE_SPHERE and normalization != "both":
        raise ValueError(
            f"normalization must be 'both' for loss {loss!r}, got {normalization!r}. "
            f"The loss scales features and rows to unit length itself."
        )
    if loss == "hardmax" and normalization != "both":
        raise ValueError(
            f"normalization must be 'both' for loss 'hardmax', got {normalization!r}. "
            "It would fall without bound as norms grow."
        )
    if loss in WITHOUT_ROW_GRADIENT and classifier == "linear":
        raise ValueError(
            f"classifier must be 'class_mean' or 'fixed' for loss {loss!r}, got 'linear'. "
            f"Its rows would get no gradient and never move."
        )
    if loss == "hug_mgd" and logdet_eps is None:
        raise ValueError(
            "logdet_eps must be given for loss 'hug_mgd', got None. "
            "Without it the loss falls without bound as a class collapses."
        )


def check_classifier(classifier: str, normalization: str, num_classes: int, feature_dim: int, code: str | None) -> None:
    """The rules on the classifier alone; ValueError as in `check_pairing`."""
    if classifier == "class_mean" and normalization == "none":
        raise ValueError(
            "normalization must not be 'none' for classifier 'class_mean', got 'none'. "
            "Its rows have unit length and features of any length would be averaged by their length."
        )
    if classifier == "fixed" and code == "simplex" and num_classes > feature_dim + 1:
        raise ValueError(
            f"code must fit into feature_dim, got 'simplex' with {num_classes} classes in {feature_dim} dimensions. "
            f"A simplex has at most feature_dim + 1 points: use code 'best'."
        )
