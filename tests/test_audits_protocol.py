"""The audit as a whole: what it finds, what it refuses, what it says of its numbers."""

import functools
import json

import numpy as np
import pytest
import scipy.stats

from rpjax.audits import (
    audit,
    balanced,
    f_dp,
    independent,
    one_run,
    protocol,
    rates,
    shuffled,
)
from rpjax.errors import InputError

TOLD = {
    "delta": 1e-5,
    "adjacency": "add or remove one canary",
    "threat": "T4",
    "canaries": "label_noise",
}


def gaussian(coins, mu, seed):
    """Scores of a procedure that releases each coin with Gaussian noise: mu-GDP."""
    noise = np.random.default_rng(seed).standard_normal(coins.inside.shape)
    return mu * coins.inside + noise


def case(mu, models_a=16, models_b=8, canaries=250, seed=1):
    a, b = balanced(models_a, canaries, seed), independent(models_b, canaries, seed)
    return gaussian(a, mu, [seed, 1]), a, gaussian(b, mu, [seed, 2]), b


@functools.cache
def strongly_leaking():
    """An audit of a procedure that hides little, with all that can be told."""
    return audit(
        *case(4.0),
        **TOLD,
        claims=[1.0, 3.0, 30.0],
        mu_claims=[0.5, 4.0],
        training_keys=range(24),
    )


@pytest.fixture
def strong():
    return strongly_leaking()


# ----------------------------------------------------------------- what it finds


def test_a_procedure_that_hides_little_is_found_out(strong):
    # its true epsilon is 24; 1,200 right guesses of 1,200 give 5.9
    assert 24 > strong.epsilon > 5
    assert strong.coins == 2000
    counts = (strong.coins, strong.guesses, strong.correct)
    assert strong.epsilon == one_run.epsilon_lower_bound(*counts, 1e-5, 0.95)


def test_claims_are_refuted_below_the_bound_and_not_above(strong):
    assert [t.refuted for t in strong.claims] == [True, True, False, True, False]
    counts = (strong.coins, strong.guesses, strong.correct)
    by_name = {(t.name, t.claimed): t.p_value for t in strong.claims}
    assert by_name["epsilon", 3.0] == one_run.p_value(*counts, 3.0, 1e-5)
    assert by_name["mu", 0.5] == f_dp.p_value(*counts, 0.5)


def test_more_runs_raise_the_bound():
    few, many = audit(*case(4.0, models_b=1), **TOLD), audit(*case(4.0), **TOLD)
    assert few.epsilon + 1 < many.epsilon


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_a_procedure_that_hides_much_is_not_said_to_leak_more(mu):
    # mu = 1 has an epsilon of 4.4 at 1e-5
    found = audit(*case(mu), **TOLD)
    assert found.epsilon < 4.4
    assert (found.epsilon == 0) == (mu == 0)


def test_everything_is_chosen_without_the_coins_or_scores_of_b():
    scores_a, a, scores_b, b = case(3.0)
    plan = audit(scores_a, a, scores_b, b, **TOLD).plan
    other = audit(scores_a, a, -scores_b, independent(8, 250, 77), **TOLD)
    assert other.plan == plan
    assert other.epsilon == 0


def test_the_side_that_leaks_is_the_one_that_is_guessed():
    rng = np.random.default_rng(3)

    def only_absence_shows(coins):
        shows = ~coins.inside & (rng.random(coins.inside.shape) < 0.1)
        return np.where(shows, -10.0, rng.standard_normal(coins.inside.shape))

    a, b = balanced(16, 250, 0), independent(8, 250, 0)
    found = audit(only_absence_shows(a), a, only_absence_shows(b), b, **TOLD)
    assert found.plan.guess_in == 0
    assert found.plan.guess_out == 100 == found.correct


def test_several_tests_share_the_error():
    single, among_ten = (audit(*case(2.0), **TOLD, tests=t) for t in (1, 10))
    counts = (among_ten.coins, among_ten.guesses, among_ten.correct)
    expected = one_run.epsilon_lower_bound(*counts, 1e-5, 0.995)
    assert among_ten.epsilon == pytest.approx(expected)
    assert among_ten.epsilon < single.epsilon
    one, ten = (
        audit(*case(2.0), **TOLD, tests=t, claims=[1.9, 0.5, 6.0], mu_claims=[1.5])
        for t in (1, 10)
    )
    assert one.guesses == ten.guesses
    for before, after in zip(one.claims, ten.claims, strict=True):
        assert after.p_value == pytest.approx(min(1, 10 * before.p_value))
        assert after.refuted == (after.p_value < 0.05)


def test_tied_scores_leak_nothing_whatever_their_order():
    a, b = balanced(8, 100, 0), independent(4, 100, 0)
    order = lambda coins: np.zeros(coins.inside.shape)
    found = [
        audit(order(a), a, order(b), b, **TOLD, seed=seed).correct for seed in (0, 1)
    ]
    again = audit(order(a), a, order(b), b, **TOLD, seed=1)
    assert again.correct == found[1] != found[0]
    assert again.seeds["ties"] == 1
    assert again.epsilon == 0


# ---------------------------------------------------------------- the two known traps


def test_guesses_from_coins_that_are_audited_break_the_bound_and_are_refused():
    """The procedure releases nothing, and each guess is the XOR of all other coins."""
    broken, honest = 0, 0
    a = balanced(4, 200, 0)
    for seed in range(500):
        b = independent(1, 200, seed)
        others = b.inside.sum() - b.inside
        guesses = np.where(others % 2 == 1, 1.0, -1.0)
        right = int(((guesses > 0) == b.inside).sum())
        broken += one_run.epsilon_lower_bound(200, 200, right, 1e-5) > 4
        # from the coins of A, the same guesses are worth nothing
        scores = np.where((a.inside.sum(axis=0) + b.seed) % 2 == 1, 1.0, -1.0)
        found = one_run.correct_guesses(scores, b.inside, 50, 50, seed)
        honest += one_run.epsilon_lower_bound(200, 100, found, 1e-5) > 0
    # all right or all wrong: half of the time, within five deviations
    assert abs(broken - 250) < 56
    # error rate 0.05: more than 48 of 500 with probability 1e-5
    assert honest <= scipy.stats.binom.isf(1e-5, 500, 0.05)
    # guesses within one set need its coins as calibration: refused
    with pytest.raises(InputError, match="the same as coins_a"):
        audit(guesses, b, guesses, b, **TOLD)
    with pytest.raises(InputError, match="the same as coins_a"):
        audit(guesses, b.inside, guesses, b.inside.copy(), **TOLD)


def test_a_balanced_design_breaks_the_bound_and_is_refused():
    """The procedure releases nothing; a model's coins follow from the others'."""
    coins = balanced(16, 100, 0)
    others = coins.inside.sum(axis=0) - coins.inside
    guesses = np.where(others < 8, 1.0, -1.0)
    right = one_run.correct_guesses(guesses, coins.inside, 800, 800, 0)
    assert right == 1600
    assert one_run.epsilon_lower_bound(1600, 1600, right, 1e-5) > 6
    a = balanced(16, 100, 1)
    for given in (coins, coins.inside):
        with pytest.raises(InputError, match="independent"):
            audit(guesses, a, guesses, given, **TOLD)


def test_models_that_share_a_key_are_refused():
    keys = np.arange(24)
    keys[20] = keys[3]
    with pytest.raises(InputError, match=r"^training_keys: two models share one"):
        audit(*case(1.0), **TOLD, training_keys=keys)


def test_what_was_not_told_is_recorded(strong):
    assert strong.warnings == ()
    scores_a, a, scores_b, b = case(1.0)
    found = audit(scores_a, a.inside, scores_b, b.inside, **TOLD)
    assert [w.split(":")[0] for w in found.warnings] == ["coins_b", "training_keys"]
    assert found.seeds == {"coins_a": None, "coins_b": None, "ties": 0}
    assert found.epsilon == audit(scores_a, a, scores_b, b, **TOLD).epsilon


# ----------------------------------------------------------------- negative control


@pytest.mark.parametrize("mu", [0.0, 4.0])
def test_coins_drawn_afresh_give_zero(mu):
    scores_a, a, scores_b, _ = case(mu)
    bounds = shuffled(scores_a, a, scores_b, delta=1e-5, repetitions=500)
    assert bounds.shape == (500,)
    assert (bounds == 0).mean() >= 0.95


def test_the_control_is_the_audit_with_other_coins():
    # an error rate of 0.05: more than 4 of 12 with probability 2e-4
    scores_a, a, scores_b, _ = case(4.0, models_a=4, models_b=2, canaries=100)
    others = [independent(2, 100, seed) for seed in range(12)]
    found = [audit(scores_a, a, scores_b, coins, **TOLD) for coins in others]
    assert sum(f.epsilon > 0 for f in found) <= 4
    guesses = found[0].guesses
    right = [f.correct / guesses for f in found]
    assert np.mean(right) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(12 * guesses))


# --------------------------------------------------------- what it says of its numbers


def test_each_number_says_what_it_is(strong):
    kinds = [(f.name, f.method.split(",")[0], f.kind) for f in strong.figures]
    assert kinds == [
        ("mu", "one run", "bound"),
        ("epsilon", "one run", "estimate"),
        ("epsilon", "Clopper-Pearson", "estimate"),
        ("mu", "Clopper-Pearson", "estimate"),
        ("epsilon", "Clopper-Pearson", "estimate"),
        ("epsilon", "Bayesian", "credible interval"),
    ]
    last = strong.figures[-1]
    assert last.value < last.upper
    assert strong.kind == "bound"


def test_rates_are_a_bound_where_each_model_has_one_canary():
    scores_a, a, scores_b, b = case(3.0, 400, 400, canaries=1)
    found = audit(scores_a, a, scores_b, b, **TOLD)
    epsilon, mu = (f for f in found.figures if f.method == "Clopper-Pearson")
    assert epsilon.kind == mu.kind == "bound"
    above = scores_b >= found.plan.threshold
    counts = ((b.inside & ~above).sum(), b.inside.sum())
    counts += ((~b.inside & above).sum(), (~b.inside).sum())
    assert epsilon.value == rates.epsilon_lower_bound(*map(int, counts), 1e-5) > 2
    assert 1.5 < mu.value < 3


def test_without_delta_no_epsilon_comes_from_a_mu():
    found = audit(*case(2.0), **TOLD | {"delta": 0.0})
    assert [f.name for f in found.figures] == ["mu", "epsilon", "mu", "epsilon"]


def test_an_audit_turns_into_plain_json(strong):
    found = json.loads(json.dumps(strong.as_dict(), allow_nan=False))
    assert found["kind"] == "bound"
    assert found["adjacency"] == "add or remove one canary"
    assert found["threat"] == "T4"
    assert found["claims"][0]["refuted"] is True
    assert found["figures"][-1]["kind"] == "credible interval"
    assert found["plan"]["threshold"] == strong.plan.threshold
    assert found["seeds"] == {"coins_a": 1, "coins_b": 1, "ties": 0}
    scores_a, a, scores_b, b = case(4.0)
    scores_a[scores_a > 2] = np.inf
    boundless = audit(scores_a, a, scores_b, b, **TOLD)
    assert boundless.as_dict()["plan"]["threshold"] is None
    json.dumps(boundless.as_dict(), allow_nan=False)


def test_an_audit_reads_as_a_verdict(strong):
    text = str(strong)
    assert text.startswith("T4, canaries label_noise: epsilon >= 5.94 (95 %")
    assert "delta = 1e-05" in text
    assert "8 x 250 coins" in text
    assert text.endswith("; add or remove one canary)")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"delta": 1.0}, "delta"),
        ({"confidence": 1.0}, "confidence"),
        ({"tests": 0}, "tests"),
        ({"adjacency": "add"}, "adjacency"),
        ({"threat": "T6"}, "threat"),
        ({"claims": [-1.0]}, "epsilon"),
        ({"mu_claims": [-1.0]}, "mu"),
        ({"scores_a": np.zeros((16, 249))}, "scores_a"),
        ({"scores_b": np.full((8, 250), np.nan)}, "scores_b"),
        ({"training_keys": [1, 2]}, "training_keys"),
    ],
)
def test_bad_input_is_refused(change, field, unchecked):
    names = ("scores_a", "coins_a", "scores_b", "coins_b")
    given = dict(zip(names, case(1.0), strict=True)) | TOLD | change
    with pytest.raises(InputError, match=f"^{field}"):
        audit(**given)


def test_delta_must_be_given():
    with pytest.raises(TypeError, match="delta"):
        audit(*case(1.0), **{k: v for k, v in TOLD.items() if k != "delta"})


def test_one_coin_is_too_few():
    with pytest.raises(InputError, match=r"^scores_b: 1 coin"):
        protocol.choose(np.zeros((2, 1)), np.eye(2, 1, dtype=bool), 1, 0.0, 0.95, 0)
