"""Attacks that see labels alone: scikit-learn's fits, and what bits can tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_leaks import balanced, fair, pooled
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from rpjax.attacks import correctness_lira, label_only, leave_one_out
from rpjax.errors import InputError


def bits(rng, coins, queries=6, gap=0.4):
    """Right labels (models, records, queries): members are right more often."""
    rate = rng.random((1, coins.shape[1], 1)) * (1 - gap) + gap * coins[..., None]
    return (rng.random((*coins.shape, queries)) < rate).astype(float)


def some(seed=0, models=16, records=12, queries=6):
    rng = np.random.default_rng(seed)
    coins = fair(rng, models + 5, records)
    coins[:2] = [[True], [False]]
    correct = bits(rng, coins, queries)
    return correct[:models], coins[:models], correct[models:]


@pytest.mark.parametrize("ridge", [1.0, 0.1])
def test_each_record_has_the_regression_of_scikit_learn(ridge):
    a, coins, b = some()
    found = correctness_lira(a, coins, b, ridge=ridge)
    for i in range(a.shape[1]):
        net = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000)
        net.fit(a[:, i], coins[:, i])
        inside = coins[:, i].sum()
        expected = net.decision_function(b[:, i]) - np.log(inside / (16 - inside))
        np.testing.assert_allclose(found[:, i], expected, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(2, 40),
    st.integers(1, 18),
    st.floats(1e-4, 10),
    st.sampled_from(["any", "repeated", "separable", "constant"]),
)
def test_fits_are_where_the_slope_is_zero_whatever_the_bits(seed, n, d, ridge, kind):
    rng = np.random.default_rng(seed)
    y = np.argsort(rng.random((10, n)), 1) < rng.integers(1, n)
    x = (rng.random((10, n, d)) < rng.random()).astype(float)
    if kind == "repeated":
        x = np.repeat(x[..., :1], d, -1)
    elif kind == "separable":
        x = np.repeat(y[..., None].astype(float), d, -1)
    elif kind == "constant":
        x = np.ones_like(x)
    weights = label_only.fitted(x, y, ridge)
    rest = expit(weights[:, :1] + np.einsum("fnd,fd->fn", x, weights[:, 1:])) - y
    slope = np.einsum("fnd,fn->fd", x, rest) + ridge * weights[:, 1:]
    np.testing.assert_allclose(rest.sum(1), 0, atol=1e-7)
    np.testing.assert_allclose(slope, 0, atol=1e-7)


def test_order_and_repetition_do_not_matter_and_the_sides_may_change_places():
    a, coins, b = some()
    rng = np.random.default_rng(1)
    expected = correctness_lira(a, coins, b)
    models, records, queries = (rng.permutation(n) for n in a.shape)
    found = correctness_lira(
        a[models][:, records][..., queries],
        coins[models][:, records],
        b[:, records][..., queries],
    )
    np.testing.assert_allclose(found, expected[:, records], atol=1e-6)
    np.testing.assert_allclose(correctness_lira(a, ~coins, b), -expected, atol=1e-6)


def test_which_queries_tell_members_is_learnt_for_each_record():
    """Half of the queries are right for members, half for others: a mean sees nothing.

    Against the likelihood ratio of the true rates, 0.3 and 0.7, over six queries.
    """
    rng = np.random.default_rng(2)
    coins_a, coins_b = balanced(rng, 64, 1000), fair(rng, 4, 1000)
    sign = np.where(rng.random((1000, 6)) < 0.5, 1, -1)

    def answers(coins):
        rate = 0.5 + 0.2 * sign * np.where(coins, 1, -1)[..., None]
        return (rng.random(rate.shape) < rate).astype(float)

    a, b = answers(coins_a), answers(coins_b)
    best = pooled((sign * (b - 0.5)).sum(-1), coins_b)[1]
    assert best > 0.85
    assert pooled(correctness_lira(a, coins_a, b), coins_b)[1] > best - 0.03
    assert pooled(b.mean(-1), coins_b)[1] < 0.55


def test_records_with_more_models_in_are_not_ranked_higher_for_it():
    """Bits say nothing, coins are unbalanced: the ratio is about 0 for each record."""
    rng = np.random.default_rng(3)
    coins = rng.random((60, 30)) < np.linspace(0.2, 0.8, 30)
    correct = bits(rng, coins & False, queries=2)
    found = correctness_lira(correct, coins, correct[:1])[0]
    assert abs(np.corrcoef(found, coins.mean(0))[0, 1]) < 0.6
    prior = np.log(coins.sum(0) / (~coins).sum(0))
    assert np.std(found) < np.std(prior)
    always = correctness_lira(0 * correct, coins, 0 * correct[:1])
    np.testing.assert_allclose(always, 0, atol=1e-7)


def test_shadow_models_are_attacked_with_the_others():
    a, coins, _ = some(models=20)
    found = leave_one_out(correctness_lira, a, coins)
    rest = np.arange(20) != 7
    own = correctness_lira(a[rest], coins[rest], a[[7]])
    np.testing.assert_array_equal(found[7], own[0])


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda a, c, b: correctness_lira(a / 2, c, b), "correct_a: 1 where"),
        (lambda a, c, b: correctness_lira(a, c, b / 2), "correct_b: 1 where"),
        (lambda a, c, b: correctness_lira(a, c & False, b), "record 0 is in"),
        (lambda a, c, b: correctness_lira(a, c, b, ridge=0.0), "ridge is 0"),
        (lambda a, c, b: correctness_lira(a, c[1:], b), "coins_a: shape"),
    ],
)
def test_unusable_bits_and_coins_are_refused(attack, message):
    with pytest.raises(InputError, match=message):
        attack(*some())


def test_a_fit_that_was_not_reached_is_no_answer(monkeypatch):
    monkeypatch.setattr(label_only, "MOST_STEPS", 2)
    with pytest.raises(InputError, match="no fit in 2 steps; raise it"):
        correctness_lira(*some())
