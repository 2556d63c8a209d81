"""Membership from labels alone: which queries of a record a model gets right.

Aerni, Zhang and Tramèr (CCS 2024): for each record, a logistic regression over the
shadow models from the bits "right at query q" to whether the model had the record. On
plain arrays with the conventions of `rpjax.attacks.arrays`.
"""

import numpy as np
import numpy.typing as npt
import scipy
from jaxtyping import Bool, Float

from rpjax.attacks import arrays
from rpjax.errors import InputError

Array = npt.NDArray[np.float64]

MOST_STEPS, TOLERANCE = 50, 1e-8


def correctness_lira(
    correct_a: npt.ArrayLike,
    coins_a: npt.ArrayLike,
    correct_b: npt.ArrayLike,
    *,
    ridge: float = 1.0,
) -> Float[np.ndarray, "models records"]:
    """Log-likelihood ratio of a record's correctness bits, (models of B, records).

    The regression's log-odds less those of the record's coins, so that records with
    more models IN than OUT are not ranked higher for it.

    Args:
        correct_a: `signals.correct` by the shadow models, (models, records, queries).
        coins_a: whether a record was in a shadow model's training set.
        correct_b: the same by the targets.
        ridge: half its product with the squared weights is added to the sum of the
            cross-entropies (scikit-learn's 1 / C); the intercept is free.

    Raises:
        InputError: wrong shapes, bits that are none, a record never in or never out.
    """
    a, asked = arrays.known_and_asked(correct_a, coins_a, correct_b)
    for field, bits in (("correct_a", a.scores), ("correct_b", asked)):
        if not np.isin(bits, (0, 1)).all():
            raise InputError(f"{field}: 1 where a label was right, else 0")
    if not 0 < ridge < np.inf:
        raise InputError(f"ridge is {ridge!r}; it is positive and finite")
    arrays.check_worlds(a.coins, 1, 1)
    weights = fitted(np.moveaxis(a.scores, 1, 0), a.coins.T, ridge)
    inside = a.coins.sum(0)
    prior = np.log(inside / (len(a.coins) - inside))
    log_odds = np.einsum("riq,iq->ri", asked, weights[:, 1:]) + weights[:, 0]
    ratio: Array = log_odds - prior
    return ratio


def fitted(
    features: Float[np.ndarray, "fits n d"],
    targets: Bool[np.ndarray, "fits n"],
    ridge: float,
) -> Float[np.ndarray, "fits weights"]:
    """Many ridge-penalised logistic regressions at once: intercept first, then weights.

    Newton's method on the penalised cross-entropies, which are strictly convex where
    both answers occur.
    """
    x = np.concatenate([np.ones((*features.shape[:2], 1)), features], -1)
    penalty = np.where(np.arange(x.shape[-1]) > 0, ridge, 0.0)
    weights = np.zeros((len(x), x.shape[-1]))
    for _ in range(MOST_STEPS):
        p = scipy.special.expit(np.einsum("fnd,fd->fn", x, weights))
        gradient = np.einsum("fnd,fn->fd", x, p - targets) + penalty * weights
        if np.abs(gradient).max() < TOLERANCE:
            return weights
        curvature = np.swapaxes(x * (p * (1 - p))[..., None], 1, 2) @ x
        curvature += np.diag(penalty)
        weights = weights - np.linalg.solve(curvature, gradient[..., None])[..., 0]
    raise InputError(f"ridge is {ridge!r}: no fit in {MOST_STEPS} steps; raise it")
