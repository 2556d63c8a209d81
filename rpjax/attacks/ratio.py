"""A record's score relative to reference models and to a population of others.

RMIA (Zarifzadeh, Liu, Shokri, arXiv 2312.03262), BASE (Lassila et al., arXiv
2505.24089) and two simpler calibrations (Attack-R and Attack-P of Ye et al., arXiv
2111.09679), on plain arrays with the conventions of `rpjax.attacks.arrays`. They need
fewer shadow models than `lira`, for they estimate one number per record and no spread.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from rpjax.attacks import arrays
from rpjax.errors import InputError

Array = npt.NDArray[np.float64]
ModelScores = Float[np.ndarray, "models records"]

# a log-probability in float32 may lie this far above 0
ROUNDING = 1e-6


def base(
    log_probs_a: npt.ArrayLike,
    coins_a: npt.ArrayLike,
    log_probs_b: npt.ArrayLike,
    *,
    offline_a: float | None = None,
) -> ModelScores:
    """``log p(y | x; target) - log p(y | x)``, the score of BASE and ratio of RMIA.

    Online, ``p(y | x)`` is the mean of the reference models' mean probability IN and
    that OUT, which is the mean over all of them where a record is in half. Offline it
    is ``((1 + a) p_out + 1 - a) / 2`` with p_out the mean OUT. Over several queries the
    mean of the results is taken. One target's records are ranked by this as by RMIA,
    whatever its gamma.

    Args:
        log_probs_a: log-probability of the label by the reference models, (models,
            records) or (models, records, queries): `signals.loss`, or with a softmax at
            temperature 2 `signals.tempered_loss`.
        coins_a: whether a record was in a reference model's training set.
        log_probs_b: the same by the targets.
        offline_a: the paper's a, in [0, 1], for references that never had the record;
            about 0.3 on CIFAR-10, to be chosen on A alone. None for online.

    Raises:
        InputError: wrong shapes, values above 0, a record without the models needed.

    >>> p = np.array([[0.9], [0.5], [0.3], [0.6]])
    >>> base(np.log(p), [[1], [1], [0], [0]], np.log([[0.95]])).round(6).tolist()
    [[0.502092]]
    """
    a, asked = arrays.known_and_asked(log_probs_a, coins_a, log_probs_b)
    _check_log_probs(a.scores, "log_probs_a")
    _check_log_probs(asked, "log_probs_b")
    arrays.check_worlds(a.coins, 0 if offline_a is not None else 1, 1)
    log_out = _log_mean(a.scores, ~a.coins)
    if offline_a is None:
        log_mean = np.logaddexp(_log_mean(a.scores, a.coins), log_out)
    else:
        log_mean = _in_and_out(log_out, offline_a)
    ratios: ModelScores = (asked - log_mean + np.log(2)).mean(-1)
    return ratios


def rmia(
    ratios: npt.ArrayLike, population: npt.ArrayLike, *, gamma: float = 2.0
) -> ModelScores:
    """Share of the population over which a record's ratio dominates by `gamma`.

    It puts several targets on one scale. The share is of the z with
    ``R(x) - R(z) > log gamma``.

    Args:
        ratios: `base` of the records, (targets, records).
        population: `base` of records that are in no target's training set, (targets,
            others). Where no reference model had them either, they are offline.
        gamma: how many times likelier x must have become than z; at least 1.

    Raises:
        InputError: wrong shapes or gamma.
    """
    if not 1 <= gamma < np.inf:
        raise InputError(f"gamma is {gamma!r}; it is at least 1")
    x, z = _of_same_models(ratios, population, "ratios", "population")
    return _share_below(x - np.log(gamma), z)


def population_quantile(
    scores_b: npt.ArrayLike, population_b: npt.ArrayLike
) -> ModelScores:
    """Attack-P: share of a population of non-members that scores below the record.

    population_b: each target's scores of records that it was not trained on, (targets,
    others). Without shadow models; no better than the score itself on one target.
    """
    return _share_below(
        *_of_same_models(scores_b, population_b, "scores_b", "population_b")
    )


def difficulty_calibrated(
    scores_a: npt.ArrayLike, coins_a: npt.ArrayLike, scores_b: npt.ArrayLike
) -> ModelScores:
    """Attack-R: a score less its mean over the shadow models without the record.

    Difficulty calibration (Watson et al., arXiv 2111.08440): some records score low
    in every model. Queries are averaged.
    """
    a, asked = arrays.known_and_asked(scores_a, coins_a, scores_b)
    arrays.check_worlds(a.coins, 0, 1)
    total = np.where(a.coins[:, :, None], 0, a.scores).sum(0)
    without = total / (~a.coins).sum(0)[:, None]
    calibrated: ModelScores = (asked - without).mean(-1)
    return calibrated


def _in_and_out(log_out: Array, a: float) -> Array:
    """Twice p(y | x) where p_in is taken for a p_out + 1 - a."""
    if not 0 <= a <= 1:
        raise InputError(f"offline_a is {a!r}; it lies in [0, 1]")
    with np.errstate(divide="ignore"):  # log 0 at a = 1
        twice: Array = np.logaddexp(np.log1p(a) + log_out, np.log1p(-a))
    return twice


def _log_mean(log_probs: arrays.Scores, counted: arrays.Coins) -> Array:
    """Log of the mean probability over the models counted, (records, queries)."""
    own = np.where(counted[:, :, None], log_probs, -np.inf)
    mean: Array = np.logaddexp.reduce(own, 0) - np.log(counted.sum(0))[:, None]
    return mean


def _share_below(
    x: ModelScores, population: Float[np.ndarray, "models others"]
) -> ModelScores:
    below = [
        np.searchsorted(np.sort(z), own, side="left")
        for own, z in zip(x, population, strict=True)
    ]
    share: ModelScores = np.array(below) / population.shape[1]
    return share


def _of_same_models(
    x: npt.ArrayLike, population: npt.ArrayLike, name: str, population_name: str
) -> tuple[ModelScores, Float[np.ndarray, "models others"]]:
    own = arrays.checked_scores(x, name).mean(-1)
    others = arrays.checked_scores(population, population_name).mean(-1)
    if len(own) != len(others):
        raise InputError(
            f"{population_name}: {len(others)} models, but {name}: {len(own)}; "
            "each target answers on the population as well"
        )
    return own, others


def _check_log_probs(log_probs: arrays.Scores, field: str) -> None:
    if log_probs.max() > ROUNDING:
        raise InputError(
            f"{field}: {log_probs.max():.3g} is no log-probability; they are at most 0"
        )
