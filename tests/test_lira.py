"""LiRA: published values, loops that do the same, known leaks found as they are."""

import itertools
from functools import partial

import mpmath
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from known_leaks import (
    assert_finds_two_deviations,
    auc_of,
    balanced,
    fair,
    released_means,
    tpr_of,
)

from rpjax import attacks, resampling
from rpjax.attacks import leave_one_out, likelihood, lira, lira_leave_one_out
from rpjax.errors import InputError

VARIANCES = ("shrunken", "fixed", "per_record")
RULES = [
    {"variance": v, "offline": o, "queries": q}
    for v, o, q in itertools.product(VARIANCES, (False, True), ("average", "separate"))
]


def some(seed=0, models=9, records=5, queries=3, targets=4):
    """Small made-up scores of records of many difficulties, unequal IN and OUT."""
    rng = np.random.default_rng(seed)
    coins = balanced(rng, models, records)
    shape = (models + targets, records, queries)
    scores = rng.normal(size=(1, records, 1)) * 4 + rng.normal(size=shape)
    scores[:models] += 1.5 * coins[:, :, None]
    return scores[:models], coins, scores[models:]


# ---------------------------------------------------------------- values and formulas


def test_the_shrunken_predictive_has_the_published_check_values():
    scores = np.array([1.0, 2, 3, 2])[:, None, None]
    world = likelihood.world(scores, np.ones((4, 1), bool))
    law = likelihood.student(world, np.zeros(1), np.ones(1), 6.0, 0.5)
    assert law.df.item() == 10
    assert law.location.item() == pytest.approx(1.777778, abs=5e-7)
    assert law.scale.item() == pytest.approx(1.093189, abs=5e-7)
    assert law.scale.item() ** 2 / (1 + 1 / 4.5) == pytest.approx(0.977778, abs=5e-7)
    assert law.logpdf(np.array(2.5)).item() == pytest.approx(-1.267962, abs=5e-7)
    z = (2.5 - law.location) / law.scale
    log_cdf = likelihood.log_t_cdf(z, law.df).item()
    assert log_cdf == pytest.approx(-0.303649, abs=5e-7)
    assert law.log_odds(np.array(2.5)).item() == pytest.approx(
        log_cdf - np.log1p(-np.exp(log_cdf))
    )


@pytest.mark.parametrize("df", [1.0, 6.0, 14.0, 40.0, 2000.0])
def test_the_log_of_students_distribution_is_right_in_both_tails(df):
    """Against 50 digits, where scipy's own is minus infinity too."""
    with mpmath.workdps(50):
        for t in (0.0, 0.5, 2.0, 8.0, 40.0, 1e3, 1e6, 1e20, 1e100):
            a, share = mpmath.mpf(df) / 2, df / (df + mpmath.mpf(t) ** 2)
            tail = mpmath.betainc(a, 0.5, 0, share, regularized=True) / 2
            for x, exact in ((-t, mpmath.log(tail)), (t, mpmath.log1p(-tail))):
                found = likelihood.log_t_cdf(x, df)
                assert found == pytest.approx(float(exact), rel=1e-11, abs=0), (x, df)


def loop_law(own, everyone, variance, nu0, kappa0):
    """The law of a further score of one record, from scipy.stats.

    own: the scores of this record's models on one side; everyone: those of all records.
    """
    n, mean = len(own), np.mean(own)
    freedom = sum(len(s) - 1 for s in everyone)
    pooled_variance = sum(np.var(s) * len(s) for s in everyone) / freedom
    if variance == "fixed":
        return scipy.stats.norm(mean, np.sqrt(pooled_variance))
    if variance == "per_record":
        return scipy.stats.norm(mean, np.std(own, ddof=1))
    if kappa0 is None:
        spread = np.var([np.mean(s) for s in everyone])
        spread -= np.mean([pooled_variance / len(s) for s in everyone])
        kappa0 = 1.0 if spread < pooled_variance else pooled_variance / spread
    centre = np.mean(np.concatenate(everyone))
    kappa, nu = kappa0 + n, nu0 + n
    squares = sum((s - mean) ** 2 for s in own)
    gap = kappa0 * n * (mean - centre) ** 2 / kappa
    posterior = (nu0 * pooled_variance + squares + gap) / nu
    location = (kappa0 * centre + n * mean) / kappa
    return scipy.stats.t(nu, location, np.sqrt(posterior * (1 + 1 / kappa)))


def loop_lira(a, coins, b, variance, offline, queries, nu0=6.0, kappa0=None):
    if queries == "average":
        a, b = a.mean(-1, keepdims=True), b.mean(-1, keepdims=True)
    found = np.zeros(b.shape)
    for r, i, q in np.ndindex(b.shape):
        sides = []
        for side in (coins, ~coins):
            everyone = [a[side[:, j], j, q] for j in range(a.shape[1])]
            sides.append(loop_law(everyone[i], everyone, variance, nu0, kappa0))
        inside, outside = sides
        if offline:
            found[r, i, q] = outside.logcdf(b[r, i, q]) - outside.logsf(b[r, i, q])
        else:
            found[r, i, q] = inside.logpdf(b[r, i, q]) - outside.logpdf(b[r, i, q])
    return found.mean(-1)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: "-".join(map(str, r.values())))
def test_lira_is_the_loop_over_records_with_scipys_distributions(rule):
    for seed in range(3):
        a, coins, b = some(seed)
        np.testing.assert_allclose(
            lira(a, coins, b, **rule), loop_lira(a, coins, b, **rule), rtol=1e-9
        )


def test_the_prior_may_be_given():
    a, coins, b = some()
    prior = {"nu0": 4.0, "kappa0": 0.3}
    expected = loop_lira(a, coins, b, "shrunken", False, "average", **prior)
    np.testing.assert_allclose(lira(a, coins, b, **prior), expected, rtol=1e-9)
    assert not np.allclose(lira(a, coins, b), expected)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: "-".join(map(str, r.values())))
def test_leaving_one_out_by_updates_is_fitting_anew_without_it(rule):
    a, coins, _ = some(models=8, records=40)
    slow = leave_one_out(partial(lira, **rule), a, coins)
    fast = lira_leave_one_out(a, coins, **rule)
    np.testing.assert_allclose(fast, slow, rtol=1e-8)
    refit = lira(np.delete(a, 2, 0), np.delete(coins, 2, 0), a[[2]], **rule)
    np.testing.assert_array_equal(slow[2], refit[0])


def test_plain_arrays_of_any_kind_will_do():
    a, coins, b = some(queries=1)
    expected = lira(a, coins, b)
    for kind in (lambda x: x[:, :, 0], lambda x: x[:, :, 0].tolist()):
        np.testing.assert_array_equal(lira(kind(a), coins, kind(b)), expected)
    np.testing.assert_array_equal(lira(a, coins.astype(int), b), expected)
    in_float32 = lira(a.astype(np.float32), coins, b.astype(np.float32))
    assert in_float32.dtype == np.float64
    np.testing.assert_allclose(in_float32, expected, rtol=1e-4)


# ------------------------------------------------------------------------ symmetries


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(RULES))
def test_the_order_of_models_records_and_queries_does_not_matter(seed, rule):
    a, coins, b = some(seed)
    rng = np.random.default_rng(seed)
    expected = lira(a, coins, b, **rule)
    for axis in range(3):
        order = rng.permutation(a.shape[axis])
        own = coins.take(order, axis) if axis < 2 else coins
        asked = b.take(order, axis) if axis else b
        found = lira(a.take(order, axis), own, asked, **rule)
        wanted = expected[:, order] if axis == 1 else expected
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)
    order = rng.permutation(len(b))
    np.testing.assert_array_equal(lira(a, coins, b[order], **rule), expected[order])


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from(RULES),
    st.floats(1e-3, 1e3),
    st.floats(-100, 100),
)
def test_units_do_not_matter_and_the_sides_may_change_places(seed, rule, scale, shift):
    a, coins, b = some(seed)
    expected = lira(a, coins, b, **rule)
    found = lira(scale * a + shift, coins, scale * b + shift, **rule)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    if not rule["offline"]:
        swapped = lira(a, ~coins, b, **rule)
        np.testing.assert_allclose(swapped, -expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variance", VARIANCES)
def test_offline_scores_rise_with_the_target_s_score_and_never_tie(variance):
    """Also where the distribution function itself is rounded to 1."""
    a, coins, _ = some(queries=1)
    scores = np.repeat(np.linspace(-900, 900, 400)[:, None], a.shape[1], 1)
    found = lira(a[:, :, 0], coins, scores, variance=variance, offline=True)
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=0) > 0).all()


def test_offline_looks_only_at_models_without_the_record():
    a, coins, b = some()
    other = np.where(coins[:, :, None], 17.0, a)
    for rule in RULES:
        same = np.array_equal(lira(a, coins, b, **rule), lira(other, coins, b, **rule))
        assert same == rule["offline"]


def test_scores_that_never_vary_tell_nothing_and_break_nothing():
    a, coins, b = (np.zeros_like(x) for x in some())
    coins = some()[1]
    for rule in RULES:
        assert np.ptp(lira(a, coins, b, **rule)) == 0
    certain = np.repeat(coins[:, :, None].astype(float), 3, 2)
    found = lira(certain, coins, certain, variance="fixed")
    assert np.isfinite(found).all()
    assert ((found > 0) == coins).all()


# ---------------------------------------------------------------- leaks of known size


@pytest.fixture(scope="module")
def means():
    """Gaps of two standard deviations, but for the company that records keep."""
    return released_means(11)


@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_the_leak_of_a_noisy_mean_is_found_in_full(means, variance, offline):
    a, coins_a, b, coins_b = means
    found = lira(a, coins_a, b, variance=variance, offline=offline)
    assert_finds_two_deviations(found, coins_b)


def test_the_closed_form_has_the_published_row():
    row = [auc_of(2), *(tpr_of(2, fpr) for fpr in (0.1, 0.01, 0.001))]
    np.testing.assert_allclose(row, [0.921350, 0.763760, 0.372081, 0.137805], atol=5e-7)


def test_nothing_is_found_where_nothing_leaks(means):
    """Coins that trained nobody; error rate 1e-3 each."""
    a, coins_a, b, _ = means
    coins = fair(np.random.default_rng(13), *b.shape)
    for offline in (False, True):
        found = lira(a, coins_a, b, offline=offline)
        area = resampling.auc(found, coins, 0.999, replicates=500)
        assert area.low < 0.5 < area.high


# ----------------------------------------------------------------- normality, refusals


def test_shapiro_wilk_rejects_as_many_gaussians_as_its_level_says():
    """1,000 records: within 0.03 of the level but with probability 1e-4."""
    rng = np.random.default_rng(31)
    coins = balanced(rng, 32, 1000)
    scores = rng.normal(size=(32, 1000))
    assert attacks.not_normal(scores, coins) == pytest.approx((0.05, 0.05), abs=0.03)
    skewed = np.where(coins, np.exp(2 * scores), scores)
    inside, outside = attacks.not_normal(skewed, coins)
    assert inside > 0.8
    assert outside == pytest.approx(0.05, abs=0.03)
    constant = np.where(coins, 1.0, scores)
    assert attacks.not_normal(constant, coins)[0] == 1


def broken(change):
    a, coins, b = (x.copy() for x in some())
    inputs = {"a": a, "coins": coins, "b": b}
    inputs.update(change(**inputs) or {})
    return inputs["a"], inputs["coins"], inputs["b"]


def put(name, where, value):
    def change(**inputs):
        inputs[name][where] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("a", (3, 2, 0), np.nan), "scores_a: 1 scores .* model 3 on record 2"),
        (put("b", (0, 4, 1), -np.inf), "scores_b: 1 scores .* model 0 on record 4"),
        (put("b", (0, 4, 1), -1e300), "scores_b: .* clip"),
        (put("coins", (slice(None), 3), False), "record 3 is in .* of 0 models"),
        (put("coins", (slice(None), 1), True), "record 1 is out of .* of 0 models"),
        (lambda a, coins, b: {"coins": coins[:, :4]}, r"coins_a: shape \(9, 4\)"),
        (lambda a, coins, b: {"coins": 2 * coins}, "coins_a: a coin is"),
        (lambda a, coins, b: {"a": a[0, 0]}, r"scores_a: shape \(3,\)"),
        (lambda a, coins, b: {"a": a[:0], "coins": coins[:0]}, "none of them 0"),
        (lambda a, coins, b: {"b": b[:, :3]}, "scores_b: 3 records"),
        (lambda a, coins, b: {"b": b[:, :, :2]}, "scores_b: 5 records, 2 queries"),
        (
            lambda a, coins, b: {
                "a": a[:2],
                "coins": np.arange(2)[:, None] < [[1] * 5],
            },
            "no record has two models on the same side",
        ),
    ],
)
def test_unusable_scores_and_coins_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        lira(*broken(change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": "pooled"}, "variance is 'pooled'"),
        ({"queries": "mean"}, "queries is 'mean'"),
        ({"nu0": 0.0}, "nu0 is 0.0"),
        ({"kappa0": 0.0}, "kappa0 is 0.0"),
        ({"kappa0": float("nan")}, "kappa0 is nan"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_that_are_none_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        lira(*some(), **options)
    with pytest.raises(InputError, match=message):
        lira_leave_one_out(*some()[:2], **options)


def test_each_rule_asks_for_the_models_that_it_needs():
    a, coins, b = some()
    never_in = coins.copy()
    never_in[:, 3] = False
    assert np.isfinite(lira(a, never_in, b, offline=True)).all()
    once_in = never_in.copy()
    once_in[0, 3] = True
    assert np.isfinite(lira(a, once_in, b)).all()
    with pytest.raises(InputError, match=r"record 3 is in .* of 1 models, at least 2"):
        lira(a, once_in, b, variance="per_record")
    with pytest.raises(InputError, match=r"record 3 is in .* of 0 models"):
        lira_leave_one_out(a, once_in)
    with pytest.raises(InputError, match=r"record 3 is in .* of 0 models"):
        attacks.not_normal(a, never_in)
