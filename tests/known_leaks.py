"""Models whose scores follow known laws, for attacks on arrays."""

import numpy as np
from scipy.stats import norm, rankdata

from rpjax import resampling


def balanced(rng, models, records):
    """Each record in half of the models, independently of the others."""
    return np.argsort(np.argsort(rng.random((models, records)), 0), 0) < models // 2


def fair(rng, models, records):
    return rng.random((models, records)) < 0.5


def auc_of(mu):
    """Area under the ROC curve of N(mu, 1) against N(0, 1)."""
    return norm.cdf(mu / np.sqrt(2))


def tpr_of(mu, fpr):
    return norm.cdf(norm.ppf(fpr) + mu)


class Means:
    """Each model releases the mean of its records and N(0, sigma^2) in each dimension.

    A record's score is <x - population mean, release>, which has the same variance IN
    and OUT: from the noise, and from who else is in. `mu` is each record's gap over its
    standard deviation.
    """

    def __init__(self, rng, records=200, dimensions=400, mu=2.0):
        x = rng.normal(size=(records, dimensions))
        self.x = x / np.linalg.norm(x, axis=1, keepdims=True)
        self.n = records / 2
        self.centred = self.x - self.x.mean(0)
        gap = (self.centred * self.x).sum(1) / self.n
        others = self.centred @ self.x.T / self.n
        np.fill_diagonal(others, 0)
        company = (others**2).sum(1) / 4
        length = (self.centred**2).sum(1)
        variance = np.mean(gap) ** 2 / mu**2 - company.mean()
        assert variance > 0
        self.sigma = np.sqrt(variance / length.mean())
        self.mu = gap / np.sqrt(self.sigma**2 * length + company)

    def scores(self, rng, coins):
        release = coins @ self.x / self.n
        release = release + self.sigma * rng.normal(size=release.shape)
        return release @ self.centred.T


class Gaussians:
    """Score ``difficulty + gap coin + spread N(0, 1)``, all of them of the record."""

    def __init__(self, rng, records, difficulty=3.0, varied=False):
        self.difficulty = difficulty * rng.normal(size=records)
        self.gap = 2 * np.abs(rng.normal(size=records)) if varied else 2.0
        logs = rng.normal(size=(2, records)) * 0.3 * varied
        self.spread_out, self.spread_in = np.exp(logs)

    def scores(self, rng, coins):
        spread = np.where(coins, self.spread_in, self.spread_out)
        noise = rng.normal(size=coins.shape)
        return self.difficulty + self.gap * coins + spread * noise


def released_means(seed):
    """Scores and coins of 256 shadow models and of 48 targets; two deviations."""
    rng = np.random.default_rng(seed)
    world = Means(rng)
    assert np.ptp(world.mu) < 0.3
    assert abs(world.mu.mean() - 2) < 0.02
    coins_a, coins_b = balanced(rng, 256, 200), fair(rng, 48, 200)
    return world.scores(rng, coins_a), coins_a, world.scores(rng, coins_b), coins_b


def assert_finds_two_deviations(found, coins):
    """AUC and TPR are those of the closed form; error rate below 3 %, 1 % for each.

    Intervals that are too wide rather, and still only three per cent for the AUC.
    """
    options = {"confidence": 0.99, "replicates": 300, "seed": 1}
    area = resampling.auc(found, coins, **options)
    assert area.high - area.low < 0.03
    assert area.low < auc_of(2) < area.high
    for fpr in (0.1, 0.01):
        rate = resampling.tpr_at_fpr(found, coins, fpr, **options)
        assert rate.low < tpr_of(2, fpr) < rate.high
        assert rate.high - rate.low < 0.2


def pooled(scores, member):
    """TPR at 0.1 % and AUC, without intervals."""
    found, wrong = scores[member], np.sort(scores[~member])[::-1]
    tpr = np.mean(found > wrong[int(0.001 * wrong.size)])
    ranks = rankdata(np.concatenate([found, wrong]))[: found.size]
    area = (ranks.sum() - found.size * (found.size + 1) / 2) / found.size / wrong.size
    return tpr, area
