"""Coins: how they are drawn, and which of them cannot be audited."""

import numpy as np
import pytest

from rpjax.audits import Coins, balanced, independent, refusals
from rpjax.errors import InputError

BALANCED = balanced(32, 40, seed=0)


def fair(models, canaries, seed):
    return independent(models, canaries, seed).inside


def test_each_canary_is_in_exactly_half_of_a_balanced_set():
    coins = balanced(32, 200, seed=3)
    assert (coins.inside.sum(axis=0) == 16).all()
    # models are not balanced: 200 fair coins, 100 with a deviation of 7.1
    assert 4 < coins.inside.sum(axis=1).std() < 10


def test_independent_coins_are_fair_and_uncorrelated():
    inside = independent(400, 300, seed=5).inside
    # 120,000 coins: a deviation of 0.0014
    assert abs(inside.mean() - 0.5) < 0.006
    assert abs((inside[:, 1:] == inside[:, :-1]).mean() - 0.5) < 0.006
    assert abs((inside[1:] == inside[:-1]).mean() - 0.5) < 0.006
    assert 8 < inside.sum(axis=0).std() < 12


@pytest.mark.parametrize("draw", [balanced, independent])
def test_a_seed_gives_its_coins_again_and_another_gives_others(draw):
    first, again, other = draw(6, 50, 1), draw(6, 50, 1), draw(6, 50, 2)
    np.testing.assert_array_equal(first.inside, again.inside)
    assert (first.inside != other.inside).any()
    assert (balanced(6, 50, 1).inside != independent(6, 50, 1).inside).any()


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: balanced(5, 3, 0), "models"),
        (lambda: balanced(0, 3, 0), "models"),
        (lambda: balanced(4, 0, 0), "canaries"),
        (lambda: independent(0, 3, 0), "models"),
        (lambda: independent(1, 3, -1), "seed"),
        (lambda: Coins(np.zeros(3, bool), "independent", 0), "inside"),
        (lambda: Coins(np.ones((2, 2), bool), "balanced", 0), "inside"),
        (lambda: Coins(np.eye(2, dtype=bool), "fair", 0), "kind"),
        (lambda: refusals.auditable(BALANCED, np.full((2, 40), 2)), "coins_b"),
        (lambda: refusals.auditable(BALANCED, fair(2, 41, 0)), "coins_b"),
    ],
)
def test_what_is_no_table_of_coins_is_refused(call, field, unchecked):
    with pytest.raises(InputError, match=f"^{field}"):
        call()


# ----------------------------------------------------- coins that cannot be audited


def test_more_models_leave_the_first_ones_coins_as_they_were():
    for draw in (balanced, independent):
        few, many = (draw(models, 30, seed=5).inside for models in (6, 16))
        np.testing.assert_array_equal(many[:6], few)


def nearly_balanced():
    """Seven models or eight of fifteen for each canary: balanced, as far as it goes."""
    order = np.random.default_rng(0).random((15, 400))
    return order.argsort(axis=0).argsort(axis=0) < 7 + np.arange(400) % 2


def half_of_each_model():
    order = np.random.default_rng(0).random((12, 40))
    return order.argsort(axis=1).argsort(axis=1) < 20


def unfair():
    return np.random.default_rng(0).random((8, 40)) < 0.8


def one_canary_always_inside():
    inside = fair(60, 40, 1)
    inside[:, 3] = True
    return inside


def repeated_models():
    return np.repeat(fair(2, 40, 1), [2, 1], axis=0)


def repeated_canaries():
    inside = fair(60, 40, 1)
    inside[:, 7] = inside[:, 30]
    return inside


@pytest.mark.parametrize(
    ("coins", "reason"),
    [
        (balanced(8, 40, 1), "balanced coins cannot be audited"),
        (balanced(8, 40, 1).inside, "each canary is inside .* as often"),
        (np.repeat([[True], [False]], 40, axis=1), "each canary is inside .* as often"),
        (half_of_each_model(), "each model is inside .* as often"),
        (unfair(), "too often or too seldom"),
        (one_canary_always_inside(), "a canary is inside too often"),
        (np.ones((1, 40), bool), "too often|as often"),
        (repeated_models(), "two models have the same"),
        (repeated_canaries(), "two canaries have the same"),
        (BALANCED, "the same as coins_a"),
        (BALANCED.inside, "as often|same as coins_a"),
    ],
)
def test_coins_of_b_that_are_not_fair_and_independent_are_refused(coins, reason):
    with pytest.raises(InputError, match=reason):
        refusals.auditable(BALANCED, coins)


def test_nearly_balanced_coins_are_refused():
    with pytest.raises(InputError, match=r"each canary is inside .* as often"):
        refusals.auditable(balanced(8, 400, 0), nearly_balanced())
    with pytest.raises(InputError, match=r"each model is inside .* as often"):
        refusals.auditable(balanced(8, 15, 0), nearly_balanced().T)


def test_coins_of_b_that_are_those_of_a_are_refused():
    coins = independent(8, 40, 4)
    with pytest.raises(InputError, match="the same as coins_a"):
        refusals.auditable(coins, coins)
    with pytest.raises(InputError, match="seed of coins_a"):
        refusals.auditable(coins, independent(4, 40, 4))
    with pytest.raises(InputError, match="rows of coins_a"):
        refusals.auditable(coins.inside, coins.inside[3:5].copy())
    column = coins.inside.reshape(-1, 1)
    with pytest.raises(InputError, match="the same as coins_a"):
        refusals.auditable(column, column.copy())


def test_fair_coins_are_refused_less_than_once_in_a_hundred_tries_of_each_shape():
    # each check errs once in a million; a threshold off by 1e4 would show here
    for models, canaries in [(1, 300), (2, 60), (16, 40), (400, 1), (50, 5), (7, 2)]:
        calibration = balanced(8, canaries, 0)
        for seed in range(100):
            refusals.auditable(calibration, independent(models, canaries, seed))


def test_too_few_coins_to_tell_are_let_through():
    # half of two coins, and two equal rows of one coin, are no evidence
    refusals.auditable(balanced(4, 1, 0), np.array([[True], [False]]))
    refusals.auditable(balanced(4, 2, 0), np.array([[True, False]]))
    refusals.auditable(balanced(4, 1, 0), independent(50, 1, 0))


def test_models_that_share_a_training_key_are_refused():
    refusals.independent_training(range(5), 5)
    words = np.arange(10, dtype=np.uint32).reshape(5, 2)
    words[3, 0] = words[2, 0]
    refusals.independent_training(words, 5)
    refusals.independent_training(["a", "b"], 2)
    words[3] = words[2]
    for keys in (words, [1, 2, 3, 4, 1], ["a", "b", "c", "d", "a"]):
        with pytest.raises(InputError, match=r"^training_keys: two models share one"):
            refusals.independent_training(keys, 5)
    with pytest.raises(InputError, match=r"^training_keys: 4 for 5 models"):
        refusals.independent_training(range(4), 5)
