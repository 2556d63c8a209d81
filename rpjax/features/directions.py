"""Few public directions: where classes differ, or where images vary most.

Noise has the same size in every coordinate and the norm is shared among them, so each
direction must earn its place. Scales matter too: a direction is whitened, wholly or by
half, so that the bound is not spent on the one along which images happen to vary most.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rpjax.errors import InputError
from rpjax.features.trunk import Features, class_means


class Projection(NamedTuple):
    """``(x - origin) @ matrix``; origin (d,), matrix (d, m)."""

    origin: Float[np.ndarray, " d"]
    matrix: Float[np.ndarray, "d m"]

    def __call__(self, features: Features) -> Float[np.ndarray, "n m"]:
        """Features (n, d) as (n, m)."""
        projected: np.ndarray = (features - self.origin) @ self.matrix
        return projected


def principal(features: Features, dimension: int) -> Projection:
    """The directions of largest variance, each scaled to the root of its deviation.

    Between no whitening, which spends the bound on the first few, and a full one, which
    weighs the last like the first.
    """
    _check(dimension, features.shape[1])
    origin = features.mean(0)
    variances, directions = _by_size(np.cov((features - origin).T))
    kept = np.maximum(variances[:dimension], 1e-12 * variances[0])
    return Projection(origin, directions[:, :dimension] / kept**0.25)


def discriminant(
    features: Features, labels: Int[np.ndarray, " n"], dimension: int, ridge: float
) -> Projection:
    """Directions in which classes differ most, then those that vary most otherwise.

    All are white within classes: the mean covariance of the classes, with `ridge` times
    its mean variance added to the diagonal, becomes the identity. The first k - 1 are
    those of Fisher's discriminant; the private means may differ from the public ones in
    the others.
    """
    _check(dimension, features.shape[1])
    classes = int(labels.max()) + 1
    means = class_means(features, labels, classes)
    within = np.cov((features - means[labels]).T)
    within += ridge * np.trace(within) / len(within) * np.eye(len(within))
    root = np.linalg.cholesky(within)
    whiten = np.linalg.inv(root).T
    apart = (means - means.mean(0)) @ whiten
    first = _by_size(apart.T @ apart)[1][:, : min(classes - 1, dimension)]
    rest = np.eye(len(within)) - first @ first.T
    others = _by_size(rest @ root.T @ root @ rest)[1]
    kept = np.hstack([first, others[:, : dimension - first.shape[1]]])
    return Projection(means.mean(0), whiten @ kept)


def _by_size(
    symmetric: Float[np.ndarray, "d d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Eigenvalues from the largest on, and their vectors as columns."""
    values, vectors = np.linalg.eigh(symmetric)
    return values[::-1], vectors[:, ::-1]


def _check(dimension: int, most: int) -> None:
    if not 1 <= dimension <= most:
        raise InputError(f"dimension is {dimension}; it must lie in 1 to {most}")
