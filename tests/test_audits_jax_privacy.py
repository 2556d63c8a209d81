"""Against the audits of jax-privacy 2.0, an independent implementation.

Its `epsilon_from_gdp` is wrong in this version; the last test shows how.
"""

import functools

import numpy as np
import pytest
import scipy.special

from rpjax.audits import f_dp, one_run, rates
from rpjax.privacy import gdp

# ------------------------------------- its test values, computed without its code


@functools.cache
def hull_counts(shift, n=10_000):
    """Counts at the corners of the ROC's convex hull, for scores at normal quantiles.

    Their number is the correction that jax-privacy makes. Returns true positives and
    false positives, from the highest threshold down.
    """
    outside = scipy.special.ndtri((np.arange(n) + 0.5) / n)
    inside = outside + shift
    levels = np.append(np.union1d(inside, outside), np.inf)
    fn, tn = np.searchsorted(inside, levels), np.searchsorted(outside, levels)
    corners = []
    for point in zip(fn.tolist(), tn.tolist(), strict=True):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (y1 - y0) * (point[0] - x1) > (point[1] - y1) * (x1 - x0):
                break
            corners.pop()
        corners.append(point)
    misses, kept = np.array(corners).T
    return n - misses, n - kept


def best(bound, found, wrong, promising):
    """The largest bound over thresholds, trying only those that may beat the best."""
    top = 0.0
    for at in np.argsort(-promising):
        if promising[at] <= top:
            break
        top = max(top, bound(int(found[at]), int(wrong[at])))
    return top


@pytest.mark.parametrize(
    ("shift", "expected"), [(0, 0), (1, 1.13346), (2, 2.311945), (4, 4.395568)]
)
def test_its_one_run_values_are_reproduced(shift, expected):
    found, wrong = hull_counts(shift)
    sure = 1 - 0.05 / len(found)
    bound = lambda tp, fp: one_run.epsilon_lower_bound(20_000, tp + fp, tp, 1e-6, sure)
    ceilings = [
        one_run.without_delta(int(tp + fp), int(tp), 1 - sure)
        for tp, fp in zip(found, wrong, strict=True)
    ]
    assert best(bound, found, wrong, np.array(ceilings)) == pytest.approx(
        expected, abs=2e-6
    )


@pytest.mark.parametrize(
    ("shift", "expected"), [(1, 2.164749), (2, 4.7218075), (4, 9.133752)]
)
def test_its_f_dp_values_are_reproduced(shift, expected):
    found, wrong = hull_counts(shift)
    error = 0.05 / len(found)
    mu = 0.0
    precision = scipy.special.betaincinv(np.maximum(found, 1), wrong + 1, error)
    for at in np.argsort(-precision)[:60]:
        tp, g = int(found[at]), int(found[at] + wrong[at])
        if f_dp._excess(20_000, g, tp, error, mu) > 0:
            mu = f_dp.mu_lower_bound(20_000, g, tp, 1 - error)
    assert gdp.epsilon(1e-6, mu) == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize(
    ("shift", "epsilon", "from_mu"),
    [
        (1, 1.787170, 4.334712),
        (2, 3.827951, 10.240683),
        (4, 6.412509, 24.690521),
    ],
)
def test_its_values_from_rates_are_reproduced(shift, epsilon, from_mu):
    found, wrong = hull_counts(shift)
    counts = [
        (10_000 - int(tp), 10_000, int(fp), 10_000)
        for tp, fp in zip(found, wrong, strict=True)
    ]
    t = len(counts)
    highest = max(rates.epsilon_lower_bound(*c, 1e-6, thresholds=t) for c in counts)
    assert highest == pytest.approx(epsilon, abs=2e-6)
    mu = max(rates.mu_lower_bound(*c, thresholds=t) for c in counts)
    assert gdp.epsilon(1e-6, mu) == pytest.approx(from_mu, abs=2e-6)
    # for a Gaussian mechanism the estimate is a bound
    assert mu < shift


# --------------------------------------------------------------- against its code


@pytest.fixture
def auditing():
    reason = "jax-privacy is the oracle; pip install rpjax[dev]"
    pytest.importorskip("jax_privacy", reason=reason)
    from jax_privacy import auditing

    return auditing


def auditor(auditing, found, missed, wrong, kept):
    """Its auditor, for scores with these counts at a threshold of 0.5."""
    inside = np.repeat([1.0, 0.0], [found, missed])
    return auditing.CanaryScoreAuditor(inside, np.repeat([1.0, 0.0], [wrong, kept]))


CASES = [(95, 405, 5, 495), (300, 200, 250, 250), (40, 60, 0, 110), (5, 0, 4, 1)]


@pytest.mark.parametrize("counts", CASES)
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
@pytest.mark.parametrize("error", [0.05, 0.01])
def test_at_one_threshold_the_bounds_are_its_bounds(auditing, counts, delta, error):
    found, missed, wrong, kept = counts
    theirs = auditor(auditing, *counts)
    at = {"threshold_strategy": auditing.Explicit(0.5)}
    guesses = (sum(counts), found + wrong, found)
    sure = 1 - error
    assert one_run.epsilon_lower_bound(*guesses, delta, sure) == pytest.approx(
        theirs.epsilon_one_run(error, delta, **at), abs=2e-6
    )
    assert f_dp.epsilon_estimate(*guesses, delta, sure) == pytest.approx(
        theirs.epsilon_one_run_fdp(error, delta, **at), abs=3e-6
    )
    ours = rates.epsilon_lower_bound(
        missed, found + missed, wrong, wrong + kept, delta, sure
    )
    assert ours == pytest.approx(
        theirs.epsilon_clopper_pearson(error, delta, one_sided=False, **at)
    )


def test_pure_noise_is_no_leak_though_its_gdp_audit_says_so(auditing):
    outside, inside = np.random.default_rng(0).standard_exponential((2, 1000))
    theirs = auditing.CanaryScoreAuditor(inside, outside)
    assert theirs.epsilon_from_gdp(0.05, 1e-5) > 3
    levels = np.union1d(inside, outside)
    ours = max(
        rates.mu_lower_bound(
            int((inside < t).sum()), 1000, int((outside >= t).sum()), 1000, 0.95, 2001
        )
        for t in levels
    )
    assert ours == 0
