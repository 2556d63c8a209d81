"""The algebra of privacy curves: composition, distributions, calibration."""

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as distributions
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from some_curves import KINDS, RATES, few, recipes, sampled

from rpjax.privacy import algebra, gdp
from rpjax.privacy.algebra import compose, distribution, least_noise, repeated
from rpjax.privacy.curves import Gaussian, Mixture, Numerical, Point, Renyi
from rpjax.privacy.labels import RandomisedResponse

# ------------------------------------------------------------------------ composition


def epsilon_of(delta_at, delta, high):
    """Where a falling function meets delta."""
    return brentq(lambda e: math.log(max(delta_at(e), 1e-300) / delta), 0.0, high)


@pytest.mark.parametrize(
    ("mu", "epsilon"), [(1.0, 1.0), (0.01, 0.01), (5.0, 8.0), (0.3, 20.0), (40.0, 3.0)]
)
def test_a_gaussian_with_a_pure_guarantee_is_a_mean_of_shifted_gaussians(mu, epsilon):
    keep = 1 / (1 + math.exp(-epsilon))

    def exact(at):
        up, down = Gaussian(mu).profile([at - epsilon, at + epsilon])
        return keep * up + (1 - keep) * down

    found = compose(Gaussian(mu), Point(epsilon)).epsilon(1e-5)
    expected = epsilon_of(exact, 1e-5, 1e4)
    assert expected * (1 - 1e-10) <= found <= expected * 1.0005


@pytest.mark.parametrize(
    ("epsilon", "times"), [(0.01, 3000), (0.1, 100), (1.0, 10), (3.0, 4)]
)
def test_pure_guarantees_compose_binomially(epsilon, times):
    losses = (2 * np.arange(times + 1) - times) * epsilon
    chance = scipy.stats.binom.pmf(
        np.arange(times + 1), times, 1 / (1 + math.exp(-epsilon))
    )

    def exact(at):
        return chance @ -np.expm1(np.minimum(0.0, at - losses))

    expected = epsilon_of(exact, 1e-5, times * epsilon)
    found = repeated(Point(epsilon), times).epsilon(1e-5)
    # convolution leaves about 1e-15 for a delta that is known to be 1e-5
    assert expected * (1 - 1e-9) <= found <= expected * 1.0005


def test_a_composition_of_a_mixture_is_the_mixture_of_compositions():
    mixture = Mixture((0.5, 0.5), (Gaussian(1.0), Gaussian(2.0)))
    found = compose(mixture, Gaussian(1.0))
    exact = Mixture((0.5, 0.5), (Gaussian(math.sqrt(2)), Gaussian(math.sqrt(5))))
    for delta in (1e-8, 1e-5, 0.01):
        assert 0 <= found.epsilon(delta) / exact.epsilon(delta) - 1 < 1e-5
    np.testing.assert_allclose(found.tpr(RATES[1:]), exact.tpr(RATES[1:]), rtol=1e-4)


def test_gaussians_and_renyi_divergences_stay_what_they_are():
    assert compose(Gaussian(3.0), Gaussian(4.0)) == Gaussian(5.0)
    assert repeated(Gaussian(0.3), 50).mu == pytest.approx(gdp.compose([0.3] * 50))
    renyi = Renyi((2.0, 4.0), (0.5, 1.5))
    assert compose(renyi, Renyi((4.0, 8.0), (1.0, 9.0))) == Renyi((4.0,), (2.5,))
    # 0.5 + 2 * 4 / 2 and 1.5 + 4 * 4 / 2
    assert compose(Gaussian(2.0), renyi) == Renyi((2.0, 4.0), (4.5, 9.5))
    assert repeated(renyi, 3) == Renyi((2.0, 4.0), (1.5, 4.5))


def test_what_changes_nothing_and_what_leaves_nothing():
    assert compose() == compose(Point(0.0)) == compose(Gaussian(0.0)) == Point(0.0)
    curve = KINDS["Mixture"]()
    assert compose(Point(0.0), curve) is curve
    assert repeated(curve, 1) is curve
    nothing = Point(0.0, 1.0)
    assert compose(nothing, curve, Gaussian(1.0)) == nothing
    assert repeated(nothing, 7) == nothing
    assert repeated(Point(0.0), 7) == Point(0.0)
    # a gamble adds up: 1 - (1 - delta)^2
    twice = compose(Point(1.0, 1e-3), Point(1.0, 1e-3))
    assert twice.delta(10.0) == pytest.approx(1 - 0.999**2, rel=1e-9)


@given(recipes, recipes)
@few
def test_composition_is_commutative_and_no_better_than_either(one, other):
    first, second = (kind(*settings) for kind, *settings in (one, other))
    one, other = compose(first, second), compose(second, first)
    for at in (0.0, 0.5, 2.0):
        delta = one.delta(at)
        assert other.delta(at) == pytest.approx(delta, rel=1e-9, abs=1e-12)
        assert delta >= max(first.delta(at), second.delta(at)) - 1e-12
        # nor worse than the sum of points of the two curves
        assert delta <= first.delta(at / 2) + second.delta(at / 2) + 1e-5


@given(st.tuples(recipes, recipes, recipes))
@few
def test_composition_is_associative_to_its_rounding(three):
    a, b, c = (kind(*settings) for kind, *settings in three)
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    for delta in (1e-4, 0.03):
        expected = compose(a, b, c).epsilon(delta)
        for found in (left, right):
            assert found.epsilon(delta) == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("times", [2, 5, 16])
@pytest.mark.parametrize("kind", ["Gaussian", "Mixture", "Laplace", "sampled"])
def test_repetition_is_composition_with_itself(kind, times):
    curve = KINDS[kind]()
    found, expected = repeated(curve, times), compose(*[curve] * times)
    for delta in (1e-5, 0.01):
        # the mixture holds 0.3 Points of delta 0.01
        if kind == "Mixture" and math.isinf(expected.epsilon(delta)):
            assert math.isinf(found.epsilon(delta))
            continue
        assert found.epsilon(delta) == pytest.approx(expected.epsilon(delta), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_is_never_better_than_its_curve_and_hardly_worse(kind):
    curve = KINDS[kind]()
    made = Numerical(distribution(curve, 0.01))
    grid = np.linspace(0, 3, 77)
    exact = np.array([curve.delta(e) for e in grid])
    found = np.array([made.delta(e) for e in grid])
    # divergences give deltas that are not convex, and may be lowered to what is: not
    # below those of the Gaussian that has these divergences
    truth = Gaussian(math.sqrt(0.8)) if kind == "Renyi" else curve
    assert (found >= [truth.delta(e) - 1e-13 for e in grid]).all()
    assert (found <= exact + 2e-4 * exact[0]).all()
    assert made.pld._pmf_remove.to_dense_pmf()._probs.sum() <= 1 + 1e-9


@given(st.floats(0.05, 6), st.sampled_from([0.0, 1e-5, 0.02]))
@few
def test_a_point_becomes_no_worse_than_by_rounding_its_two_losses_up(epsilon, delta):
    ours = distribution(Point(epsilon, delta), 0.02)
    theirs = distributions.from_privacy_parameters(
        common.DifferentialPrivacyParameters(epsilon, delta),
        value_discretization_interval=0.02,
    )
    for at in (0.0, 0.3 * epsilon, 0.9 * epsilon, epsilon):
        found = ours.get_delta_for_epsilon(at)
        assert found <= theirs.get_delta_for_epsilon(at) + 1e-12
        assert found >= Point(epsilon, delta).delta(at) - 1e-12


def test_what_lies_above_a_convex_function_is_lowered_to_it():
    rng = np.random.default_rng(3)
    grid = 0.1 * np.arange(40)
    deltas = np.minimum.accumulate(np.exp(-grid) * rng.uniform(0.2, 1, 40))
    corners = algebra._hull(deltas, 0.1)
    s = np.exp(grid)
    # the largest convex function below some points is the supremum of lines below all
    slopes = np.array([[(deltas[j] - deltas[i]) / (s[j] - s[i]) for j in range(40)
                        if j != i] for i in range(40)]).ravel()  # fmt: skip
    lines = (deltas - slopes[:, None] * s).min(axis=1)
    expected = (slopes[:, None] * s + lines[:, None]).max(axis=0)
    found = np.interp(s, s[corners], deltas[corners])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_finer_distribution_moves_to_a_coarser_grid_and_only_upward():
    coarse = Numerical(distribution(Gaussian(1.0), 0.0625))
    both = compose(coarse, Numerical(distribution(Gaussian(1.0), 0.01)))
    assert both.interval == 0.0625
    exact = gdp.epsilon(1e-5, math.sqrt(2))
    assert exact <= both.epsilon(1e-5) <= exact * 1.001
    # each direction by itself
    halves = Numerical(distribution(sampled(), 0.05)).directions
    for half, expected in zip(halves, sampled().directions, strict=True):
        for at in (-1.0, 0.0, 0.7, 3.0):
            found = float(half(np.float64(at)))
            exact = float(expected(np.float64(at)))
            assert exact - 1e-12 <= found <= exact + 2e-4


# ------------------------------------------------------------------------ calibration


@given(st.floats(0.05, 200), st.floats(1e-12, 0.2), st.floats(0.001, 1000))
@few
def test_the_least_noise_of_gaussians_is_their_closed_form(epsilon, delta, diameter):
    found = least_noise(lambda noise: Gaussian(diameter / noise), epsilon, delta)
    exact = diameter / gdp.mu_from(epsilon, delta)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-9)
    assert Gaussian(diameter / found).delta(epsilon) <= delta


def test_the_least_noise_meets_its_target_where_the_family_is_numerical():
    def family(noise):
        return compose(Gaussian(2.0 / noise), RandomisedResponse(1.0, 10))

    noise = least_noise(family, 3.0, 1e-5)
    assert family(noise).epsilon(1e-5) <= 3.0 < family(0.999 * noise).epsilon(1e-5)
