"""Bounds from rates, approximate ratios, credible intervals: known values and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.audits import bayesian, rates, ratios
from rpjax.errors import InputError
from rpjax.intervals import clopper_pearson
from rpjax.privacy import gdp

# (false negatives, positives, false positives, negatives): epsilon at delta 0 and at
# 1e-5, mu, and epsilon from mu at 1e-5
KNOWN = {
    (0, 100, 0, 100): (3.281346, 3.281336, 3.592769, 21.120339),
    (0, 500, 0, 500): (4.905594, 4.905584, 4.879314, 31.997408),
    (0, 1000, 0, 1000): (5.600588, 5.600577, 5.359823, 36.489488),
    (0, 10_000, 0, 10_000): (7.904833, 7.904823, 6.750386, 50.800345),
    (500, 1000, 0, 1000): (4.846162, 4.846141, 2.600994, 13.886565),
    (900, 1000, 0, 1000): (3.104524, 3.104402, 1.288863, 5.888331),
    (500, 1000, 10, 1000): (3.242017, 3.241995, 2.010986, 10.064962),
    (125, 250, 0, 250): (3.394179, 3.394156, 2.019254, 10.115999),
    (8000, 16_000, 16, 16_000): (5.714388, 5.714368, 2.923847, 16.130554),
}


@pytest.mark.parametrize("counts", KNOWN)
def test_bounds_from_rates_have_their_known_values(counts):
    found = (
        rates.epsilon_lower_bound(*counts, delta=0),
        rates.epsilon_lower_bound(*counts, delta=1e-5),
        rates.mu_lower_bound(*counts),
        rates.epsilon_estimate(*counts, delta=1e-5),
    )
    assert found == pytest.approx(KNOWN[counts], abs=6e-7)


def test_jagielskis_ratio_is_reproduced():
    # TensorFlow Privacy's test: 500 of 500 found, none of 500 wrongly, error 0.01
    found = rates.epsilon_lower_bound(0, 500, 0, 500, delta=0, confidence=0.99)
    assert found == pytest.approx(4.5419, abs=5e-5)


@pytest.mark.parametrize(
    ("mu", "at_5", "at_6"),
    [
        (0.25, 0.926342, 1.060702),
        (0.5, 1.993091, 2.254085),
        (1, 4.377178, 4.886554),
        (2, 9.997256, 10.997151),
        (3, 16.675494, 18.163446),
        (4, 24.381611, 26.356964),
        (5, 33.103732, 35.566344),
    ],
)
def test_the_epsilon_of_a_mu_has_its_known_values(mu, at_5, at_6):
    found = gdp.epsilon(1e-5, mu), gdp.epsilon(1e-6, mu)
    assert found == pytest.approx((at_5, at_6), abs=6e-7)


totals = st.integers(1, 300)
shares = st.floats(0, 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(totals, totals, shares, shares, st.sampled_from([0.0, 1e-5, 0.05]))
def test_errors_lower_the_bounds_and_both_directions_count(p, n, x, y, delta):
    fn, fp = round(x * p), round(y * n)
    epsilon = rates.epsilon_lower_bound(fn, p, fp, n, delta)
    mu = rates.mu_lower_bound(fn, p, fp, n)
    assert rates.epsilon_lower_bound(fp, n, fn, p, delta) == epsilon >= 0
    assert rates.mu_lower_bound(fp, n, fn, p) == pytest.approx(mu)
    tail = 0.025
    limits = [clopper_pearson(k, t, 1 - 2 * tail).high for k, t in ((fn, p), (fp, n))]
    ratio = max((1 - limits[i] - delta) / limits[1 - i] for i in (0, 1))
    assert epsilon == pytest.approx(math.log(max(ratio, 1.0)))
    assert rates.epsilon_lower_bound(min(fn + 1, p), p, fp, n, delta) <= epsilon
    assert rates.mu_lower_bound(fn, p, min(fp + 1, n), n) <= mu
    assert rates.epsilon_lower_bound(fn, p, fp, n, delta, thresholds=5) <= epsilon
    assert rates.mu_lower_bound(fn, p, fp, n, thresholds=5) <= mu


def test_a_correction_for_thresholds_divides_the_error():
    ten = rates.epsilon_lower_bound(50, 100, 0, 100, 0.0, 0.95, thresholds=10)
    assert ten == pytest.approx(rates.epsilon_lower_bound(50, 100, 0, 100, 0.0, 0.995))
    ten = rates.mu_lower_bound(50, 100, 0, 100, 0.95, thresholds=10)
    assert ten == pytest.approx(rates.mu_lower_bound(50, 100, 0, 100, 0.995))


def test_an_attack_worse_than_chance_refutes_nothing():
    assert rates.epsilon_lower_bound(900, 1000, 900, 1000, 1e-5) == 0
    assert rates.mu_lower_bound(900, 1000, 900, 1000) == 0
    assert rates.mu_lower_bound(10, 10, 10, 10) == 0
    assert rates.epsilon_estimate(900, 1000, 900, 1000, 1e-5) == 0


# ---------------------------------------------------------------- approximate ratios


def test_approximate_ratios_have_their_known_values():
    # TensorFlow Privacy's test of `RatioBound`
    cases = [(900, 600), (0, 14), (10, 0), (1000, 1200)]
    katz = [ratios.katz_log(tp, 1000, fp, 1200) for tp, fp in cases]
    assert katz == pytest.approx([1.71127264, 0, 2.21549347, 0.99840355], abs=6e-9)
    bailey = [ratios.bailey(tp, 1000, fp, 1200) for tp, fp in cases]
    assert bailey == pytest.approx([1.71182320, 0, 3.86813751, 0.99840348], abs=6e-9)


@pytest.mark.parametrize("method", [ratios.katz_log, ratios.bailey])
def test_an_approximate_ratio_errs_about_as_often_as_it_says_at_large_counts(method):
    # 2,000 trials: within 0.02 of 0.05 but for a probability of 1e-4
    rng = np.random.default_rng(4)
    found, wrong = rng.binomial(1000, 0.6, 2000), rng.binomial(1000, 0.2, 2000)
    above = [
        method(int(tp), 1000, int(fp), 1000) > 3
        for tp, fp in zip(found, wrong, strict=True)
    ]
    assert abs(np.mean(above) - 0.05) < 0.02


# ------------------------------------------------------------------ credible interval


@pytest.mark.parametrize(
    ("found", "kept", "wrong", "missed", "interval"),
    [
        # Microsoft's README says 0.145 and 6.399, to within 0.01 and 0.1
        (487, 1, 512, 0, (0.1439, 6.4156)),
        # 12.1962 is also in circulation: midpoints along one rate alone, of which even
        # 20,001 leave an error of 1e-4 where both counts are 0 (501 give 12.2206)
        (100, 100, 0, 0, (4.8964, 12.1961)),
        (250, 500, 0, 250, (4.8687, 11.7532)),
    ],
)
def test_credible_intervals_have_their_known_values(
    found, kept, wrong, missed, interval
):
    ours = bayesian.credible_interval(
        missed, missed + found, wrong, wrong + kept, 1e-5, 0.9
    )
    assert ours == pytest.approx(interval, abs=1.1e-4)


@pytest.mark.parametrize(
    "counts", [(30, 100, 5, 80), (40, 50, 45, 50), (9, 20, 11, 20)]
)
@pytest.mark.parametrize("delta", [0.0, 0.05])
def test_the_credible_mass_is_that_of_the_posterior(counts, delta):
    # 200,000 draws: each share has a deviation below 0.0007
    fn, p, fp, n = counts
    rng = np.random.default_rng(2)
    x = rng.beta(0.5 + fn, 0.5 + p - fn, 200_000)
    y = rng.beta(0.5 + fp, 0.5 + n - fp, 200_000)
    least = [(1 - x - delta) / y, (1 - y - delta) / x]
    least += [(x - delta) / (1 - y), (y - delta) / (1 - x)]
    ends = bayesian.credible_interval(*counts, delta, 0.8)
    for end, mass in zip(ends, (0.1, 0.9), strict=True):
        share = (np.max(least, axis=0) <= math.exp(end)).mean()
        if end > 0:
            assert share == pytest.approx(mass, abs=0.003)
        else:
            assert share > mass - 0.003


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: rates.epsilon_lower_bound(3, 2, 0, 5, 0.0), "false_negatives"),
        (lambda: rates.epsilon_lower_bound(0, 2, 0, 0, 0.0), "false_positives"),
        (lambda: rates.epsilon_lower_bound(0, 2, 0, 5, 1.0), "delta"),
        (lambda: rates.mu_lower_bound(0, 2, 0, 5, 1.0), "confidence"),
        (lambda: rates.mu_lower_bound(0, 2, 0, 5, thresholds=0), "thresholds"),
        (lambda: ratios.katz_log(3, 2, 0, 5), "true_positives"),
        (lambda: ratios.bailey(1, 2, 6, 5), "false_positives"),
        (lambda: bayesian.credible_interval(3, 2, 0, 5, 0.0), "false_negatives"),
        (lambda: bayesian.credible_interval(0, 2, 0, 5, -0.1), "delta"),
    ],
)
def test_bad_input_is_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
