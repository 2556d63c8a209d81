"""Class weights from counts, fixed or from some step on."""

import numpy as np
import numpy.typing as npt

from rpjax.counts import Counts
from rpjax.errors import InputError
from rpjax.learners.losses.loss import Loss, Losses, Phase, unweighted
from rpjax.learners.losses.plain import cross_entropy

Floats = npt.NDArray[np.float64]
BETA = 0.9999


def inverse_weights(counts: Counts) -> Floats:
    """``N / (K n_c)``, float64 (k,): their mean over the records is one.

    >>> inverse_weights(Counts((90, 10), "public")).round(4).tolist()
    [0.5556, 5.0]
    """
    values = counts.positive()
    weights: Floats = counts.total / (counts.classes * values)
    return weights


def effective_number_weights(counts: Counts, beta: float = BETA) -> Floats:
    """``(1 - beta) / (1 - beta^n_c)``, scaled to add up to K, float64 (k,).

    The effective number of n records is (1 - beta^n) / (1 - beta): uniform weights at
    beta = 0, inverse counts in the limit of one. Source: Cui et al., "Class-Balanced
    Loss Based on Effective Number of Samples", CVPR 2019.

    >>> effective_number_weights(Counts((90, 10), "public"), 0.9).round(4).tolist()
    [0.7889, 1.2111]
    """
    if not 0 <= beta < 1:
        raise InputError(f"beta is {beta}; it must lie in [0, 1)")
    values = counts.positive()
    if beta == 0:
        return np.ones(counts.classes)
    # 1 - beta^n without cancellation where beta is close to one
    weights: Floats = -1 / np.expm1(values * np.log(beta))
    return np.asarray(weights * counts.classes / weights.sum())


def class_weighted(counts: Counts, base: Losses = cross_entropy) -> Loss:
    """`base`, each class weighing the same in all: weights ``N / (K n_c)``.

    Under DP-SGD the weights come after clipping, and the sum has sensitivity
    clip_norm times the largest of them, N / (K min n_c).
    """
    return _weighted("class-weighted", counts, inverse_weights(counts), base)


def class_balanced(
    counts: Counts, beta: float = BETA, base: Losses = cross_entropy
) -> Loss:
    """`base`, weighted by `effective_number_weights`; see `class_weighted` for DP."""
    return _weighted(
        f"class-balanced (beta {beta:g})",
        counts,
        effective_number_weights(counts, beta),
        base,
    )


def deferred(
    counts: Counts, start: int, beta: float = BETA, base: Losses = cross_entropy
) -> Loss:
    """Deferred reweighting (DRW): all weights one before step `start`, then balanced.

    From `start` on, weights are `effective_number_weights`. With `ldam(counts)` as its
    base this is LDAM-DRW. Source: Cao et al., NeurIPS 2019, where it starts at epoch
    160 of 200, together with a learning rate a hundredth as large.

    start: 1 or more, in steps.
    """
    if start < 1:
        raise InputError(
            f"start is {start}; it must be >= 1: class_balanced weighs from the start"
        )
    later = effective_number_weights(counts, beta)
    phases = (Phase(0, (1.0,) * counts.classes), Phase(start, tuple(later.tolist())))
    return _from(f"deferred (step {start}, beta {beta:g})", counts, phases, base)


def _weighted(name: str, counts: Counts, weights: Floats, base: Losses) -> Loss:
    return _from(name, counts, (Phase(0, tuple(weights.tolist())),), base)


def _from(name: str, counts: Counts, phases: tuple[Phase, ...], base: Losses) -> Loss:
    """The base with these weights, and with whatever else it was made of."""
    of, values, sources = unweighted(base)
    return Loss(f"{name} {of}", values, phases, (counts, *sources))
