"""Which loss, classifier, normalization and sizes go together. Knows no torch, so that a study is refused at once."""

from gnc_models.catalog.members import LOSSES


def check_pairing(
    *, loss: str, classifier: str, normalization: str, num_classes: int, feature_dim: int, code: str | None = None
) -> None:
    """ValueError unless these settings can be trained together; `code` is that of the classifier "fixed", or None."""
    check_classifier(classifier, normalization, num_classes, feature_dim, code)
    member = LOSSES[loss]
    if member.only_both and normalization != "both":
        raise ValueError(f"normalization must be 'both' for loss {loss!r}, got {normalization!r}. {member.only_both}")
    if not member.moves_rows and classifier == "linear":
        rule = f"classifier must be 'class_mean' or 'fixed' for loss {loss!r}"
        raise ValueError(f"{rule}, got 'linear'. Its rows would get no gradient and never move.")


def check_classifier(classifier: str, normalization: str, num_classes: int, feature_dim: int, code: str | None) -> None:
    """The rules on the classifier alone; ValueError as in `check_pairing`."""
    if classifier == "class_mean" and normalization == "none":
        raise ValueError(
            "normalization must not be 'none' for classifier 'class_mean', got 'none'. "
            "Its rows have unit length, and long features would weigh more in the means than short ones."
        )
    if classifier == "fixed" and code == "simplex" and num_classes > feature_dim + 1:
        got = f"got 'simplex' with {num_classes} classes in {feature_dim} dimensions"
        cure = "A simplex has at most feature_dim + 1 points: use code 'best'."
        raise ValueError(f"code must fit into feature_dim, {got}. {cure}")
