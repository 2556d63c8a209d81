"""Input noise where chance decides how often a record is used, and everyone sees it.

A record enters each of T steps by its own coin of probability q, each time with fresh
input noise. It is used k times with k ~ Binomial(T, q), and given k the guarantee is
that of `rpjax.privacy.residual`, mu_one sqrt(k) with mu_one = diameter / pi. Whoever
sees k, and a fortiori who does not, faces the mixture of those. It is larger in the
tail than at the mean of k: a shuffled epoch, k certain, is the better schedule here.
Nothing is amplified, because the steps that used a record are taken to be visible.
"""

import math

import numpy as np
import scipy

from rpjax.privacy import algebra, checks
from rpjax.privacy.curves import Gaussian, Mixture, Point


def poisson(
    mu_one: float, steps: int, sampling_probability: float, members: int = 1
) -> Mixture:
    """The curve of Poisson participation.

    Counts far below the mean are taken for the least that is kept, and for those far
    above nothing is assumed, delta 1; a weight below 1e-30 each.

    Args:
        mu_one: mu of one participation, diameter / pi.
        steps: number of steps T.
        sampling_probability: chance q in (0, 1] that a record enters a step.
        members: trainings with coins and noise of their own.

    >>> f"{poisson(0.1, 5000, 0.01).delta(4.0):.2e}"
    '4.07e-08'
    """
    checks.not_negative("mu_one", mu_one)
    checks.whole("steps", steps)
    checks.rate("sampling_probability", sampling_probability)
    checks.whole("members", members)
    count = scipy.stats.binom(steps * members, sampling_probability)
    mean = float(count.mean())
    width = 12 * math.sqrt(mean) + 200
    least = max(0, math.floor(mean - width))
    most = min(steps * members, math.ceil(mean + width))
    k = np.arange(least, most + 1)
    weights = np.concatenate([count.pmf(k), [count.sf(most)]])
    weights[0] = count.cdf(least)
    parts = [Gaussian(float(mu)) for mu in mu_one * np.sqrt(k)]
    return Mixture(tuple(weights.tolist()), (*parts, Point(0.0, 1.0)))


def poisson_noise_for(
    epsilon: float,
    delta: float,
    diameter: float,
    steps: int,
    sampling_probability: float,
    members: int = 1,
) -> float:
    """Smallest input noise pi at which `poisson` gives (epsilon, delta).

    diameter: largest distance of two inputs; the other arguments as there.

    >>> f"{poisson_noise_for(4.0, 1e-5, 2.0, 5000, 0.01):.3f}"
    '15.885'
    """
    checks.positive("diameter", diameter)
    return algebra.least_noise(
        lambda noise: poisson(diameter / noise, steps, sampling_probability, members),
        *(epsilon, delta),
    )
