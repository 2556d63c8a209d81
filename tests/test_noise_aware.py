"""Attacks on noisy answers: published values, loops, noise that is averaged away."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from known_leaks import auc_of, balanced, fair, pooled, tpr_of

from rpjax import attacks
from rpjax.attacks import ensemble_lira, joint_lira, lira, smoothed_probit, vector_lira
from rpjax.attacks.noise_aware import NoisyWorld, joint_log_ratio
from rpjax.errors import InputError

IN, OUT = NoisyWorld(2.0, 1.0, 4.0), NoisyWorld(0.0, 1.0, 9.0)
N = 20_000


def answers(rng, coins, draws, inside=IN, outside=OUT, difficulty=0.0):
    """Scores (models, records, draws) of models that answer noisily."""

    def pick(field):
        return np.where(coins, getattr(inside, field), getattr(outside, field))

    level = pick("mean") + np.sqrt(pick("between")) * rng.normal(size=coins.shape)
    noise = rng.normal(size=(*coins.shape, draws))
    return (difficulty + level)[..., None] + np.sqrt(pick("within"))[..., None] * noise


# --------------------------------------------------------------- values and formulas


def test_the_joint_ratio_has_the_published_check_values():
    both = joint_log_ratio(np.array([1.5]), np.array([6.0]), 4, IN, OUT).item()
    mean = scipy.stats.norm(2, np.sqrt(1 + 4 / 4)).logpdf(1.5)
    mean -= scipy.stats.norm(0, np.sqrt(1 + 9 / 4)).logpdf(1.5)
    assert mean == pytest.approx(0.526408, abs=5e-7)
    assert both - mean == pytest.approx(-0.033605, abs=5e-7)


@pytest.mark.parametrize("draws", [2, 3, 4, 30])
def test_the_joint_ratio_is_that_of_a_normal_and_a_gamma_density(draws):
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=50), rng.gamma(3, size=50)
    total = 0
    for sign, world in ((1, IN), (-1, OUT)):
        scale = np.sqrt(world.between + world.within / draws)
        spread = scipy.stats.gamma((draws - 1) / 2, scale=2 * world.within)
        total += sign * scipy.stats.norm(world.mean, scale).logpdf(mean)
        total += sign * spread.logpdf((draws - 1) * variance)
    found = joint_log_ratio(mean, variance, draws, IN, OUT)
    np.testing.assert_allclose(found, total, rtol=1e-9)


def test_the_joint_ratio_is_that_of_all_draws_under_the_full_gaussian():
    """Mean and variance are sufficient: nothing of the draws is thrown away."""
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(20, 5)) * 2 + 1
    total = 0
    for sign, world in ((1, IN), (-1, OUT)):
        covariance = world.between * np.ones((5, 5)) + world.within * np.eye(5)
        law = scipy.stats.multivariate_normal(np.full(5, world.mean), covariance)
        total += sign * law.logpdf(draws)
    found = joint_log_ratio(draws.mean(1), draws.var(1, ddof=1), 5, IN, OUT)
    np.testing.assert_allclose(found, total, rtol=1e-9)


# ------------------------------------------------------------------- noise, averaged


@pytest.mark.parametrize(
    ("draws", "separation", "area", "rate"),
    [
        (1, 0.6325, 0.6726, 0.00699),
        (2, 0.8528, 0.7268, 0.01263),
        (4, 1.1094, 0.7836, 0.02381),
        (10, 1.4510, 0.8475, 0.05058),
        (30, 1.7541, 0.8926, 0.09076),
        (100, 1.9157, 0.9122, 0.12008),
    ],
)
def test_averaging_draws_undoes_the_noise_as_the_closed_form_says(
    draws, separation, area, rate
):
    """Gap 2, deviation 1 between models and 3 between draws: the published row.

    Monte Carlo with 20,000 a side: within four standard errors, of the AUC at most
    0.0027; missed with probability 1.3e-4 for each of the two.
    """
    closed = 2 / np.sqrt(1 + 9 / draws)
    assert closed == pytest.approx(separation, abs=5e-5)
    assert auc_of(closed) == pytest.approx(area, abs=5e-5)
    assert tpr_of(closed, 1e-3) == pytest.approx(rate, abs=5e-6)
    rng = np.random.default_rng(draws)
    coins = np.arange(2 * N)[None] < N
    alike = IN._replace(within=9.0)
    mean = answers(rng, coins, draws, alike).mean(-1)
    found = pooled(mean, coins)[1]
    error = np.sqrt(area * (1 - area) * (1 + 2 * N * 0.2) / N**2)
    assert abs(found - area) < 4 * error
    threshold = scipy.stats.norm.isf(1e-3) * np.sqrt(1 + 9 / draws)
    hits = int((mean[0] > threshold).sum())
    assert scipy.stats.binomtest(hits, N, rate).pvalue > 1.3e-4


@pytest.mark.parametrize(
    ("draws", "joint", "mean_alone"),
    [(1, 0.702, 0.695), (4, 0.864, 0.804), (30, 0.994, 0.901)],
)
def test_the_spread_over_draws_tells_members_beyond_the_mean(draws, joint, mean_alone):
    """The published AUCs, by 20,000 models a side: errors of at most 0.0026, four."""
    rng = np.random.default_rng(draws)
    coins = np.arange(2 * N)[None] < N
    scores = answers(rng, coins, draws)
    variance = scores.var(-1, ddof=1) if draws > 1 else np.zeros(coins.shape)
    ratio = joint_log_ratio(scores.mean(-1), variance, draws, IN, OUT)
    assert pooled(ratio, coins)[1] == pytest.approx(joint, abs=0.011)
    assert pooled(scores.mean(-1), coins)[1] == pytest.approx(mean_alone, abs=0.011)


@pytest.mark.parametrize(("draws", "joint"), [(4, 0.864), (30, 0.994)])
def test_joint_lira_learns_from_shadow_models_what_the_laws_would_say(draws, joint):
    """64 shadow models, records of unlike difficulty: within 0.015 of the optimum.

    Of 12,000 cells an AUC has a standard error of 0.0035.
    """
    rng = np.random.default_rng([5, draws])
    difficulty = 4 * rng.normal(size=3000)
    coins_a, coins_b = balanced(rng, 64, 3000), fair(rng, 4, 3000)
    a, b = (answers(rng, c, draws, difficulty=difficulty) for c in (coins_a, coins_b))
    area = pooled(joint_lira(a, coins_a, b), coins_b)[1]
    assert area == pytest.approx(joint, abs=0.015)
    assert area > pooled(lira(a, coins_a, b), coins_b)[1] + 0.04


@pytest.mark.parametrize("draws_b", [1, 2, 30])
def test_the_noise_left_in_a_mean_is_scaled_to_the_draws_of_the_target(draws_b):
    """600 shadow models of two draws: the ratio is that of the true laws, but for 5 %.

    Were the draws' share of the variance left in the models' (no tau^2 / K taken off),
    the ratios of 30 draws would be less than half as large.
    """
    rng = np.random.default_rng(6)
    coins_a, coins_b = balanced(rng, 600, 40), fair(rng, 50, 40)
    a, b = answers(rng, coins_a, 2), answers(rng, coins_b, draws_b)
    found = joint_lira(a, coins_a, b)
    variance = b.var(-1, ddof=1) if draws_b > 1 else np.zeros(coins_b.shape)
    true = joint_log_ratio(b.mean(-1), variance, draws_b, IN, OUT)
    slope = np.sum(found * true) / np.sum(true**2)
    assert slope == pytest.approx(1, abs=0.05)
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.97


def test_variances_of_records_are_kept_apart_where_they_differ():
    """Draws spread three times as much in some records: known from 32 models."""
    rng = np.random.default_rng(7)
    width = np.exp(rng.normal(size=2000))
    inside, outside = (w._replace(within=w.within * width) for w in (IN, OUT))
    coins_a, coins_b = balanced(rng, 32, 2000), fair(rng, 4, 2000)
    a, b = (answers(rng, c, 8, inside, outside) for c in (coins_a, coins_b))
    spread = b.var(-1, ddof=1)
    true = pooled(joint_log_ratio(b.mean(-1), spread, 8, inside, outside), coins_b)[1]
    assert pooled(joint_lira(a, coins_a, b), coins_b)[1] > true - 0.02
    same_for_all = joint_log_ratio(b.mean(-1), spread, 8, IN, OUT)
    assert pooled(same_for_all, coins_b)[1] < true - 0.05


def loop_world(scores, here, nu0):
    """One world's laws, record by record, with the functions of scipy."""
    draws = scores.shape[-1]
    own = [scores[here[:, i], i] for i in range(scores.shape[1])]
    logs, noise = [], []
    for s in own:
        half = len(s) * (draws - 1) / 2
        # the log of a chi-squared variable over its degrees
        bias, variance = scipy.stats.loggamma(half).stats()
        logs.append(np.log(s.var(1, ddof=1).mean()) - (bias - np.log(half)))
        noise.append(variance)
    real = max(np.var(logs) - np.mean(noise), 0)
    trust = real / (real + np.array(noise))
    within = np.exp(trust * logs + (1 - trust) * np.mean(logs))
    means = [s.mean(1) for s in own]
    excess = [
        np.var(m) * len(m) - (len(m) - 1) * w / draws
        for m, w in zip(means, within, strict=True)
    ]
    freedom = np.array([len(m) - 1 for m in means])
    pooled_between = np.sum(excess) / freedom.sum()
    between = (nu0 * pooled_between + excess) / (nu0 + freedom)
    between = np.maximum(between, 0)  # draws may explain more than there is
    error = (between + within / draws) / (freedom + 1)
    return NoisyWorld(np.array([m.mean() for m in means]), between, within, error)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_joint_lira_is_the_loop_over_records(spread):
    """Records whose draws vary alike, and others."""
    rng = np.random.default_rng(14)
    coins = fair(rng, 30, 25)
    width = np.exp(spread * rng.normal(size=25))
    worlds = (w._replace(within=w.within * width) for w in (IN, OUT))
    scores = answers(rng, coins, 3, *worlds)
    a, coins, b = scores[:24], coins[:24], scores[24:]
    worlds = (loop_world(a, here, 4.0) for here in (coins, ~coins))
    expected = joint_log_ratio(b.mean(-1), b.var(-1, ddof=1), 3, *worlds)
    np.testing.assert_allclose(joint_lira(a, coins, b, nu0=4.0), expected, rtol=1e-9)


def test_answers_that_never_vary_break_nothing():
    rng = np.random.default_rng(8)
    coins = balanced(rng, 8, 6)
    still = np.repeat((rng.normal(size=coins.shape) + 5 * coins)[..., None], 4, 2)
    found = joint_lira(still, coins, still)
    assert np.isfinite(found).all()
    assert found[coins].min() > found[~coins].max()
    assert np.ptp(joint_lira(0 * still, coins, 0 * still)) == 0


# --------------------------------------------------------------------------- vectors


def some(seed=0, models=10, records=6, coordinates=3):
    rng = np.random.default_rng(seed)
    coins = balanced(rng, models, records)
    mixing = rng.normal(size=(coordinates, coordinates))
    scores = rng.normal(size=(models + 4, records, coordinates)) @ mixing
    scores += 3 * rng.normal(size=(records, coordinates))
    scores[:models] += coins[..., None]
    return scores[:models], coins, scores[models:]


@pytest.mark.parametrize("kappa0", [0.3, None])
def test_a_vector_of_one_coordinate_is_lira(kappa0):
    a, coins, b = some(coordinates=1)
    found = vector_lira(a, coins, b, kappa0=kappa0)
    np.testing.assert_allclose(found, lira(a, coins, b, kappa0=kappa0), rtol=1e-9)


def test_vectors_are_weighed_by_scipys_multivariate_t():
    a, coins, b = some()
    nu0, kappa0 = 5.0, 0.4
    found = vector_lira(a, coins, b, nu0=nu0, kappa0=kappa0)
    expected = np.zeros(found.shape)
    for sign, here in ((1, coins), (-1, ~coins)):
        own = [a[here[:, i], i] for i in range(6)]
        freedom = sum(len(s) - 1 for s in own)
        shared = sum((len(s) - 1) * np.cov(s.T) for s in own) / freedom
        centre = np.concatenate(own).mean(0)
        for i, s in enumerate(own):
            n, mean = len(s), s.mean(0)
            kappa, nu, gap = kappa0 + n, nu0 + n, mean - centre
            squares = (n - 1) * np.cov(s.T) + kappa0 * n / kappa * np.outer(gap, gap)
            shape = (nu0 * shared + squares) / nu * (1 + 1 / kappa)
            law = scipy.stats.multivariate_t(
                (kappa0 * centre + n * mean) / kappa, shape, nu
            )
            expected[:, i] += sign * law.logpdf(b[:, i])
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_vectors_may_be_given_in_any_order_and_units(seed):
    a, coins, b = some(seed)
    rng = np.random.default_rng(seed)
    expected = vector_lira(a, coins, b)
    order, models = rng.permutation(6), rng.permutation(10)
    found = vector_lira(a[models][:, order], coins[models][:, order], b[:, order])
    np.testing.assert_allclose(found, expected[:, order], rtol=1e-7, atol=1e-9)
    columns, units = rng.permutation(3), np.exp(rng.normal(size=3))
    found = vector_lira(units * a[..., columns] + 1, coins, units * b[..., columns] + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(vector_lira(a, ~coins, b), -expected, rtol=1e-9)


def test_full_covariances_see_what_single_coordinates_do_not():
    """Two coordinates that differ by little, and members in this difference alone."""
    rng = np.random.default_rng(9)
    coins_a, coins_b = balanced(rng, 32, 1000), fair(rng, 4, 1000)

    def pairs(coins):
        common = 3 * rng.normal(size=coins.shape)
        apart = 0.3 * rng.normal(size=coins.shape) + 0.6 * coins
        return np.stack([common, common + apart], -1)

    a, b = pairs(coins_a), pairs(coins_b)
    full = pooled(vector_lira(a, coins_a, b), coins_b)[1]
    assert full == pytest.approx(auc_of(2), abs=0.02)
    assert pooled(lira(a, coins_a, b, queries="separate"), coins_b)[1] < 0.6


def test_a_defence_that_hides_the_score_but_not_its_curvature_is_seen_through():
    """The same score with noise off, and draws that spread less for members."""
    rng = np.random.default_rng(10)
    coins_a, coins_b = balanced(rng, 32, 1000), fair(rng, 4, 1000)

    def features(coins):
        off = rng.normal(size=coins.shape)
        spread = np.where(coins, 1.0, 1.5)[..., None]
        noisy = off[..., None] + spread * rng.normal(size=(*coins.shape, 16))
        return off, attacks.sensitivity(noisy, off)

    (off_a, a), (off_b, b) = features(coins_a), features(coins_b)
    assert pooled(lira(off_a, coins_a, off_b), coins_b)[1] < 0.53
    # of a variance of 15 degrees, by the F distribution
    optimum = scipy.stats.f(15, 15).cdf(1.5**2)
    assert pooled(vector_lira(a, coins_a, b), coins_b)[1] > optimum - 0.03


def test_sensitivity_is_the_score_the_drop_and_the_log_variance():
    noisy, off = np.array([[[1.0, 2, 3], [0, 0, 3]]]), np.array([[4.0, 1.0]])
    expected = [[[4, 2, 0], [1, 0, np.log(3)]]]
    np.testing.assert_allclose(attacks.sensitivity(noisy, off), expected, atol=1e-12)


# ------------------------------------------------------------------------- ensembles


def test_an_ensemble_s_members_are_weighed_one_by_one():
    a, coins, b = some()
    rule = {"variance": "fixed"}
    each = [lira(a[..., e], coins, b[..., e], **rule) for e in range(3)]
    found = ensemble_lira(a, coins, b, **rule)
    np.testing.assert_allclose(found, np.sum(each, 0), rtol=1e-9)
    single = a[..., 0]
    each = [lira(single, coins, b[..., e], **rule) for e in range(3)]
    found = ensemble_lira(single, coins, b, **rule)
    np.testing.assert_allclose(found, np.sum(each, 0), rtol=1e-9)


def test_members_of_an_ensemble_leak_as_much_as_independent_models():
    """Four members with gaps of one deviation: together two, from single shadows."""
    rng = np.random.default_rng(11)
    coins_a, coins_b = balanced(rng, 64, 2000), fair(rng, 4, 2000)
    a = rng.normal(size=coins_a.shape) + coins_a
    b = rng.normal(size=(*coins_b.shape, 4)) + coins_b[..., None]
    area = pooled(ensemble_lira(a, coins_a, b), coins_b)[1]
    assert area == pytest.approx(auc_of(2), abs=0.02)


def test_disagreement_of_members_is_a_second_coordinate():
    rng = np.random.default_rng(12)
    coins_a, coins_b = balanced(rng, 32, 1000), fair(rng, 4, 1000)
    inside = OUT._replace(within=3.0)
    a, b = (answers(rng, c, 5, inside) for c in (coins_a, coins_b))
    assert pooled(lira(a, coins_a, b), coins_b)[1] < 0.6
    assert pooled(joint_lira(a, coins_a, b), coins_b)[1] > 0.75


# ----------------------------------------------------------------- labels under noise


def test_the_smoothed_probit_is_finite_symmetric_and_rising():
    counts = np.arange(17)
    bits = (np.arange(16) < counts[:, None]).astype(float)[None]
    found = smoothed_probit(bits)[0]
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -found[::-1], atol=1e-12)
    assert found[4] == pytest.approx(scipy.stats.norm.ppf((4 + 0.5) / 17))


def test_noise_makes_a_confidence_of_labels():
    """The frequency of the right label under N(0, 1) noise is Phi(margin)."""
    rng = np.random.default_rng(13)
    coins_a, coins_b = balanced(rng, 32, 1000), fair(rng, 4, 1000)

    def labels(coins, draws):
        margin = 0.3 + 0.6 * coins + 0.3 * rng.normal(size=coins.shape)
        return margin[..., None] + rng.normal(size=(*coins.shape, draws)) > 0

    areas = []
    for draws in (1, 16, 256):
        a, b = labels(coins_a, draws), labels(coins_b, draws)
        scores = smoothed_probit(a), smoothed_probit(b)
        areas.append(pooled(lira(scores[0], coins_a, scores[1]), coins_b)[1])
    assert all(more > less + 0.05 for less, more in itertools.pairwise(areas))
    # of 256 draws the probit has an error of some 0.08 near the middle
    assert areas[-1] == pytest.approx(auc_of(2), abs=0.03)


# -------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda a, c, b: joint_lira(a[..., :1], c, b), "scores_a: one draw each"),
        (lambda a, c, b: joint_lira(a, c, b[:, :2]), "scores_b: 2 records"),
        (lambda a, c, b: joint_lira(a, c & False, b), "record 0 is in .* of 0 models"),
        (lambda a, c, b: joint_lira(a, c | True, b), "record 0 is out of"),
        (lambda a, c, b: joint_lira(a * np.nan, c, b), "scores_a: 180 scores"),
        (lambda a, c, b: joint_lira(a, c, b, nu0=0.0), "nu0 is"),
        (lambda a, c, b: vector_lira(a, c & False, b), "record 0 is in"),
        (lambda a, c, b: vector_lira(a, c, b[..., :2]), "2 queries, but scores_a"),
        (lambda a, c, b: vector_lira(0 * a, c, b), "one does not vary"),
        (lambda a, c, b: attacks.sensitivity(a, b[..., 0]), "noise_off: shape"),
        (lambda a, c, b: attacks.sensitivity(a[..., :1], a[..., 0]), "at each draw"),
        (lambda a, c, b: smoothed_probit(a), "1 where a label was right"),
        (lambda a, c, b: ensemble_lira(a, c, b[..., :2]), "2 queries"),
    ],
)
def test_unusable_scores_and_coins_are_refused(attack, message):
    with pytest.raises(InputError, match=message):
        attack(*some())
