"""Huber regression: linear fits that one outlier cannot bend, for many right-hand sides at once, and their errors.
Each row is a cell whose seeds were averaged already, so rows are independent. Knows numpy and scipy only."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

ROUNDS = 60
FEW_COLUMNS = 16  # up to so many, the products of all pairs of columns are made once
# 1.345 residual scales keep 95 % of least squares' precision on Gaussian noise (Huber 1964).
HUBER_SCALES = 1.345
FLOOR = 1e-12  # threshold of data without noise
CLOSE = 1e6  # condition up to which a cluster's share is inverted by the columns instead of by its rows


class Groups:
    """Which rows are of one group. group: [n], the number of each row's group, 0 up, each with a row."""

    def __init__(self, group: np.ndarray) -> None:
        self.group, self.counts = group, np.bincount(group)
        self._order = np.argsort(group, kind="stable")
        self._ends = np.concatenate([[0], np.cumsum(self.counts)])

    def means(self, columns: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Weighted means [groups, q] of columns [n, q]."""
        weights = np.ones(len(self.group)) if weights is None else weights
        shape = (len(self.counts), len(self.group))
        sums = csr_matrix((weights[self._order], self._order, self._ends), shape=shape) @ columns
        return np.asarray(sums / np.bincount(self.group, weights)[:, None])

    def centred(self, columns: np.ndarray) -> np.ndarray:
        """Columns [n, q] without the means of their groups."""
        return np.asarray(columns - self.means(columns)[self.group])


@dataclass(frozen=True, eq=False)
class Design:
    """Columns [n, q] of a linear model and, where groups have levels of their own, the group of each row, 0 up, [n].
    Coefficients are those of the columns, then the `levels` of all groups. A study of many settings has thousands of
    levels, which are never columns here but in `dense`."""

    columns: np.ndarray
    group: np.ndarray | None = None
    levels: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.columns), self.columns.shape[1] + self.levels

    @property
    def dense(self) -> np.ndarray:
        """All columns [n, p], those of the levels too."""
        return self.columns if self.group is None else np.hstack([self.columns, np.eye(self.levels)[self.group]])

    def at(self, coefficients: np.ndarray) -> np.ndarray:
        count = self.columns.shape[1]
        linear = self.columns @ coefficients[:count]
        return np.asarray(linear if self.group is None else linear + coefficients[count:][self.group])

    def select(self, rows: np.ndarray) -> "Design":
        """These rows, a mask [n]."""
        return Design(self.columns[rows], None if self.group is None else self.group[rows], self.levels)

    def has_full_rank(self) -> bool:
        columns, group = self.columns, self.group
        if group is not None:
            if np.bincount(group, minlength=self.levels).min() == 0:
                return False
            columns = Groups(group).centred(columns)
        return bool(len(columns) >= self.shape[1] and np.linalg.matrix_rank(columns) == columns.shape[1])

    @cached_property
    def basis(self) -> "_Basis":
        if self.group is None or self.shape[1] <= FEW_COLUMNS:
            return _Basis(self.dense)
        return _LevelBasis(self.columns, self.group)


@dataclass(frozen=True)
class LinearFit:
    """coefficients [p], residuals [n] and the Huber threshold; what errors are made of is computed when it is asked for."""

    design: Design
    coefficients: np.ndarray
    residuals: np.ndarray
    threshold: float

    @property
    def degrees(self) -> int:
        """Degrees of freedom left, at least 1."""
        return max(len(self.residuals) - len(self.coefficients), 1)

    @property
    def variance(self) -> float:
        """Of the noise, from all residuals: without the bias that `scale` has where few residuals are left."""
        return float(self.residuals @ self.residuals) / self.degrees

    @property
    def scale(self) -> float:
        """Robust spread of a residual, for the degrees of freedom left."""
        return self.threshold / HUBER_SCALES

    @cached_property
    def inverse_gram(self) -> np.ndarray:
        """(X'X)^-1 [p, p]."""
        return np.linalg.inv(_gram(self.design.dense, np.ones(len(self.residuals))))

    @cached_property
    def leverages(self) -> np.ndarray:
        """Leverages [n] in 0..1."""
        hold, _ = self.hold_and_pull
        return np.clip((self._projected * self.design.dense).sum(axis=1) * hold, 0.0, 1 - 1e-9)

    @cached_property
    def covariance(self) -> np.ndarray:
        """HC3 covariance [p, p] of the coefficients."""
        pulls = self._projected * (self.hold_and_pull[1] / (1 - self.leverages))[:, None]
        return np.asarray(pulls.T @ pulls)

    @cached_property
    def hold_and_pull(self) -> tuple[np.ndarray, np.ndarray]:
        """Curvature and slope of the loss at each residual."""
        # beyond the threshold there is no curvature; a tenth is left, so that a matrix of few cells inside stays invertible
        hold = np.maximum(np.abs(self.residuals) <= max(self.threshold, FLOOR) * (1 + 1e-9), 0.1)
        return hold, _huber_weights(self.residuals, self.threshold) * self.residuals

    @cached_property
    def _projected(self) -> np.ndarray:
        dense = self.design.dense
        return np.asarray(dense @ np.linalg.inv(_gram(dense, self.hold_and_pull[0])))


def fit_linear(design: np.ndarray | Design, target: np.ndarray) -> LinearFit:
    """Minimise the summed Huber loss of `target - design @ coefficients`; design [n, p] of full column rank, target [n].
    The threshold is HUBER_SCALES robust residual scales of a first fit by least absolute deviations.
    Source: Huber, Ann. Math. Statist. 35 (1964); HC3 errors: MacKinnon and White, J. Econometrics 29 (1985)."""
    design = design if isinstance(design, Design) else Design(design)
    spread = np.abs(target - design.at(_reweighted(design, target[None], 0.0)[0]))
    degrees = max(len(target) - design.shape[1], 1)
    # least absolute deviations passes through p rows exactly: the median is taken over the others
    scale = float(np.median(np.sort(spread)[-degrees:])) / 0.6745
    threshold = HUBER_SCALES * scale
    coefficients = _reweighted(design, target[None], threshold)[0]
    return LinearFit(design, coefficients, target - design.at(coefficients), threshold)


def clustered_covariance(fit: LinearFit, cluster: np.ndarray) -> np.ndarray:
    """Covariance [p, p] where the residuals of a cluster [n] may have anything in common.
    Source: CR3 of Bell and McCaffrey, Survey Methodology 28 (2002), their jackknife form."""
    (hold, pull), dense = fit.hold_and_pull, fit.design.dense
    inverse = np.linalg.inv(_gram(dense, hold))
    scores = []
    for name in np.unique(cluster):
        mine = cluster == name
        own, slope, held = dense[mine], pull[mine], dense[mine] * hold[mine, None]
        apart = np.eye(len(inverse)) - held.T @ own @ inverse
        if np.linalg.cond(apart) < CLOSE:  # a cluster has hundreds of rows and a form few columns (Woodbury's identity)
            scores.append(own.T @ (slope + own @ inverse @ np.linalg.solve(apart, held.T @ slope)))
        else:
            rest = np.eye(len(own)) - own @ inverse @ held.T
            scores.append(own.T @ np.linalg.lstsq(rest, slope, rcond=1e-9)[0])
    pulls = np.stack(scores) @ inverse
    return np.asarray(pulls.T @ pulls)


def huber_losses(design: Design, targets: np.ndarray, threshold: float) -> np.ndarray:
    """The least summed Huber loss of every row of targets [batch, n], by a design without groups."""
    residuals = np.abs(targets - _reweighted(design, targets, threshold) @ design.columns.T)
    bent = np.where(residuals <= threshold, residuals**2 / 2, threshold * (residuals - threshold / 2))
    return np.asarray(bent.sum(axis=1))


def _reweighted(design: Design, targets: np.ndarray, threshold: float) -> np.ndarray:
    """Iteratively reweighted least squares; threshold 0 is least absolute deviations, smoothed at round-off."""
    weights, basis = np.ones_like(targets), design.basis
    floor = max(threshold, 1e-9 * (1 + float(np.abs(targets).max(initial=0.0))))
    coefficients = np.zeros((len(targets), design.shape[1]))
    for _ in range(ROUNDS):
        updated = basis.solve(weights, targets)
        moved = float(np.abs(updated - coefficients).max())
        coefficients = updated
        if moved < 1e-12 * (1 + float(np.abs(updated).max())):
            break
        weights = _huber_weights(targets - basis.at(coefficients), floor)
    return basis.of_columns(coefficients)


class _Basis:
    """Orthonormal columns: columns that are nearly alike and weights of 1e-9 together are singular."""

    def __init__(self, columns: np.ndarray) -> None:
        self.basis, self.triangle = np.linalg.qr(columns)
        pairs = self.basis[:, :, None] * self.basis[:, None, :] if columns.shape[1] <= FEW_COLUMNS else None
        self.products = None if pairs is None else pairs.reshape(len(columns), -1)

    def solve(self, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Coefficients [batch, p] of weighted least squares; weights, targets: [batch, n]."""
        gram = _gram(self.basis, weights) if self.products is None else weights @ self.products
        gram = gram.reshape(-1, *[self.basis.shape[1]] * 2)
        return np.asarray(np.linalg.solve(gram, ((weights * targets) @ self.basis)[..., None])[..., 0])

    def at(self, coefficients: np.ndarray) -> np.ndarray:
        return np.asarray(coefficients @ self.basis.T)

    def of_columns(self, coefficients: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.solve(self.triangle, coefficients.T).T)


class _LevelBasis(_Basis):
    """Levels of groups, and the columns freed of them and orthonormal; levels are eliminated each time. For a batch of one."""

    def __init__(self, columns: np.ndarray, group: np.ndarray) -> None:
        self.groups = Groups(group)
        self.means, self.roots = self.groups.means(columns), np.sqrt(self.groups.counts)  # of orthonormal level columns
        self.count = columns.shape[1]
        self.basis, self.triangle = np.linalg.qr(columns - self.means[group])

    def solve(self, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        ((weight,), (target,)), group = (weights, targets), self.groups.group
        both = self.groups.means(np.column_stack([self.basis, target]), weight)
        means, centre = both[:, :-1], both[:, -1]
        apart = self.basis - means[group]
        slopes = np.linalg.solve(_gram(apart, weight), apart.T @ (weight * (target - centre[group])))
        return np.concatenate([slopes, self.roots * (centre - means @ slopes)])[None]

    def at(self, coefficients: np.ndarray) -> np.ndarray:
        found = coefficients[0]
        return (self.basis @ found[: self.count] + (found[self.count :] / self.roots)[self.groups.group])[None]

    def of_columns(self, coefficients: np.ndarray) -> np.ndarray:
        slopes = np.linalg.solve(self.triangle, coefficients[0, : self.count])
        return np.concatenate([slopes, coefficients[0, self.count :] / self.roots - self.means @ slopes])[None]


def _gram(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(design.T @ (weights[..., None] * design))


def _huber_weights(residuals: np.ndarray, threshold: float) -> np.ndarray:
    floor = max(threshold, FLOOR)
    return floor / np.maximum(np.abs(residuals), floor)
