"""Privacy curves against closed forms, dp-accounting and duality."""

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting.pld import privacy_loss_distribution as distributions
from dp_accounting.rdp import compute_epsilon
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from some_curves import KINDS, RATES, laplace, sampled

from rpjax.errors import InputError
from rpjax.privacy import gdp, truncation
from rpjax.privacy.algebra import distribution, least_noise, repeated
from rpjax.privacy.couplings import Coupled, Worst
from rpjax.privacy.curves import Curve, Gaussian, Mixture, Numerical, Point, Renyi

# --------------------------------------------------------- what every curve promises


@pytest.mark.parametrize("kind", KINDS)
def test_the_epsilon_of_a_delta_proves_it_and_a_smaller_one_does_not(kind):
    curve = KINDS[kind]()
    for delta in (1e-9, 1e-5, 1e-3, 0.05, 0.3):
        epsilon = curve.epsilon(delta)
        if math.isinf(epsilon):
            assert curve.delta(1e6) > delta
            continue
        assert curve.delta(epsilon) <= delta
        if epsilon > 1e-6:
            assert curve.delta(epsilon * (1 - 1e-9)) > delta


@pytest.mark.parametrize("kind", KINDS)
def test_delta_falls_as_epsilon_grows_and_starts_at_the_advantage(kind):
    curve = KINDS[kind]()
    deltas = np.array([curve.delta(e) for e in np.linspace(0, 20, 101)])
    assert (np.diff(deltas) <= 1e-15).all()
    assert deltas[0] == curve.advantage
    assert deltas[0] > deltas[20] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_tpr_is_concave_between_fpr_and_one_and_under_every_line_of_the_curve(kind):
    curve = KINDS[kind]()
    rates = np.linspace(0, 1, 101)
    tpr = curve.tpr(rates)
    assert (np.diff(tpr, 2) <= 1e-9).all()
    assert ((rates <= tpr) & (tpr <= 1)).all()
    for epsilon in (0.0, 0.4, 1.7, 4.0):
        delta = curve.delta(epsilon)
        assert (tpr <= math.exp(epsilon) * rates + delta + 1e-9).all()
        assert (1 - tpr >= math.exp(-epsilon) * (1 - delta - rates) - 1e-9).all()
    # and touches the one at slope 1, where deltas at larger epsilons do not lower it
    fine = np.linspace(0, 1, 2001)
    gap = (curve.tpr(fine) - fine).max()
    assert gap <= curve.advantage + 1e-9
    assert gap > curve.advantage - 1e-3 or kind == "Renyi"
    np.testing.assert_allclose(curve.trade_off(rates), 1 - tpr)
    assert float(curve.tpr(0.5)) == tpr[50]


class SearchedGaussian(Gaussian):
    """By delta alone: what the base class makes of it."""

    epsilon, tpr = Curve.epsilon, Curve.tpr


class SearchedPoint(Point):
    epsilon, tpr = Curve.epsilon, Curve.tpr


@pytest.mark.parametrize("mu", [0.0, 0.01, 0.5, 1.0, 5.0, 40.0])
def test_the_search_finds_the_tpr_and_the_epsilon_of_a_gaussian(mu):
    found = SearchedGaussian(mu)
    np.testing.assert_allclose(found.tpr(RATES), gdp.tpr(RATES, mu), rtol=1e-10)
    for delta in (1e-30, 1e-5, 0.2):
        assert found.epsilon(delta) == pytest.approx(gdp.epsilon(delta, mu), rel=1e-12)


@pytest.mark.parametrize(
    "pair", [(0.0, 0.0), (1.0, 0.0), (1.0, 1e-6), (8.0, 0.1), (800.0, 0.0), (0.0, 1.0)]
)
def test_the_search_finds_the_tpr_and_the_epsilon_of_a_point(pair):
    searched, closed = SearchedPoint(*pair), Point(*pair)
    np.testing.assert_allclose(
        searched.tpr(RATES), closed.tpr(RATES), rtol=1e-9, atol=2e-15
    )
    for delta in (1e-9, 1e-6, 1e-3, 0.2):
        assert searched.epsilon(delta) == pytest.approx(
            closed.epsilon(delta), rel=1e-9, abs=1e-9
        )


# -------------------------------------------------------------------- kind by kind


@given(st.floats(0, 20), st.floats(0, 1), st.floats(0, 25))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_point_is_its_hardest_mechanism(epsilon, delta, at):
    # shown as it is with probability delta, binary randomised response otherwise
    keep, lie = scipy.special.expit([epsilon, -epsilon])
    p = np.array([delta, 0.0, (1 - delta) * keep, (1 - delta) * lie])
    q = np.array([0.0, delta, (1 - delta) * lie, (1 - delta) * keep])
    expected = np.maximum(0.0, p - math.exp(at) * q).sum()
    assert Point(epsilon, delta).delta(at) == pytest.approx(expected, abs=1e-12)


def test_a_point_says_nothing_below_its_delta_and_itself_at_it():
    point = Point(2.0, 1e-4)
    assert point.epsilon(1e-4) == 2.0
    assert point.epsilon(0.99e-4) == point.epsilon(0.0) == math.inf
    assert Point(2.0).epsilon(0.0) == 2.0
    assert Gaussian(1.0).epsilon(0.0) == math.inf
    assert Gaussian(0.0).epsilon(0.0) == 0.0
    assert Mixture((0.5, 0.5), (Point(1.0), Point(3.0))).epsilon(0.0) == 3.0


@pytest.mark.parametrize("fpr", [1e-8, 1e-4, 0.01, 0.2, 0.7])
def test_the_tpr_of_a_mixture_is_the_best_split_of_false_positives(fpr):
    weights, mus = (0.35, 0.65), (0.8, 2.5)
    mixture = Mixture(weights, tuple(map(Gaussian, mus)))

    low = max(0.0, (fpr - weights[1]) / weights[0])
    high = min(1.0, fpr / weights[0])

    def missed(log_odds):
        first = low + (high - low) * scipy.special.expit(log_odds)
        rest = min(1.0, max(0.0, (fpr - weights[0] * first) / weights[1]))
        return -weights[0] * gdp.tpr(first, mus[0]) - weights[1] * gdp.tpr(rest, mus[1])

    best = minimize_scalar(
        missed, bounds=(-40, 40), method="bounded", options={"xatol": 1e-10}
    )
    assert float(mixture.tpr(fpr)) == pytest.approx(-best.fun, rel=1e-7)
    # more than what the mean over the parts at the same rate gives
    assert mixture.tpr(fpr) > sum(
        w * gdp.tpr(fpr, mu) for w, mu in zip(weights, mus, strict=True)
    )


def test_the_delta_of_a_mixture_is_the_mean_over_parts_of_any_kind():
    parts = (Gaussian(0.7), Point(1.0, 1e-3), laplace(), Gaussian(2.0))
    mixture = Mixture((0.1, 0.2, 0.3, 0.4), parts)
    for at in (0.0, 0.5, 3.0):
        expected = sum(
            w * part.delta(at) for w, part in zip(mixture.weights, parts, strict=True)
        )
        assert mixture.delta(at) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.01])
def test_renyi_divergences_are_converted_as_by_dp_accounting(delta):
    curve = KINDS["Renyi"]()
    direct = compute_epsilon(curve.orders, curve.divergences, delta)[0]
    assert curve.epsilon(delta) == pytest.approx(direct, rel=1e-12)
    orders, divergences = np.array(curve.orders), np.array(curve.divergences)
    by_hand = (
        divergences + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    )
    assert direct == pytest.approx(by_hand.min(), rel=1e-12)
    # of a Gaussian of mu^2 / 2 = 0.4, above its exact epsilon and not by much
    exact = gdp.epsilon(delta, math.sqrt(0.8))
    assert exact < direct < 1.25 * exact


@pytest.mark.parametrize("make", [laplace, sampled])
def test_a_loss_distribution_is_asked_as_dp_accounting_does(make):
    curve = make()
    for epsilon in (0.0, 0.3, 1.0, 1.4, 5.0):
        expected = curve.pld.get_delta_for_epsilon(epsilon)
        assert curve.delta(epsilon) == pytest.approx(expected, abs=1e-14)
    for delta in (1e-5, 0.1):
        expected = curve.pld.get_epsilon_for_delta(delta)
        assert curve.epsilon(delta) == pytest.approx(expected, rel=1e-8)
    # far out in the tail epsilon hangs on the last bits of delta
    expected = curve.pld.get_epsilon_for_delta(1e-9)
    assert curve.epsilon(1e-9 + 1e-15) <= expected <= curve.epsilon(1e-9 - 1e-15)


def test_of_two_directions_the_worse_one_counts():
    curve = sampled()
    remove, add = (half(np.float64(1.0)) for half in curve.directions)
    assert remove > 2 * add
    assert curve.delta(1.0) == remove
    swapped = Numerical(
        distributions.PrivacyLossDistribution(curve.pld._pmf_add, curve.pld._pmf_remove)
    )
    assert swapped.delta(1.0) == remove
    assert swapped.tpr(0.01) == curve.tpr(0.01)
    assert laplace().epsilon(0.0) == pytest.approx(1 / 0.7, abs=1e-4)
    assert curve.epsilon(0.0) == math.inf


def test_the_worst_of_several_is_the_larger_delta_everywhere():
    first, second = Gaussian(0.9), Point(2.0)
    worst = Worst((first, second))
    for at in (0.0, 1.0, 1.9, 3.0):
        assert worst.delta(at) == max(first.delta(at), second.delta(at))


@pytest.mark.parametrize("delta", [1e-6, 1e-4])
def test_a_coupling_pays_as_the_folded_truncation_does(delta):
    coupled = Coupled(Gaussian(1.0), 1e-9)
    expected = truncation.folded(lambda d: gdp.epsilon(d, 1.0), delta, 1e-9)
    # that search stops up to 1e-5 above
    assert expected - 2e-5 <= coupled.epsilon(delta) <= expected
    at = 2.0
    assert coupled.delta(at) == pytest.approx(
        gdp.delta(at, 1.0) + (1 + math.exp(at)) * 1e-9, rel=1e-12
    )
    # beyond its best epsilon the sum would rise again, and the guarantee does not
    assert coupled.delta(10.0) == coupled.delta(30.0) < 1e-6
    assert Coupled(Gaussian(1.0), 0.0).delta(10.0) == gdp.delta(10.0, 1.0)


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: Gaussian(-1.0), "mu"),
        (lambda: Gaussian(1.0).delta(-1.0), "epsilon"),
        (lambda: Gaussian(1.0).epsilon(1.0), "delta"),
        (lambda: Gaussian(1.0).tpr(1.1), "fpr"),
        (lambda: laplace().tpr([0.1, -0.1]), "fpr"),
        (lambda: Point(math.inf), "epsilon"),
        (lambda: Point(1.0, 1.5), "delta"),
        (lambda: Mixture((0.5, 0.4), (Gaussian(1.0), Gaussian(2.0))), "weights"),
        (lambda: Mixture((1.0,), ()), "weights"),
        (lambda: Mixture((1.5, -0.5), (Gaussian(1.0), Gaussian(2.0))), "weights"),
        (lambda: Renyi((1.0,), (0.1,)), "orders"),
        (lambda: Renyi((2.0,), (-0.1,)), "divergences"),
        (lambda: Renyi((2.0, 3.0), (0.1,)), "divergences"),
        (lambda: Worst(()), "curves"),
        (lambda: Coupled(Gaussian(1.0), 1.0), "distance"),
        (lambda: repeated(Gaussian(1.0), 0), "times"),
        (lambda: distribution(Point(5.0), 1e-9), "interval"),
        (lambda: distribution(Gaussian(5.0), 1e-9), "interval"),
        (lambda: least_noise(lambda noise: Point(9.0), 1.0, 1e-5), "epsilon = 1: no"),
        (lambda: least_noise(lambda noise: Point(0.5), 1.0, 1e-5), "epsilon = 1: rea"),
        (
            lambda: Numerical(
                distributions.from_laplace_mechanism(1.0, pessimistic_estimate=False)
            ),
            "pld",
        ),
    ],
)
def test_what_is_no_guarantee_is_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()


@pytest.mark.parametrize("kind", KINDS)
def test_a_curve_says_what_it_is(kind):
    assert 0 < len(str(KINDS[kind]())) < 80
