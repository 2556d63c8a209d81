"""BASE, RMIA and simpler calibrations: published values, loops, the leak of a mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_leaks import (
    Gaussians,
    assert_finds_two_deviations,
    balanced,
    fair,
    pooled,
    released_means,
)

from rpjax.attacks import base, difficulty_calibrated, population_quantile, rmia
from rpjax.errors import InputError


def some(seed=0, models=8, records=5, queries=3, targets=4):
    """Log-probabilities of shadow models and targets; unequal IN and OUT."""
    rng = np.random.default_rng(seed)
    coins = fair(rng, models, records)
    coins[:2] = [[True], [False]]
    log_probs = np.log(rng.random((models + targets, records, queries)))
    return log_probs[:models], coins, log_probs[models:]


# -------------------------------------------------------------------- values, loops


def test_base_has_the_published_check_value():
    references = np.log([[0.9], [0.5], [0.3], [0.6]])
    found = base(references, [[1], [1], [0], [0]], np.log([[0.95]]))
    assert found.item() == pytest.approx(0.502092, abs=5e-7)


def test_the_offline_ratio_has_the_published_check_value():
    """p_out = 0.4 and a = 0.3 make 0.61."""
    references = np.log([[0.5], [0.3]])
    found = base(references, [[0], [0]], np.log([[0.95]]), offline_a=0.3)
    assert found.item() == pytest.approx(0.443003, abs=5e-7)
    assert 0.95 / np.exp(found.item()) == pytest.approx(0.61)


def loop_base(a, coins, b, offline_a):
    found = np.zeros(b.shape)
    for r, i, q in np.ndindex(b.shape):
        p = np.exp(a[:, i, q])
        out = p[~coins[:, i]].mean()
        if offline_a is None:
            reference = (p[coins[:, i]].mean() + out) / 2
        else:
            reference = ((1 + offline_a) * out + 1 - offline_a) / 2
        found[r, i, q] = b[r, i, q] - np.log(reference)
    return found.mean(-1)


@pytest.mark.parametrize("offline_a", [None, 0.0, 0.3, 1.0])
def test_base_is_the_loop_over_records(offline_a):
    a, coins, b = some()
    found = base(a, coins, b, offline_a=offline_a)
    np.testing.assert_allclose(found, loop_base(a, coins, b, offline_a), rtol=1e-9)


def test_where_half_of_the_models_had_a_record_all_of_them_are_averaged():
    a, _, b = some()
    coins = balanced(np.random.default_rng(1), 8, 5)
    expected = (b - np.log(np.exp(a).mean(0))).mean(-1)
    np.testing.assert_allclose(base(a, coins, b), expected, rtol=1e-9)


def test_rmia_and_population_quantiles_are_the_loop_over_pairs():
    rng = np.random.default_rng(2)
    x, z = rng.normal(size=(3, 20)), rng.normal(size=(3, 31))
    for gamma in (1.0, 2.0):
        found = rmia(x, z, gamma=gamma)
        for r, i in np.ndindex(x.shape):
            assert found[r, i] == np.mean(
                [x[r, i] - own > np.log(gamma) for own in z[r]]
            )
    np.testing.assert_array_equal(population_quantile(x, z), rmia(x, z, gamma=1.0))
    assert (rmia(x, x, gamma=1.0).max(1) == 19 / 20).all(), "equal ones do not dominate"


def test_one_target_s_records_are_ranked_by_their_ratio_whatever_gamma_is():
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(1, 50)), rng.normal(size=(1, 5000))
    for gamma in (1.0, 1.5, 3.0):
        ranked = rmia(x, z, gamma=gamma)[0][np.argsort(x[0])]
        assert (np.diff(ranked) >= 0).all()


def test_difficulty_calibration_takes_off_the_mean_score_of_models_without():
    a, coins, b = some()
    found = difficulty_calibrated(a, coins, b)
    for r, i in np.ndindex(found.shape):
        out = a[~coins[:, i], i].mean()
        assert found[r, i] == pytest.approx(b[r, i].mean() - out)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([None, 0.3]))
def test_the_order_of_models_records_and_queries_does_not_matter(seed, offline_a):
    a, coins, b = some(seed)
    rng = np.random.default_rng(seed)
    for attack in (lambda *x: base(*x, offline_a=offline_a), difficulty_calibrated):
        expected = attack(a, coins, b)
        for axis in range(3):
            order = rng.permutation(a.shape[axis])
            own = coins.take(order, axis) if axis < 2 else coins
            asked = b.take(order, axis) if axis else b
            found = attack(a.take(order, axis), own, asked)
            wanted = expected[:, order] if axis == 1 else expected
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


# ----------------------------------------------------------------- leaks of known size


def test_all_find_the_leak_of_a_noisy_mean_in_full():
    """Scores made log-probabilities so alike that their mean is their logs' mean."""
    a, coins_a, b, coins_b = released_means(11)
    unit = 0.05 / a.std()
    ratios = base(unit * a - 5, coins_a, unit * b - 5)
    assert_finds_two_deviations(ratios, coins_b)
    # 20,000 others, in nobody's training set
    others = np.random.default_rng(12).normal(scale=0.05, size=(48, 20_000))
    assert_finds_two_deviations(rmia(ratios, others, gamma=1.0), coins_b)
    assert_finds_two_deviations(difficulty_calibrated(a, coins_a, b), coins_b)


def test_a_population_puts_targets_on_one_scale():
    """Targets that are surer of everything: ratios pooled mislead, shares do not."""
    rng = np.random.default_rng(13)
    coins = fair(rng, 20, 400)
    level = 3 * rng.normal(size=(20, 1))
    ratios = rng.normal(size=coins.shape) + 2 * coins + level
    others = rng.normal(size=(20, 2000)) + level
    alone, together = pooled(ratios, coins), pooled(rmia(ratios, others), coins)
    assert together[1] > alone[1] + 0.1


def test_calibration_finds_what_records_of_unlike_difficulty_hide():
    rng = np.random.default_rng(14)
    world = Gaussians(rng, 2000, difficulty=10)
    coins_a, coins_b = balanced(rng, 4, 2000), fair(rng, 4, 2000)
    a, b = world.scores(rng, coins_a), world.scores(rng, coins_b)
    bare, calibrated = (
        pooled(s, coins_b)[1] for s in (b, difficulty_calibrated(a, coins_a, b))
    )
    assert calibrated > bare + 0.2


# -------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, c, b: (a + 9, c, b), r"log_probs_a: .* at most 0"),
        (lambda a, c, b: (a, c, b + 9), r"log_probs_b: .* at most 0"),
        (lambda a, c, b: (a, c & False, b), "record 0 is in .* of 0 models"),
        (lambda a, c, b: (a, c | True, b), "record 0 is out of .* of 0 models"),
        (lambda a, c, b: (a, c, b[:, :2]), "scores_b: 2 records"),
        (lambda a, c, b: (a, c, b * np.nan), "scores_b: 60 scores are NaN"),
    ],
)
def test_unusable_log_probabilities_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        base(*change(*some()))


@pytest.mark.usefixtures("unchecked")
def test_settings_and_populations_that_do_not_fit_are_refused():
    a, coins, b = some()
    for offline_a in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="offline_a is"):
            base(a, coins, b, offline_a=offline_a)
    for gamma in (0.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match="gamma is"):
            rmia(b, b, gamma=gamma)
    with pytest.raises(InputError, match="population: 8 models, but ratios: 4"):
        rmia(b, a)
    with pytest.raises(InputError, match="record 0 is out of"):
        difficulty_calibrated(a, coins | True, b)
