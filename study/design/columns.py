"""Every measured or recorded column with its type, unit and meaning, written once and used everywhere.

Dataclasses alone; the schemas of the tables are made from them in study.store.schemas. Formulas are in docs/metrics.md.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any


def _column(unit: str, meaning: str, better: str = "", *, role: str = "") -> Any:
    return dataclasses.field(metadata={"unit": unit, "meaning": meaning, "better": better, "role": role})


# What a column is, said on the column itself: about classifier rows; different between two correct runs of a trial
# (time, host, memory, attempt); of the machine and its software; whether little or much of it is better.
_of_rows = partial(_column, role="rows")
_of_run = partial(_column, role="run")
_of_machine = partial(_column, role="machine")
_min, _max = partial(_column, better="min"), partial(_column, better="max")
_rows_min, _rows_max = partial(_of_rows, better="min"), partial(_of_rows, better="max")
_run_min = partial(_of_run, better="min")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured epoch of one trial. None means that the quantity does not exist here, never zero."""

    epoch: int = _column("epochs", "Passes over the training set begun so far; 0 is the untrained network.")
    step: int = _column("steps", "Optimiser steps so far.")
    terminal: bool = _column("", "Whether train_accuracy reached 0.99 at this or an earlier evaluated epoch.")
    stationary: bool | None = _column(
        "", "Whether training was found at rest at this or an earlier checked epoch; null unless budget is stationary."
    )
    stationary_step: int | None = _column("steps", "Step at which it was found at rest; null before, or if never.")
    train_loss: float = _min("nats", "Mean cross-entropy on the un-augmented training set, evaluation mode.")
    train_accuracy: float = _max("share", "Accuracy on the un-augmented training set, evaluation mode.")
    objective: float | None = _min("", "What training minimises, averaged over the last epoch's steps.")
    label_entropy: float | None = _column("nats", "Label's entropy given its context, the least train_loss; text only.")
    loss_above_entropy: float | None = _min("nats", "train_loss - label_entropy; text only.")
    test_accuracy: float | None = _max("share", "Accuracy on the test set.")
    unseen_accuracy: float | None = _max("share", "Accuracy on the font family kept out of training.")
    gnc1_pinv: float | None = _min("", "trace(Sigma_W pinv(Sigma_B)) / K; falls as 1/K by itself, do not fit in K.")
    gnc1_rank: float | None = _min("", "trace(Sigma_W pinv(Sigma_B)) / rank(Sigma_B).")
    gnc1_quotient: float | None = _min("", "tr Sigma_W / tr Sigma_B.")
    trace_within: float | None = _min("squared distance", "tr Sigma_W of the unit-length features.")
    trace_within_balanced: float | None = _min("squared distance", "trace_within, each class with equal weight.")
    gnc1_quotient_balanced: float | None = _min("", "gnc1_quotient, each class's variance with equal weight.")
    within_log_energy: float | None = _max(
        "", "HUG within classes: mean log 1/|x - y| over pairs of a class's unit features; grows under collapse."
    )
    within_distance: float | None = _min("distance", "Mean |x - y| over pairs of a class's unit features.")
    gnc1_pinv_weighted: float | None = _min("", "As gnc1_pinv, Sigma_B about the mean of all samples.")
    gnc1_quotient_weighted: float | None = _min("", "As gnc1_quotient, Sigma_B about the mean of all samples.")
    cdnv: float | None = _min("", "Mean over class pairs of (var_i + var_j) / (2 |mu_i - mu_j|^2).")
    cdnv_nearest: float | None = _min("", "Mean over classes of var_k / min_j |mu_k - mu_j|^2.")
    margin_min_lower: float = _rows_max("distance", "Certified lower bound of the minimum one-vs-rest margin of W.")
    margin_min_upper: float = _rows_max("distance", "Certified upper bound of the minimum one-vs-rest margin of W.")
    margin_mean: float = _rows_max("distance", "Mean over classes of the one-vs-rest margin of W (interval midpoints).")
    margin_q05: float = _rows_max("distance", "5 % quantile over classes of the one-vs-rest margin of W.")
    margin_q50: float = _rows_max("distance", "Median over classes of the one-vs-rest margin of W.")
    margin_q95: float = _rows_max("distance", "95 % quantile over classes of the one-vs-rest margin of W.")
    margin_share_1: float | None = _of_rows("share", "Classes whose margin certainly exceeds 1.01 times the minimum.")
    margin_share_5: float | None = _of_rows("share", "Classes whose margin certainly exceeds 1.05 times the minimum.")
    margin_share_20: float | None = _of_rows("share", "Classes whose margin certainly exceeds 1.2 times the minimum.")
    margin_rare_min_lower: float | None = _rows_max(
        "distance", "Lower bound of the rarest third's least margin; null if balanced."
    )
    margin_rare_min_upper: float | None = _rows_max("distance", "Upper bound of the rarest third's least margin.")
    margin_rare_q50: float | None = _rows_max("distance", "Median margin of the rarest third of classes.")
    weight_rare_cosine: float | None = _rows_min("cosine", "Mean cosine of the rarest third's rows; 1 if collapsed.")
    margin_frequent_min_lower: float | None = _rows_max(
        "distance", "Lower bound of the frequent third's least margin; null if balanced."
    )
    margin_frequent_min_upper: float | None = _rows_max("distance", "Upper bound of the frequent third's least margin.")
    margin_frequent_q50: float | None = _rows_max("distance", "Median margin of the most frequent third of classes.")
    weight_frequent_cosine: float | None = _of_rows("cosine", "Mean cosine between rows of the most frequent third.")
    margin_count_correlation: float | None = _of_rows(
        "", "Spearman correlation over classes of margin and training samples; null if balanced."
    )
    rattler_count: int | None = _of_rows(
        "classes", "Classes whose row can be left out without changing the minimum margin of W (certified)."
    )
    mean_margin_min_lower: float = _max("distance", "Lower bound of the minimum margin of the unit class means.")
    mean_margin_min_upper: float = _max("distance", "Upper bound of the minimum margin of the unit class means.")
    mean_direction_margin_min: float = _rows_max("distance", "Ladder: min_k min_j <w_k - w_j, unit mean_k>.")
    sample_margin_min: float = _rows_max("distance", "Ladder: min over samples of min_j <w_y - w_j, unit h>.")
    sample_margin_q01: float = _rows_max("distance", "1 % quantile over samples of min_j <w_y - w_j, unit h>.")
    max_cosine: float = _rows_min("cosine", "Largest cosine between two classifier rows.")
    log_energy_mean: float | None = _min("", "Mean over pairs of log 1/|x - y|, centred unit class means.")
    log_energy_var: float | None = _column("", "Variance over pairs of log 1/|x - y|, centred unit class means.")
    mean_riesz_energy: float | None = _min("", "Mean over pairs of 1/|x - y|^2, unit class means (HUG's MHE).")
    mean_min_distance: float | None = _max("distance", "Least distance of two unit class means (HUG's MHS).")
    weight_riesz_energy: float | None = _rows_min("", "Mean over pairs of 1/|x - y|^2, unit classifier rows.")
    weight_log_energy: float | None = _rows_min("", "Mean over pairs of log 1/|x - y|, unit classifier rows.")
    weight_min_distance: float | None = _rows_max("distance", "Least distance of two unit classifier rows.")
    gnc3: float | None = _rows_min(
        "", "Mean of 1 - cos(class mean - global mean, classifier row), as the paper's code."
    )
    gnc3_weighted: float | None = _rows_min(
        "", "As gnc3, the global mean that of all samples: classes by their counts."
    )
    gnc3_uncentred: float = _rows_min("", "Mean of 1 - cos(class mean, classifier row), as the hypothesis.")
    gnc3_uniform: float | None = _rows_min("", "Variance over classes of cos(class mean - global mean, row).")
    gnc3_uniform_uncentred: float | None = _rows_min("", "Variance over classes of cos(class mean, row).")
    gnc3_cross: float | None = _rows_min("", "Variance over pairs k != j of cos(row k, class mean j - global mean).")
    ncc_agreement: float = _rows_max("share", "Training samples where classifier and nearest class mean agree.")
    ncc_test_accuracy: float | None = _max("share", "Test accuracy of the nearest class mean.")
    active_classes: float | None = _of_rows(
        "classes", "Effective number of wrong classes a sample's gradient is on: mean exp entropy of their softmax."
    )
    ood_deviation: float | None = _min("cosine", "NC5: mean over classes of |cos(class mean, mean OoD feature)|.")
    input_correlation: float | None = _of_rows("", "Correlation over class pairs of cosines of mean inputs and rows.")
    feature_effective_rank: float | None = _column("dimensions", "exp entropy of the features' singular values.")
    weight_effective_rank: float | None = _of_rows("dimensions", "exp entropy of the unit rows' singular values.")
    layer_names: list[str] | None = _column("", "Stages of the network, input first, that the layer_ columns are of.")
    layer_gnc1_quotient: list[float] | None = _min("", "gnc1_quotient of each stage's outputs, not normalised.")
    layer_cdnv: list[float] | None = _min("", "cdnv of each stage's outputs.")
    layer_ncc_accuracy: list[float] | None = _max("share", "Nearest-class-mean training accuracy at each stage.")
    fgsm_accuracy: list[float] | None = _max("share", "Test accuracy under FGSM at each of attack_radii.")
    pgd_accuracy: list[float] | None = _max("share", "Test accuracy under 20 steps of PGD at each of attack_radii.")
    mean_equinorm: float | None = _min("", "Coefficient of variation of the norms of class mean - global mean.")
    mean_equiangularity: float | None = _min("cosine", "Standard deviation over pairs of cosines of centred means.")
    mean_angle_gap: float | None = _min("cosine", "Mean over pairs of |cos + 1/(K - 1)|, centred class means.")
    weight_equiangularity: float | None = _rows_min("cosine", "Standard deviation over pairs of cosines of rows.")
    weight_angle_gap: float | None = _rows_min("cosine", "Mean over pairs of |cos + 1/(K - 1)|, classifier rows.")
    mean_etf_error: float | None = _min("", "Distance of the centred means' Gram matrix, norm 1, from a simplex's.")
    weight_etf_error: float | None = _rows_min("", "Distance of the rows' Gram matrix, norm 1, from a simplex's.")
    duality_error: float | None = _rows_min("", "Distance of rows times centred means, norm 1, from a simplex's Gram.")
    self_duality_distance: float | None = _rows_min("", "Distance of rows and centred class means, each of norm 1.")
    weight_norm_mean: float = _of_rows("norm", "Mean norm of the classifier rows.")
    weight_norm_cv: float = _of_rows("", "Coefficient of variation of the classifier rows' norms.")
    feature_norm_mean: float = _column("norm", "Mean norm of the features before any normalization.")
    feature_norm_cv: float = _column("", "Coefficient of variation of the features' norms before any normalization.")
    hull_margin_min_lower: float | None = _rows_max(
        "", "Lower bound of the minimum margin of the raw rows over the RMS centred row norm; null if W is normalised."
    )
    hull_margin_min_upper: float | None = _rows_max(
        "", "Upper bound of the minimum margin of the raw rows over the RMS centred row norm; null if W is normalised."
    )
    centred_margin_min_lower: float | None = _rows_max(
        "distance", "Lower bound of the minimum margin of the centred unit rows; null if W is normalised."
    )
    centred_margin_min_upper: float | None = _rows_max(
        "distance", "Upper bound of the minimum margin of the centred unit rows; null if W is normalised."
    )
    effective_temperature: float | None = _of_rows(
        "", "temperature / (rms|h| rms|w|), norms counted only where the head does not normalise; null for both."
    )
    custom: dict[str, float] | None = _column("", "Values of the study's own metrics by name; null where not finite.")
    wall_seconds: float = _run_min(
        "seconds", "Time of this trial so far, with data and start; not work lost to a kill."
    )
    peak_memory_bytes: int | None = _run_min("bytes", "Peak memory of this trial so far; null if unknown.")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a row is compared with; added when tables are read or sealed, so a better table changes no fragment."""

    reference_margin_lower: float | None = _column("distance", "Margin of the best code known for (K, d).")
    reference_margin_upper: float | None = _column("distance", "Proven upper bound of the margin for (K, d).")
    reference_source: str | None = _column("", "Where reference_margin_lower comes from.")
    reference_version: str | None = _column("", "Version of the reference tables.")
    random_margin: float | None = _column("distance", "Median minimum margin of K random unit rows in d dimensions.")
    random_margin_lower: float | None = _column("distance", "Lower end of random_margin: its draws and interpolation.")
    random_margin_upper: float | None = _column(
        "distance", "Upper end of random_margin, as the lower one at about 95 %."
    )
    margin_score: float | None = _max("", "(margin_min_lower - random) / (best - random): 0 random, 1 best known.")
    margin_score_lower: float | None = _max("", "Least margin_score, given the intervals of margin and random_margin.")
    margin_score_upper: float | None = _max("", "Largest margin_score, as the least.")
    margin_ratio_lower: float | None = _max("", "margin_min_lower / reference_margin_upper.")
    margin_ratio_upper: float | None = _max("", "margin_min_upper / reference_margin_lower.")
    ufm_margin: float | None = _column("distance", "Minimum margin of the unconstrained-feature model at ufm_loss.")
    ufm_margin_low: float | None = _column("distance", "Least margin of the minima found within 1e-4 of ufm_loss.")
    ufm_margin_high: float | None = _column("distance", "Largest margin of the minima found within 1e-4 of ufm_loss.")
    ufm_loss: float | None = _column("nats", "Best loss found for the unconstrained-feature model at this temperature.")
    loss_excess: float | None = _min("nats", "train_loss - ufm_loss; null with unbalanced classes or noisy labels.")
    uniform_log_energy: float | None = _column("", "Mean log energy of uniform points in d dimensions: the null.")
    log_energy_bound: float | None = _column("", "Least log energy that K points can have.")
    uniform_riesz_energy: float | None = _column("", "Mean energy 1/|x - y|^2 of uniform points; null where infinite.")
    riesz_energy_bound: float | None = _column("", "Least energy 1/|x - y|^2 that K points can have.")
    separation_bound: float | None = _column("distance", "Most that the least distance of K points can be.")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """How one trial went: a row of trials.parquet beside its settings, kept in the fragment's footer."""

    state: str = _column("", "complete, stopped (early, by a scheduler), diverged or failed.")
    reason: str | None = _column("", "Why the trial is not complete.")
    stopped_by: str | None = _column("", "Digest of the scheduler's rule that stopped the trial.")
    attempts: int = _of_run("", "Times the trial was started.")
    resumed: bool = _of_run("", "Whether the last attempt continued from a checkpoint.")
    reached_terminal: bool | None = _column("", "Whether train_accuracy reached 0.99 at an evaluated epoch.")
    seconds: float | None = _of_run("seconds", "Time of the trial, data and start included; not work lost to a kill.")
    finished_at: str | None = _of_run("", "UTC time of the end, ISO 8601.")
    host: str | None = _of_run("", "Machine that finished the trial.")
    cpu_model: str | None = _of_machine("", "CPU of that machine.")
    gpu_model: str | None = _of_machine("", "GPU the trial used; null on CPU.")
    versions: str | None = _of_machine("", "Versions, as JSON, of Python and packages that decide numbers and data.")
    dataset_digest: str | None = _column("", "SHA-256 of the data tensors.")
    code_digest: str | None = _column("", "SHA-256 of the rows of a classifier fixed at the best code.")


@dataclass(frozen=True, kw_only=True)
class SealedFrom:
    """Which file a sealed trial was read from: what decides that it need not be read again."""

    fragment_name: str | None = _of_run("", "Name of the trial's file in rows/, kept once an archive holds the trial.")
    fragment_bytes: int | None = _of_run("bytes", "Size of the trial's file when sealed; null once archived.")
    fragment_modified_ns: int | None = _of_run("nanoseconds", "Modification time of that file; null once archived.")


def columns_with(role: str) -> tuple[str, ...]:
    """The columns that have this role, in their order."""
    records = (Measurement, Reference, TrialRecord, SealedFrom)
    return tuple(f.name for record in records for f in dataclasses.fields(record) if f.metadata["role"] == role)
