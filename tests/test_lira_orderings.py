"""LiRA's variants in order: which is stronger where, on leaks that are known."""

import numpy as np
import pytest
from known_leaks import (
    Gaussians,
    balanced,
    fair,
    pooled,
)

from rpjax.attacks import leave_one_out, likelihood, lira

VARIANCES = ("shrunken", "fixed", "per_record")


@pytest.fixture(scope="module")
def sixteen():
    """16 shadow models and 4 targets on 5,000 records of unlike difficulty."""
    rng = np.random.default_rng(21)
    world = Gaussians(rng, 5000, difficulty=10)
    coins_a, coins_b = balanced(rng, 16, 5000), fair(rng, 4, 5000)
    return world.scores(rng, coins_a), coins_a, world.scores(rng, coins_b), coins_b


def test_with_16_models_one_variance_beats_one_for_each_record(sixteen):
    """By 20 standard errors of the TPR, if scores vary alike in all records."""
    a, coins_a, b, coins_b = sixteen
    (each_tpr, each_auc), (one_tpr, one_auc) = (
        pooled(lira(a, coins_a, b, variance=v), coins_b)
        for v in ("per_record", "fixed")
    )
    assert one_tpr > each_tpr + 0.05
    assert one_auc > each_auc + 0.01


@pytest.mark.parametrize("models", [4, 8, 16, 32])
@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("difficulty", [0.0, 10.0])
def test_the_shrunken_variance_is_as_good_as_the_better_of_the_others(
    models, varied, difficulty
):
    """Whatever records differ in; within two standard errors of the AUC."""
    rng = np.random.default_rng(22)
    world = Gaussians(rng, 3000, difficulty, varied)
    coins_a, coins_b = balanced(rng, models, 3000), fair(rng, 4, 3000)
    a, b = world.scores(rng, coins_a), world.scores(rng, coins_b)
    area = {v: pooled(lira(a, coins_a, b, variance=v), coins_b)[1] for v in VARIANCES}
    assert area["shrunken"] > max(area["fixed"], area["per_record"]) - 0.005


def test_trust_in_the_mean_of_all_records_must_fit_their_difficulties(sixteen):
    """A kappa0 of 0.5, good where records are alike, halves the TPR where they are not.

    The deviation of a hard record's mean is then taken for variance of its scores.
    """
    a, coins_a, b, coins_b = sixteen
    measured = pooled(lira(a, coins_a, b), coins_b)
    fixed = pooled(lira(a, coins_a, b, kappa0=0.5), coins_b)
    assert measured[0] > 1.5 * fixed[0]
    assert measured[1] > fixed[1] + 0.01


def test_offline_the_distribution_function_beats_the_density(sixteen):
    """The two-sided variant of released codes, ``-log p_out(s)``."""
    a, coins_a, b, coins_b = sixteen
    one_sided = lira(a, coins_a, b, variance="fixed", offline=True)
    world = likelihood.world(a[:, :, None], ~coins_a)
    two_sided = np.abs(b - world.mean[:, 0])  # one variance: ranks as the density
    (one_tpr, one_auc), (two_tpr, two_auc) = (
        pooled(s, coins_b) for s in (one_sided, two_sided)
    )
    assert one_auc > two_auc + 0.05
    assert one_tpr > 1.3 * two_tpr


def test_one_threshold_for_all_finds_hardly_more_members_than_others(sixteen):
    _, _, b, coins_b = sixteen
    tpr, area = pooled(b, coins_b)
    assert tpr < 0.004  # at a false-positive rate of 0.001
    assert 0.51 < area < 0.6


def test_the_mean_over_queries_beats_ratios_apart_where_queries_are_noisy():
    """Noise of each query apart: averaged first, it no longer spreads the score."""
    rng = np.random.default_rng(23)
    world = Gaussians(rng, 3000)
    coins_a, coins_b = balanced(rng, 16, 3000), fair(rng, 4, 3000)
    a, b = (
        world.scores(rng, c)[:, :, None] + 3 * rng.normal(size=(*c.shape, 8))
        for c in (coins_a, coins_b)
    )
    average, separate = (
        pooled(lira(a, coins_a, b, queries=q), coins_b)[1]
        for q in ("average", "separate")
    )
    assert average > separate - 0.002
    assert average > pooled(lira(a[..., :1], coins_a, b[..., :1]), coins_b)[1] + 0.1


def test_leave_one_out_guesses_are_right_all_at_once_though_nothing_leaks():
    """Why no bound follows from them: "exclusive or of all other coins".

    Scores are pure noise. All 60 guesses are right in half of the trials; if the coins
    were independent of the guesses, they would be in one of 2^60.
    """
    rng = np.random.default_rng(24)

    def parity(scores_a, coins_a, scores_b):
        return (coins_a.sum(0) % 2 == 1)[None].astype(float)

    all_right = 0
    for _ in range(400):
        coins = fair(rng, 60, 1)
        guesses = leave_one_out(parity, rng.normal(size=(60, 1)), coins)
        all_right += np.array_equal(guesses > 0.5, coins)
    # binomial(400, 1/2): outside with probability 6e-5
    assert 160 < all_right < 240
