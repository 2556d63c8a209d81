"""The input-noise theorem and its neighbours against the tables of their derivation."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from rpjax.errors import InputError
from rpjax.privacy import gdp, participation, residual, theorem

EPSILONS = (1, 2, 4, 8, 10)


# ----------------------------------------------------------------------- the theorem


def test_noise_kept_for_a_record_does_not_pay_for_its_participations():
    kept = residual.mu(3.0, bound=1.5, participations=400, draw="record")
    assert kept == pytest.approx(1.0)
    fresh = residual.mu(3.0, bound=1.5, participations=400, draw="step")
    assert fresh == pytest.approx(20.0)
    several = residual.mu(3.0, bound=1.5, participations=400, draw="record", members=4)
    assert several == pytest.approx(2.0)


def test_mu_is_the_worst_likelihood_ratio_between_the_noisy_copies():
    # The best test of two opposite inputs on the sphere, from E noisy copies each, is
    # their inner product with the difference. KS at 4,000 draws: a wrong mu by 10 %
    # is found, a right one is refused with probability 1e-3.
    rng = np.random.default_rng(0)
    d, uses, noise, bound = 12, 9, 2.5, 1.7
    x = rng.normal(size=d)
    x *= bound / np.linalg.norm(x)
    copies = x + noise * rng.normal(size=(4000, uses, d))
    scores = (copies @ (2 * x)).sum(axis=1) / (noise * 2 * bound * math.sqrt(uses))
    mu = residual.mu(noise, bound=bound, participations=uses)
    # between x and -x the standardised score moves from +mu/2 to -mu/2
    assert scipy.stats.kstest(scores, "norm", (mu / 2, 1)).pvalue > 1e-3
    assert scipy.stats.kstest(scores, "norm", (1.1 * mu / 2, 1)).pvalue < 1e-3


@given(
    epsilon=st.floats(0.01, 1e4),
    delta=st.floats(1e-10, 0.1),
    uses=st.integers(1, 1000),
    members=st.integers(1, 10),
    draw=st.sampled_from(["step", "record"]),
    sharing=st.sampled_from(["own", "shared"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_calibrated_noise_meets_its_epsilon_and_a_little_less_does_not(
    epsilon, delta, uses, members, draw, sharing
):
    setting = {
        "diameter": 3.0,
        "participations": uses,
        "draw": draw,
        "members": members,
        "noise_per_member": sharing,
    }
    noise = residual.input_noise_for(epsilon, delta, **setting)
    assert gdp.epsilon(delta, residual.mu(noise, **setting)) <= epsilon
    assert gdp.epsilon(delta, residual.mu(0.999 * noise, **setting)) > epsilon


def test_diameters_are_attained_and_not_exceeded():
    rng = np.random.default_rng(2)
    ball = rng.normal(size=(500, 3))
    ball *= 2.0 / np.linalg.norm(ball, axis=1, keepdims=True)
    distances = scipy.spatial.distance.pdist
    assert 0.98 < distances(ball).max() / residual.ball_diameter(2.0) <= 1
    assert 0.95 < distances(np.abs(ball)).max() / residual.orthant_diameter(2.0) <= 1
    corners = np.array([[-1.0] * 5, [3.0] * 5])
    assert distances(corners)[0] == pytest.approx(residual.box_diameter(5, -1.0, 3.0))
    # pixels in [0, 1] centred at one half fill the ball of radius sqrt(d) / 2
    assert residual.box_diameter(3072) == pytest.approx(55.4, abs=0.05)
    assert residual.ball_diameter(math.sqrt(3072) / 2) == residual.box_diameter(3072)


# --------------------------------------------------------------- Poisson participation


def test_the_poisson_mixture_is_the_mean_over_all_counts():
    weights = scipy.stats.binom.pmf(np.arange(31), 30, 0.2)
    deltas = [float(gdp.delta(1.0, 0.4 * math.sqrt(k))) for k in range(31)]
    expected = weights @ deltas
    assert participation.poisson(0.4, 30, 0.2).delta(1.0) == pytest.approx(expected)
    certain = participation.poisson(0.4, 30, 1.0).delta(1.0)
    assert certain == pytest.approx(gdp.delta(1.0, 0.4 * math.sqrt(30)))


def test_poisson_epsilon_inverts_poisson_delta():
    epsilon = participation.poisson(0.1, 5000, 0.01).epsilon(1e-5)
    assert participation.poisson(0.1, 5000, 0.01).delta(epsilon) == pytest.approx(1e-5)
    assert epsilon > gdp.epsilon(1e-5, 0.1 * math.sqrt(50))
    assert participation.poisson(0.1, 10, 0.01).epsilon(0.5) == 0.0


# --------------------------------------------------------------- the recalled theorem


def test_no_other_split_needs_less_noise():
    for epsilon, split in zip(EPSILONS, (0.51, 0.52, 0.54, 0.57, 0.58), strict=True):
        best = theorem.best_split(epsilon, 1e-5)
        assert best == pytest.approx(split, abs=5.1e-3)
        least = theorem.noise_for(epsilon, 1e-5, 2.0, 7)
        for other in (best - 0.05, best + 0.05):
            assert theorem.noise_for(epsilon, 1e-5, 2.0, 7, other) > least


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_the_recalled_theorem_is_safe_and_loose(epsilon, delta):
    recalled = theorem.noise_for(epsilon, delta, 1.0, 20)
    exact = residual.input_noise_for(epsilon, delta, bound=1.0, participations=20)
    assert recalled > 1.05 * exact


# ---------------------------------------------------------------- Strategy II: Renyi


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        ((2, 0, 1, 1, 1), 1.0),
        ((2, 0, 1, 0.5, 1.2), 0.18198594857),
        ((3, 0, 1.2, 0.5, 1.0), 3.47274432726),
        ((1.5, 0.3, 2, 0, 1.3), 0.84560236923),
        ((8, 0, 1, 0.2, 1.1), 0.09821192699),
    ],
)
def test_the_renyi_divergence_matches_the_table_and_its_integral(law, expected):
    found = residual.renyi_gaussian(*law)
    assert found == pytest.approx(expected, abs=5e-12)
    alpha, m0, s0, m1, s1 = law

    def integrand(x):
        p, q = scipy.stats.norm.logpdf(x, m0, s0), scipy.stats.norm.logpdf(x, m1, s1)
        return math.exp(alpha * p + (1 - alpha) * q)

    mass, _ = quad(integrand, -60, 60, points=[m0, m1], limit=400)
    assert found == pytest.approx(math.log(mass) / (alpha - 1), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "each", "thousand", "many"),
    [
        (1.01, 2.0205e-4, 0.20205, 2.5862),
        (1.05, 5.2809e-3, 5.2809, 67.596),
        (1.1, 2.25510e-2, 22.551, 288.65),
    ],
)
def test_unequal_noise_scales_cost_in_every_coordinate(ratio, each, thousand, many):
    for count, expected in ((1, each), (1000, thousand), (12_800, many)):
        scales = np.full(count, ratio)
        found = residual.renyi_gaussian(2.0, np.zeros(count), scales, 0.0, 1.0)
        assert found == pytest.approx(expected, rel=5e-5)


@pytest.mark.parametrize(
    ("ratio", "order"),
    [(1.1, 5.762), (1.5, 1.8), (2, 1.3333), (4, 1.0667), (10, 1.0101)],
)
def test_orders_from_the_largest_one_upward_cost_infinitely_much(ratio, order):
    largest = residual.largest_finite_order(ratio * 0.2, 0.2)
    assert largest == pytest.approx(order, abs=5.1e-4)
    below = residual.renyi_gaussian(1 + 0.999 * (largest - 1), 0.0, ratio, 0.0, 1.0)
    assert math.isfinite(below)
    assert residual.renyi_gaussian(largest * 1.0001, 0.0, ratio, 0.0, 1.0) == math.inf


def test_the_largest_order_itself_is_infinite():
    # scales 3 : 1 have their largest order at 9/8, a number without rounding
    assert residual.largest_finite_order(3.0, 1.0) == pytest.approx(1.125)
    assert residual.renyi_gaussian(1.125, 0.0, 3.0, 0.0, 1.0) == math.inf


def test_a_zero_activation_in_one_neighbour_costs_infinitely_much():
    x, other = np.array([1.0, 0.0, 2.0]), np.array([1.0, 0.1, 2.0])
    for alpha in (1.01, 2.0):
        for p, q in ((x, other), (other, x)):
            assert residual.renyi_gaussian(alpha, p, 0.5 * p, q, 0.5 * q) == math.inf
    # a coordinate that is zero for both is no evidence for either
    assert residual.renyi_gaussian(2.0, x, 0.5 * x, x, 0.5 * x) == 0.0
    assert residual.largest_finite_order(1.0, 0.0) == 1.0
    assert residual.largest_finite_order(1.0, 1.0) == math.inf


# -------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: residual.mu(0.0, bound=1.0), "input_noise"),
        (lambda: residual.mu(1.0), "bound = None"),
        (lambda: residual.mu(1.0, bound=1.0, diameter=1.0), "bound = 1.0"),
        (lambda: residual.mu(1.0, bound=-1.0), "bound"),
        (lambda: residual.mu(1.0, diameter=0.0), "diameter"),
        (lambda: residual.mu(1.0, bound=1.0, participations=0), "participations"),
        (lambda: residual.mu(1.0, bound=1.0, members=0), "members"),
        (lambda: residual.input_noise_for(0.0, 1e-5, bound=1.0), "epsilon"),
        (lambda: residual.input_noise_for(1.0, 0.0, bound=1.0), "delta"),
        (lambda: residual.box_diameter(3, 1.0, 1.0), "high"),
        (
            lambda: participation.poisson(0.1, 10, 0.0).delta(1.0),
            "sampling_probability",
        ),
        (lambda: participation.poisson(0.1, 10, 0.1).epsilon(1.0), "delta"),
        (lambda: theorem.noise_for(1.0, 1e-5, 1.0, 1, 1.0), "split"),
        (lambda: residual.renyi_gaussian(1.0, 0, 1, 0, 1), "alpha"),
        (lambda: residual.renyi_gaussian(2.0, 0, -1, 0, 1), "s0"),
        (lambda: residual.largest_finite_order(1.0, 2.0), "floor"),
    ],
)
def test_settings_outside_the_theorems_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
