"""Attacks that know that a model's answers are noisy.

A defence that adds noise to the forward pass gives another score at each draw. Mean and
spread over draws both tell members from others: members often lie where the loss is
flat, and spread less. On plain arrays with the conventions of `rpjax.attacks.arrays`;
the axis of queries holds draws of the noise or, for ensembles, the members. Shadow
models are asked exactly as the target is.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
from jaxtyping import Float

from rpjax.attacks import arrays, likelihood
from rpjax.errors import InputError

Array = npt.NDArray[np.float64]
ModelScores = Float[np.ndarray, "models records"]


class NoisyWorld(NamedTuple):
    """Gaussian models of variance `between`, whose draws have variance `within`.

    mean, between, within: arrays (records,) or numbers; mean_error: variance of `mean`.
    """

    mean: npt.ArrayLike
    between: npt.ArrayLike
    within: npt.ArrayLike
    mean_error: npt.ArrayLike = 0.0


# ------------------------------------------------------------- mean and spread of draws


def joint_lira(
    scores_a: npt.ArrayLike,
    coins_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    nu0: float = 6.0,
) -> ModelScores:
    """Joint likelihood ratio of the mean and of the variance over draws.

    Draws of one model are taken for Gaussian. Targets may be asked for another number
    of draws than the shadow models (one has no variance): the noise left in the mean is
    scaled to it. With an ensemble's members in place of the draws, their disagreement
    is the second coordinate.

    Args:
        scores_a: of the shadow models, (models, records, draws), at least two draws.
        coins_a: whether a record was in a shadow model's training set.
        scores_b: of the targets, (models, records, draws).
        nu0: models' worth of trust in the variance over models of all records.

    Raises:
        InputError: wrong shapes or scores, a record never in or never out.
    """
    likelihood.check_prior(nu0, None)
    a = arrays.known(scores_a, coins_a, "_a")
    draws_a, asked = a.scores.shape[-1], arrays.checked_scores(scores_b, "scores_b")
    if draws_a < 2:
        raise InputError("scores_a: one draw each; a variance needs at least two")
    if asked.shape[1] != a.scores.shape[1]:
        raise InputError(
            f"scores_b: {asked.shape[1]} records, but scores_a: {a.scores.shape[1]}"
        )
    arrays.check_worlds(a.coins, 1, 1)
    mean, variance = a.scores.mean(-1), a.scores.var(-1, ddof=1)
    inside, outside = (
        _noisy_world(mean, variance, here, draws_a, nu0) for here in (a.coins, ~a.coins)
    )
    draws = asked.shape[-1]
    spread = asked.var(-1, ddof=1) if draws > 1 else np.zeros(asked.shape[:2])
    return joint_log_ratio(asked.mean(-1), spread, draws, inside, outside)


def joint_log_ratio(
    mean: npt.ArrayLike,
    variance: npt.ArrayLike,
    draws: int,
    inside: NoisyWorld,
    outside: NoisyWorld,
) -> Array:
    """Log-likelihood ratio of the mean and variance of so many draws.

    For K draws the mean is ``N(mu, sigma^2 + tau^2 / K)`` and, apart from it,
    ``(K - 1) v`` is ``tau^2`` times a chi-squared variable of K - 1 degrees.
    """
    ratio = _mean_log_density(mean, draws, inside) - _mean_log_density(
        mean, draws, outside
    )
    tau_in, tau_out = np.asarray(inside.within), np.asarray(outside.within)
    # the density's factor v^((K - 3) / 2) is common, and infinite where nothing varies
    per_draw = np.log(tau_in / tau_out) + np.asarray(variance) * (
        1 / tau_in - 1 / tau_out
    )
    found: Array = ratio - (draws - 1) / 2 * per_draw
    return found


def _mean_log_density(mean: npt.ArrayLike, draws: int, world: NoisyWorld) -> Array:
    """Up to a constant."""
    total = (
        np.asarray(world.between)
        + np.asarray(world.within) / draws
        + np.asarray(world.mean_error)
    )
    gap = np.asarray(mean) - np.asarray(world.mean)
    density: Array = -(gap**2) / (2 * total) - np.log(total) / 2
    return density


def _noisy_world(
    mean: ModelScores,
    variance: ModelScores,
    here: arrays.Coins,
    draws: int,
    nu0: float,
) -> NoisyWorld:
    """Both variances of one world, those of single records shrunk to those of all."""
    world = likelihood.World(
        *(x[:, 0] for x in likelihood.world(mean[..., None], here))
    )
    total = np.where(here, variance, 0).sum(0)
    within = _shrunken_variances(total / world.n, world.n * (draws - 1))
    # draws spread the means of models as well: what they explain is taken off
    freedom = world.n - 1
    excess = world.squares - freedom * within / draws
    floor = likelihood.FLOOR**2 * (np.var(mean) or 1.0)
    pooled = max(excess.sum() / max(freedom.sum(), 1), floor)
    between = np.maximum((nu0 * pooled + excess) / (nu0 + freedom), floor)
    return NoisyWorld(
        mean=world.mean,
        between=between,
        within=np.maximum(within, floor),
        mean_error=(between + within / draws) / world.n,
    )


def _shrunken_variances(variance: Array, freedom: Array) -> Array:
    """Variances drawn together in the log, by how little is known of each.

    A log-variance of d degrees of freedom has bias ``digamma(d / 2) - log(d / 2)`` and
    variance ``trigamma(d / 2)``; what more they spread is real (Smyth, Statistical
    Applications in Genetics and Molecular Biology 3, 2004).
    """
    pooled = np.sum(freedom * variance) / np.sum(freedom)
    if pooled == 0:
        return variance
    half = freedom / 2
    logs = np.log(np.maximum(variance, likelihood.FLOOR**2 * pooled))
    logs = logs - scipy.special.digamma(half) + np.log(half)
    noise = scipy.special.polygamma(1, half)
    real = max(float(np.var(logs) - noise.mean()), 0.0)
    centre = logs.mean()
    shrunken: Array = np.exp(centre + real / (real + noise) * (logs - centre))
    return shrunken


# ----------------------------------------------------------------- scores of several


def sensitivity(noisy: npt.ArrayLike, noise_off: npt.ArrayLike) -> arrays.Scores:
    """What the noise does to a score: (models, records, 3), for `vector_lira`.

    The coordinates: the score without noise, how far the mean over draws lies below
    it, and the log of the variance over draws. A defence may hide the first and leave
    the curvature of the loss to be seen.

    Args:
        noisy: scores (models, records, draws), at least two draws.
        noise_off: scores (models, records) of the same models without noise.

    Raises:
        InputError: wrong shapes or scores, draws that do not differ.
    """
    draws = arrays.checked_scores(noisy, "noisy")
    still = arrays.checked_scores(noise_off, "noise_off")[:, :, 0]
    if draws.shape[:2] != still.shape:
        raise InputError(f"noise_off: shape {still.shape}, but noisy: {draws.shape}")
    variance = draws.var(-1, ddof=1) if draws.shape[-1] > 1 else np.zeros(still.shape)
    if (variance == 0).any():
        raise InputError("noisy: some records score the same at each draw")
    return np.stack([still, still - draws.mean(-1), np.log(variance)], -1)


def vector_lira(
    scores_a: npt.ArrayLike,
    coins_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    nu0: float = 6.0,
    kappa0: float | None = None,
) -> ModelScores:
    """Online `lira` of vectors, with full covariances: multivariate Student-t.

    The last axis holds coordinates: those of `sensitivity`, or correlated queries. A
    record's covariance is shrunk to that of its world's other records; with one
    coordinate it is `lira`. Other arguments as there.

    Raises:
        InputError: as `lira`, and coordinates that depend linearly on each other.
    """
    likelihood.check_prior(nu0, kappa0)
    a, asked = arrays.known_and_asked(scores_a, coins_a, scores_b)
    arrays.check_worlds(a.coins, 1, 1)
    inside, outside = (
        _vector_log_density(a.scores, here, asked, nu0, kappa0)
        for here in (a.coins, ~a.coins)
    )
    ratio: ModelScores = inside - outside
    return ratio


def _vector_log_density(
    scores: arrays.Scores,
    here: arrays.Coins,
    asked: Float[np.ndarray, "targets records queries"],
    nu0: float,
    kappa0: float | None,
) -> Float[np.ndarray, "targets records"]:
    """Log-density of a further score under a normal-inverse-Wishart prior.

    Up to a constant of the number of coordinates, which all records share.
    """
    world = likelihood.world(scores, here)
    n, coordinates = world.n[:, 0], scores.shape[-1]
    deviation = np.where(here[:, :, None], scores - world.mean, 0)
    squares = np.einsum("rid,rie->ide", deviation, deviation)
    variance = likelihood.pooled_variance(world)
    pooled = squares.sum(0) / (n - 1).sum()
    centre = (world.n * world.mean).sum(0) / n.sum()
    if kappa0 is None:
        kappa0 = float(likelihood.trust_in_common_mean(world, variance).min())
    kappa, nu = kappa0 + n, nu0 + n
    gap = world.mean - centre
    outer = np.einsum("i,id,ie->ide", kappa0 * n / kappa, gap, gap)
    posterior = (nu0 * pooled + squares + outer) / nu[:, None, None]
    scale = posterior * (1 + 1 / kappa)[:, None, None]
    location = (kappa0 * centre + world.n * world.mean) / kappa[:, None]
    return _t_log_density(asked - location, scale, nu, coordinates)


def _t_log_density(
    gap: arrays.Scores, scale: Array, nu: Array, coordinates: int
) -> ModelScores:
    """Log-density of the multivariate Student-t, without the power of pi."""
    try:
        root = np.linalg.cholesky(scale)
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"scores_a: the {coordinates} coordinates depend linearly on each other, "
            "or one does not vary; leave some out"
        ) from error
    white = np.linalg.solve(root, np.moveaxis(gap, 0, -1))
    distance = (white**2).sum(1).T
    gammaln, half = scipy.special.gammaln, (nu + coordinates) / 2
    constant = gammaln(half) - gammaln(nu / 2) - coordinates / 2 * np.log(nu)
    log_root = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(-1)
    density: ModelScores = constant - log_root - half * np.log1p(distance / nu)
    return density


# ------------------------------------------------------------------ ensembles, labels


def ensemble_lira(
    scores_a: npt.ArrayLike,
    coins_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    **options: Any,
) -> ModelScores:
    """Sum over an ensemble's members of their log-likelihood ratios.

    For an attacker who has the weights of each member.

    Args:
        scores_a: of shadow ensembles, (ensembles, records, members), where each member
            is calibrated by those in its place; or of single shadow models, (models,
            records), where all members are calibrated by these.
        coins_a: whether a record was in a shadow model's training set.
        scores_b: of the target ensembles, (ensembles, records, members).
        options: those of `lira`.
    """
    b = arrays.checked_scores(scores_b, "scores_b")
    members = b.shape[-1]
    a = arrays.checked_scores(scores_a, "scores_a")
    if a.shape[-1] == 1:
        each = np.moveaxis(b, -1, 1).reshape(-1, b.shape[1])
        found = likelihood.lira(a, coins_a, each, **options)
        total: ModelScores = found.reshape(len(b), members, -1).sum(1)
    else:
        total = members * likelihood.lira(a, coins_a, b, queries="separate", **options)
    return total


def smoothed_probit(correct: npt.ArrayLike) -> ModelScores:
    """A confidence from labels alone: how often noise leaves the right one, as a score.

    With m of K draws right it is ``Phi^-1((m + 1/2) / (K + 1))``, about the distance to
    the decision boundary in standard deviations of the noise (Cohen, Rosenfeld, Kolter,
    arXiv 1902.02918), and finite where all or none are right. `lira` takes it as score.

    correct: (models, records, draws), 1 where the model's label was right, else 0.
    """
    bits = arrays.checked_scores(correct, "correct")
    if not np.isin(bits, (0, 1)).all():
        raise InputError("correct: 1 where a label was right, else 0")
    share = (bits.sum(-1) + 0.5) / (bits.shape[-1] + 1)
    probit: ModelScores = scipy.special.ndtri(share)
    return probit
