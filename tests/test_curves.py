"""Privacy curves and their algebra against closed forms, dp-accounting and duality."""

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as distributions
from dp_accounting.rdp import compute_epsilon
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from rpjax.errors import InputError
from rpjax.privacy import algebra, gdp, truncation
from rpjax.privacy.algebra import compose, distribution, least_noise, repeated
from rpjax.privacy.couplings import Coupled, Worst
from rpjax.privacy.curves import Curve, Gaussian, Mixture, Numerical, Point, Renyi
from rpjax.privacy.labels import RandomisedResponse

RATES = np.array([0.0, 1e-12, 1e-5, 1e-3, 0.1, 0.5, 0.9, 1.0])
ORDERS = tuple(1 + np.geomspace(1e-2, 200, 80))

few = settings(max_examples=10, deadline=None, derandomize=True)


def laplace():
    return Numerical(distributions.from_laplace_mechanism(0.7))


def sampled():
    """Two directions that differ."""
    one = distributions.from_gaussian_mechanism(
        0.8, sampling_prob=0.1, value_discretization_interval=1e-3
    )
    return Numerical(one.self_compose(20))


def two(weight, first, second):
    return Mixture((weight, 1 - weight), (Gaussian(first), Gaussian(second)))


KINDS = {
    "Gaussian": lambda: Gaussian(1.3),
    "Point": lambda: Point(2.0, 1e-6),
    "pure": lambda: Point(1.5),
    "Mixture": lambda: Mixture(
        (0.2, 0.5, 0.3), (Gaussian(0.0), Gaussian(2.0), Point(1.0, 0.01))
    ),
    "Renyi": lambda: Renyi(ORDERS, tuple(a * 0.4 for a in ORDERS)),
    "labels": lambda: RandomisedResponse(2.0, 10),
    "Laplace": laplace,
    "sampled": sampled,
    "Worst": lambda: Worst((Gaussian(0.9), Point(2.0))),
    "Coupled": lambda: Coupled(Gaussian(1.0), 1e-7),
}

# built in the tests: hypothesis minds that checking types draws numbers
recipes = st.one_of(
    st.tuples(st.just(Gaussian), st.floats(0.01, 5)),
    st.tuples(st.just(Point), st.floats(0.01, 5), st.sampled_from([0.0, 1e-7, 1e-3])),
    st.tuples(st.just(RandomisedResponse), st.floats(0.1, 4), st.integers(2, 20)),
    st.tuples(st.just(two), st.floats(0, 1), st.floats(0, 3), st.floats(0.01, 3)),
)


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
    for delta in (1e-9, 1e-5, 0.1):
        expected = curve.pld.get_epsilon_for_delta(delta)
        assert curve.epsilon(delta) == pytest.approx(expected, rel=1e-8)


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
