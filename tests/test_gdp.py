"""Gaussian differential privacy against published tables and a second derivation."""

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting import dp_event, pld
from scipy.integrate import quad

from rpjax.errors import InputError
from rpjax.privacy import gdp

# mu, epsilon at delta 1e-5, epsilon at delta 1e-6
EPSILONS = [
    (0.1, 0.340669, 0.396857),
    (0.25, 0.926342, 1.060702),
    (0.5, 1.993091, 2.254085),
    (1.0, 4.377178, 4.886554),
    (2.0, 9.997256, 10.997151),
    (3.0, 16.675494, 18.163446),
    (4.0, 24.381611, 26.356964),
    (5.0, 33.103732, 35.566344),
]

# mu, AUC, advantage, TPR at FPR 1e-1, 1e-2, 1e-3, 1e-4
POWERS = [
    (0.25, 0.570158, 0.099476, 0.151141, 0.018931, 0.002254, 0.000261),
    (0.5, 0.638163, 0.197413, 0.217239, 0.033899, 0.004796, 0.000643),
    (1.0, 0.760250, 0.382925, 0.389144, 0.092362, 0.018298, 0.003274),
    (2.0, 0.921350, 0.682689, 0.763760, 0.372081, 0.137805, 0.042806),
    (3.0, 0.983053, 0.866386, 0.957143, 0.749734, 0.464051, 0.236065),
    (4.0, 0.997661, 0.954500, 0.996721, 0.952901, 0.818527, 0.610638),
    (5.0, 0.999797, 0.987581, 0.999900, 0.996248, 0.971918, 0.899900),
]


@pytest.mark.parametrize(("mu", "at_5", "at_6"), EPSILONS)
def test_epsilon_of_mu_matches_the_table(mu, at_5, at_6):
    assert gdp.epsilon(1e-5, mu) == pytest.approx(at_5, abs=1e-6)
    assert gdp.epsilon(1e-6, mu) == pytest.approx(at_6, abs=1e-6)


@pytest.mark.parametrize(
    ("epsilon", "mu"),
    [(1, 0.268051), (2, 0.501552), (4, 0.924931), (8, 1.666031), (10, 2.000446)],
)
def test_mu_of_epsilon_matches_the_table(epsilon, mu):
    assert gdp.mu_from(epsilon, 1e-5) == pytest.approx(mu, abs=1e-6)


@pytest.mark.parametrize("row", POWERS)
def test_attack_ceilings_match_the_gaussian_closed_forms(row):
    mu, area, advantage, *rates = row
    assert gdp.auc(mu) == pytest.approx(area, abs=1e-6)
    assert gdp.advantage(mu) == pytest.approx(advantage, abs=1e-6)
    found = gdp.tpr([1e-1, 1e-2, 1e-3, 1e-4], mu)
    np.testing.assert_allclose(found, rates, atol=1e-6)


def test_the_area_under_tpr_is_the_auc_and_its_best_gap_the_advantage():
    area, _ = quad(lambda f: float(gdp.tpr(f, 1.3)), 0, 1)
    assert area == pytest.approx(gdp.auc(1.3), abs=1e-7)
    rates = np.linspace(0, 1, 20_001)
    assert (gdp.tpr(rates, 1.3) - rates).max() == pytest.approx(
        gdp.advantage(1.3), abs=1e-7
    )


@pytest.mark.parametrize("mu", [0.05, 0.7, 3.0, 20.0])
@pytest.mark.parametrize("at", [0.0, 0.3, 2.0, 30.0])
def test_delta_is_the_mass_that_exceeds_e_to_epsilon(mu, at):
    # delta = E_{x ~ N(mu, 1)} max(0, 1 - exp(epsilon - loss)), loss = mu x - mu^2 / 2
    def integrand(x):
        loss = mu * x - mu * mu / 2
        return scipy.stats.norm.pdf(x, mu) * -math.expm1(min(0.0, at - loss))

    edge = at / mu + mu / 2
    expected, _ = quad(integrand, edge, max(edge, mu) + 12, epsabs=0, limit=200)
    if expected > 1e-200:
        assert gdp.delta(at, mu) == pytest.approx(expected, rel=1e-6)


def test_delta_is_known_where_epsilon_is_half_mu_squared():
    # Phi(0) - e^(mu^2/2) Phi(-mu), with Phi(-mu) = phi(mu) / mu for a large mu
    found = gdp.delta(5e5, 1000.0)
    expected = 0.5 - (1 - 1e-6) / (1000 * math.sqrt(2 * math.pi))
    assert found == pytest.approx(expected, rel=1e-12)
    found = gdp.delta(0.5e-8, 1e-4)
    assert found == pytest.approx(1e-4 / math.sqrt(2 * math.pi), rel=1e-4)


@pytest.mark.parametrize("mu", [1e-4, 0.01, 1.0, 10.0, 565.7, 1e4, 1e7])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1])
def test_epsilon_delta_and_mu_are_inverse_to_each_other(mu, delta):
    epsilon = gdp.epsilon(delta, mu)
    if epsilon == 0:
        assert gdp.delta(0.0, mu) <= delta
        return
    assert gdp.delta(epsilon, mu) == pytest.approx(
        delta, rel=1e-4 if mu > 1e6 else 1e-7
    )
    assert gdp.mu_from(epsilon, delta) == pytest.approx(mu, rel=1e-9)


@pytest.mark.parametrize(("sigma", "delta"), [(0.7, 1e-5), (2.0, 1e-6), (5.0, 1e-8)])
def test_epsilon_agrees_with_the_accountant_of_the_gaussian_mechanism(sigma, delta):
    accountant = pld.PLDAccountant().compose(dp_event.GaussianDpEvent(sigma))
    assert gdp.epsilon(delta, 1 / sigma) == pytest.approx(
        accountant.get_epsilon(delta), abs=1e-3
    )


def test_delta_falls_with_epsilon_and_rises_with_mu():
    deltas = [float(gdp.delta(e, 1.0)) for e in np.linspace(0, 30, 200)]
    assert all(np.diff(deltas) < 0)
    assert (np.diff(np.asarray(gdp.delta(3.0, np.linspace(0, 10, 200)))) > 0)[5:].all()
    assert gdp.delta(0.0, 1.7) == pytest.approx(gdp.advantage(1.7))


def test_no_shift_is_perfect_privacy():
    assert gdp.delta(0.0, 0.0) == 0.0
    assert gdp.epsilon(1e-5, 0.0) == 0.0
    assert gdp.auc(0.0) == 0.5
    assert gdp.tpr(0.3, 0.0) == pytest.approx(0.3)


def test_fifty_releases_compose_like_one_with_root_fifty_times_the_shift():
    assert gdp.compose([0.3] * 50) == pytest.approx(0.3 * math.sqrt(50))
    assert gdp.compose([]) == 0.0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: gdp.epsilon(0.0, 1.0), "delta"),
        (lambda: gdp.epsilon(1.0, 1.0), "delta"),
        (lambda: gdp.epsilon(1e-5, -1.0), "mu"),
        (lambda: gdp.delta(-1.0, 1.0), "epsilon"),
        (lambda: gdp.delta(1.0, [1.0, math.nan]), "mu"),
        (lambda: gdp.mu_from(math.inf, 1e-5), "epsilon"),
        (lambda: gdp.compose([1.0, -1.0]), "mu"),
        (lambda: gdp.tpr(1.5, 1.0), "fpr"),
    ],
)
def test_values_outside_their_range_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
