"""The one-run test of a trade-off curve: known values, laws, and what it refutes."""

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.audits import f_dp, one_run
from rpjax.errors import InputError
from rpjax.privacy import gdp

# (canaries, guesses, correct): epsilon at delta = 1e-5 for an error of .05 and of .01;
# the last digit of three values in circulation is one higher, from a root-finder that
# stops at 1e-6
ESTIMATES = {
    (1000, 1000, 1000): (12.334569, 9.754416),
    (1000, 100, 100): (5.549028, 4.463940),
    (1000, 50, 50): (4.061915, 3.167740),
    (1000, 100, 95): (3.323300, 2.709681),
    (1000, 200, 150): (1.296916, 1.015612),
    (1000, 1000, 600): (0.583540, 0.424816),
    (1000, 1000, 500): (0, 0),
    (5000, 500, 450): (2.776066, 2.376818),
    (5000, 1000, 700): (1.076077, 0.895123),
    (100_000, 1500, 1429): (3.299235, 2.950063),
}


@pytest.mark.parametrize("counts", ESTIMATES)
def test_the_estimate_has_its_known_values(counts):
    found = [f_dp.epsilon_estimate(*counts, 1e-5, sure) for sure in (0.95, 0.99)]
    assert found == pytest.approx(ESTIMATES[counts], abs=1e-6)


def by_definition(m, g, c, p, mu):
    """Whether mu is refuted: the recursion without stopping, in scipy's words."""
    norm = scipy.stats.norm
    r, h = p * c / m, p * (g - c) / m
    for i in range(c - 1, -1, -1):
        after = max(h, norm.cdf(norm.ppf(r) - mu))
        r = min(r + i / (g - i) * (after - h), 1.0)
        h = after
    return r + h > g / m


@pytest.mark.parametrize("counts", [(100, 30, 28), (100, 100, 70), (20, 20, 20)])
def test_mu_and_the_p_value_are_where_the_recursion_turns(counts):
    mu = f_dp.mu_lower_bound(*counts, 0.9)
    assert by_definition(*counts, 0.1, 0.999 * mu)
    assert not by_definition(*counts, 0.1, 1.001 * mu)
    assert f_dp.p_value(*counts, mu) == pytest.approx(0.1)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 150), st.floats(0, 1), st.floats(0, 2), st.floats(1e-3, 0.4))
def test_mu_grows_with_right_guesses_and_falls_with_confidence(r, share, mu, error):
    v = round(share * r)
    bound = f_dp.mu_lower_bound(200, r, v, 1 - error)
    assert f_dp.mu_lower_bound(200, r, min(v + 1, r), 1 - error) >= bound - 1e-9
    assert f_dp.mu_lower_bound(200, r, v, 1 - error / 2) <= bound + 1e-9
    p = f_dp.p_value(200, r, v, mu)
    assert 0 < p <= 1
    assert f_dp.p_value(200, r, v, mu + 0.1) >= p * (1 - 1e-6)
    # the two agree on what is refuted, away from where they turn
    if abs(p - error) > 1e-6:
        assert (p < error) == (mu < bound)


def test_where_the_curve_is_not_gaussian_the_estimate_is_no_bound():
    # randomised response at epsilon 1 has 731 of 1,000 right on average
    assert one_run.epsilon_lower_bound(1000, 1000, 731, 1e-5) < 1
    assert f_dp.epsilon_estimate(1000, 1000, 731, 1e-5) > 1.5
    mu = f_dp.mu_lower_bound(1000, 1000, 731)
    assert gdp.delta(1.0, mu) > 1e-3


def test_extreme_counts_have_a_p_value():
    assert f_dp.p_value(20_000, 20_000, 20_000, 0.01) < 1e-250
    assert f_dp.p_value(100, 50, 20, 0.0) == 1
    assert f_dp.mu_lower_bound(10, 0, 0) == 0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: f_dp.p_value(5, 6, 3, 1.0), "guesses"),
        (lambda: f_dp.p_value(5, 4, 3, -1.0), "mu"),
        (lambda: f_dp.mu_lower_bound(5, 4, 3, 0.0), "confidence"),
        (lambda: f_dp.epsilon_estimate(5, 4, 3, 0.0), "delta"),
    ],
)
def test_bad_input_is_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
