"""LiRA: how much likelier a record's score is from models that were trained with it.

Carlini et al., arXiv 2112.03570, on plain arrays (`rpjax.attacks.arrays` has the
conventions). For each record, the scores of the shadow models that had it (IN) and of
those that did not (OUT) give two distributions; a target's score is weighed by them.
With few shadow models the variance is the bottleneck, hence the default: the Student-t
that predicts a further score under a conjugate prior whose variance is pooled over the
records (the t-form of BaVarIA, Brännvall, arXiv 2603.11799).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
from jaxtyping import Bool, Float

from rpjax.attacks import arrays
from rpjax.errors import InputError

Array = npt.NDArray[np.float64]
ModelScores = Float[np.ndarray, "models records"]
ArrayAttack = Callable[[Any, Any, Any], ModelScores]

# a standard deviation is at least this share of that of all the world's scores
FLOOR = 1e-6


@dataclass(frozen=True)
class Rule:
    """How scores become a likelihood; the fields are those of `lira`."""

    variance: Literal["shrunken", "fixed", "per_record"] = "shrunken"
    offline: bool = False
    queries: Literal["average", "separate"] = "average"
    nu0: float = 6.0
    kappa0: float | None = None

    def __post_init__(self) -> None:
        if self.variance not in ("shrunken", "fixed", "per_record"):
            raise InputError(
                f"variance is {self.variance!r}; it is 'shrunken', 'fixed' or "
                "'per_record'"
            )
        if self.queries not in ("average", "separate"):
            raise InputError(
                f"queries is {self.queries!r}; it is 'average' or 'separate'"
            )
        check_prior(self.nu0, self.kappa0)

    def seen(
        self, scores: arrays.Scores
    ) -> Float[np.ndarray, "models records statistics"]:
        """What the likelihood is taken of."""
        return scores.mean(-1, keepdims=True) if self.queries == "average" else scores

    def check(self, coins: arrays.Coins) -> None:
        """Refuse records with too few models for this rule."""
        least = 2 if self.variance == "per_record" else 1
        arrays.check_worlds(coins, 0 if self.offline else least, least)


class World(NamedTuple):
    """The scores of the models that had a record, or of those that had not.

    n: (records, 1) models; mean, squares: (records, queries), the mean score and the
    sum of the squared deviations from it.
    """

    n: Array
    mean: Array
    squares: Array


class Predictive(NamedTuple):
    """Student-t or, where `df` is None, Gaussian laws of a further score."""

    df: Array | None
    location: Array
    scale: Array

    def logpdf(self, scores: Array) -> Array:
        """Log-density."""
        z = (scores - self.location) / self.scale
        if self.df is None:
            density: Array = -(z**2) / 2 - np.log(2 * np.pi) / 2 - np.log(self.scale)
            return density
        gammaln, half = scipy.special.gammaln, (self.df + 1) / 2
        constant = gammaln(half) - gammaln(self.df / 2) - np.log(np.pi * self.df) / 2
        t_density: Array = (
            constant - np.log(self.scale) - half * np.log1p(z**2 / self.df)
        )
        return t_density

    def log_odds(self, scores: Array) -> Array:
        """Log of the probability of a smaller score over that of a larger one."""
        z = (scores - self.location) / self.scale
        if self.df is None:
            odds: Array = scipy.special.log_ndtr(z) - scipy.special.log_ndtr(-z)
            return odds
        return log_t_cdf(z, self.df) - log_t_cdf(-z, self.df)


# ------------------------------------------------------------------------- the attack


def lira(
    scores_a: npt.ArrayLike,
    coins_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    variance: Literal["shrunken", "fixed", "per_record"] = "shrunken",
    offline: bool = False,
    queries: Literal["average", "separate"] = "average",
    nu0: float = 6.0,
    kappa0: float | None = None,
) -> ModelScores:
    """Likelihood-ratio attack on the models of B, (models of B, records).

    Online, a record's score is ``log p_in(s) - log p_out(s)``. Offline, with no model
    trained on the record, it is the one-sided ``log(F_out(s) / (1 - F_out(s)))``: the
    order of the paper's ``F_out``, which alone is rounded to 1 and tied where members
    lie, and not that of the two-sided density in released codes.

    Args:
        scores_a: of the shadow models, (models, records) or (models, records, queries).
        coins_a: whether a record was in a shadow model's training set.
        scores_b: of the targets, like `scores_a`; asked with the same queries.
        variance: "per_record" has a Gaussian per record (with ddof 1; from 32 models
            a side), "fixed" one variance for all records, "shrunken" Student's t.
        offline: only models that did not have the record are looked at.
        queries: "average" takes the mean score over queries, whose noise is then
            averaged and whose correlation does no harm; "separate" takes the mean over
            queries of the results, each query with distributions of its own.
        nu0: models' worth of trust in the pooled variance ("shrunken").
        kappa0: models' worth of trust in the mean of all records ("shrunken"). None
            measures it: the pooled variance over that of the records' means.

    Raises:
        InputError: wrong shapes, scores that are no numbers, a record without the
            models that the statistics need.

    >>> rng = np.random.default_rng(0)
    >>> coins = rng.random((33, 200)) < 0.5
    >>> scores = rng.normal(size=(33, 200)) + 3 * coins
    >>> found = lira(scores[:32], coins[:32], scores[32:])[0]
    >>> bool(found[coins[32]].mean() > 2 > -2 > found[~coins[32]].mean())
    True
    """
    rule = Rule(variance, offline, queries, nu0, kappa0)
    a, asked = arrays.known_and_asked(scores_a, coins_a, scores_b)
    rule.check(a.coins)
    inside, outside = worlds(rule.seen(a.scores), a.coins)
    return _weighed(rule, inside, outside, rule.seen(asked))


def leave_one_out(
    attack: ArrayAttack, scores: npt.ArrayLike, coins: npt.ArrayLike
) -> ModelScores:
    """Each shadow model attacked with the others, (models, records).

    For tuning only: a threshold, a number of guesses, a choice among attacks. No bound
    on epsilon follows from these scores, for a model's own coins have helped to guess
    the others': with independent coins and nothing leaked, the guess "exclusive or of
    all other coins" is right for all models at once half of the time, where a
    bound takes guesses of independent coins.

    attack: of the form ``attack(scores_a, coins_a, scores_b)``, such as `lira`.
    """
    known = arrays.known(scores, coins)
    models = np.arange(len(known.coins))
    found = [
        attack(known.scores[models != r], known.coins[models != r], known.scores[[r]])
        for r in models
    ]
    return np.concatenate(found)


def lira_leave_one_out(
    scores: npt.ArrayLike, coins: npt.ArrayLike, **options: Any
) -> ModelScores:
    """`leave_one_out` of `lira` with these options, by updates of the sums.

    Taking a model out of a mean and of a sum of squares takes no second look at the
    other models.
    """
    rule = Rule(**options)
    known = arrays.known(scores, coins)
    seen, coins = rule.seen(known.scores), known.coins
    inside, outside = worlds(seen, coins)
    found = []
    for r, own in enumerate(coins):
        rule.check(np.delete(coins, r, 0))
        left_in, left_out = (
            without(inside, seen[r], own),
            without(outside, seen[r], ~own),
        )
        found.append(_weighed(rule, left_in, left_out, seen[[r]]))
    return np.concatenate(found)


def not_normal(
    scores: npt.ArrayLike, coins: npt.ArrayLike, level: float = 0.05
) -> tuple[float, float]:
    """Shares of the records whose IN scores, and whose OUT scores, fail Shapiro-Wilk.

    Near `level` where the scores are Gaussian over models, which is what LiRA takes
    them for. The mean over queries is tested; a record needs three models a side.
    """
    known = arrays.known(scores, coins)
    arrays.check_worlds(known.coins, 3, 3)
    mean = known.scores.mean(-1)
    return (
        _share_rejected(mean, known.coins, level),
        _share_rejected(mean, ~known.coins, level),
    )


# ------------------------------------------------------------------- its distributions


def worlds(scores: arrays.Scores, coins: arrays.Coins) -> tuple[World, World]:
    """Means and squared deviations of the scores IN and OUT."""
    return world(scores, coins), world(scores, ~coins)


def world(scores: arrays.Scores, here: arrays.Coins) -> World:
    """Mean and squared deviations of the scores that count."""
    n = here.sum(0)[:, None].astype(np.float64)
    counted = here[:, :, None]
    mean = np.where(counted, scores, 0).sum(0) / np.maximum(n, 1)
    squares = np.where(counted, (scores - mean) ** 2, 0).sum(0)
    return World(n, mean, squares)


def without(world: World, scores: Array, had: Bool[np.ndarray, " records"]) -> World:
    """The same world less one model, for those records that this model counts for."""
    gone = had[:, None]
    left = world.n - gone
    gap, divisor = scores - world.mean, np.maximum(left, 1)
    squares = np.maximum(world.squares - gap**2 * world.n / divisor, 0)
    return World(
        n=left,
        mean=np.where(gone, world.mean - gap / divisor, world.mean),
        squares=np.where(gone, squares, world.squares),
    )


def pooled_variance(world: World) -> Float[np.ndarray, " queries"]:
    """Variance over models around each record's own mean, pooled over records."""
    freedom = (world.n - 1).sum()
    if freedom < 1:
        raise InputError(
            "coins: no record has two models on the same side, so that no variance "
            "can be seen; train more shadow models"
        )
    variance: Array = world.squares.sum(0) / freedom
    return variance


def student(
    world: World, location: Array, variance: Array, nu0: float, kappa0: float | Array
) -> Predictive:
    """Law of a further score under a normal-inverse-gamma prior.

    The prior: mean `location` known as from `kappa0` models, `variance` as from `nu0`.
    """
    n, mean, squares = world
    kappa, nu = kappa0 + n, nu0 + n
    gap = kappa0 * n * (mean - location) ** 2 / kappa
    posterior = (nu0 * variance + squares + gap) / nu
    return Predictive(
        df=nu,
        location=(kappa0 * location + n * mean) / kappa,
        scale=np.sqrt(posterior * (1 + 1 / kappa)),
    )


def trust_in_common_mean(world: World, variance: Array) -> Array:
    """The kappa0 under which the records' means spread as they do; at most 1.

    variance: the pooled one, which also spreads the means, by variance / n.
    """
    spread = np.var(world.mean, axis=0) - variance * np.mean(1 / world.n)
    least = np.maximum(variance, np.finfo(float).tiny)
    trust: Array = variance / np.maximum(spread, least)
    return trust


def log_t_cdf(x: npt.ArrayLike, df: npt.ArrayLike) -> Array:
    """Log of the distribution function of Student's t, in the far tails too.

    Where the probability underflows: ``x^a F(a, 1/2; a + 1; x) / (2 a B(a, 1/2))``
    with ``a = df / 2`` and ``x = df / (df + t^2)``, the incomplete beta function.
    """
    t, nu = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(df, np.float64))
    special = scipy.special
    lower = special.stdtr(nu, -np.abs(t))
    found: Array = np.where(t > 0, np.log1p(-lower), np.log(np.maximum(lower, 1e-300)))
    far = (t < 0) & (lower < 1e-200)
    a, share = nu[far] / 2, nu[far] / (nu[far] + t[far] ** 2)
    series = np.log(special.hyp2f1(a, 0.5, a + 1, share))
    found[far] = a * np.log(share) + series - special.betaln(a, 0.5) - np.log(2 * a)
    return found


def check_prior(nu0: float, kappa0: float | None) -> None:
    """Refuse a prior that is none."""
    if not 0 < nu0 < np.inf:
        raise InputError(f"nu0 is {nu0!r}; it is positive and finite")
    if kappa0 is not None and not 0 < kappa0 < np.inf:
        raise InputError(f"kappa0 is {kappa0!r}; it is positive and finite, or None")


def _weighed(
    rule: Rule, inside: World, outside: World, asked: arrays.Scores
) -> ModelScores:
    """Mean over queries of the log-likelihood ratio, or offline of the log-odds."""
    out = _predictive(rule, outside)
    if rule.offline:
        found = out.log_odds(asked)
    else:
        found = _predictive(rule, inside).logpdf(asked) - out.logpdf(asked)
    mean: ModelScores = found.mean(-1)
    return mean


def _predictive(rule: Rule, world: World) -> Predictive:
    variance = pooled_variance(world)
    centre = (world.n * world.mean).sum(0) / world.n.sum()
    if rule.variance == "shrunken":
        kappa0 = rule.kappa0 or trust_in_common_mean(world, variance)
        law = student(world, centre, variance, rule.nu0, kappa0)
    elif rule.variance == "fixed":
        law = Predictive(None, world.mean, np.sqrt(variance))
    else:
        law = Predictive(None, world.mean, np.sqrt(world.squares / (world.n - 1)))
    total = world.squares + world.n * (world.mean - centre) ** 2
    floor = FLOOR * np.sqrt(total.sum(0) / world.n.sum())
    # scores that are all the same have no scale; any will do
    return law._replace(scale=np.maximum(law.scale, np.where(floor > 0, floor, 1)))


def _share_rejected(scores: ModelScores, here: arrays.Coins, level: float) -> float:
    rejected = []
    for own, counted in zip(scores.T, here.T, strict=True):
        sample = own[counted]
        varies = np.ptp(sample) > 0  # equal scores are not Gaussian
        rejected.append(not varies or scipy.stats.shapiro(sample).pvalue < level)
    return float(np.mean(rejected))
