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

# participations: (recalled theorem, exact) pairs of pi / R at the epsilons above
TABLE_A = {
    1: "9.801 7.461 4.999 3.988 2.592 2.162 1.381 1.200 1.136 1.000",
    10: "30.994 23.595 15.807 12.610 8.197 6.838 4.366 3.796 3.592 3.162",
    50: "69.304 52.759 35.345 28.197 18.329 15.290 9.763 8.489 8.031 7.069",
    100: "98.011 74.613 49.986 39.876 25.922 21.623 13.807 12.005 11.358 9.998",
    200: "138.609 105.518 70.691 56.394 36.659 30.580 19.526 16.977 16.063 14.139",
}

# pi / R: epsilon at 1, 10, 50 and 200 participations
TABLE_B = {
    0.05: (969.65, 8538.49, 41205.3, 162411.6),
    0.1: (284.39, 2268.77, 10602.16, 41205.3),
    0.25: (65.32, 426.97, 1840.29, 6881.54),
    0.5: (24.38, 133.09, 519.70, 1840.29),
    1: (10.00, 46.21, 159.44, 519.70),
    2: (4.38, 17.86, 54.38, 159.44),
    5: (1.55, 5.76, 15.46, 39.38),
    10: (0.73, 2.59, 6.57, 15.46),
    20: (0.34, 1.20, 2.94, 6.57),
    50: (0.13, 0.44, 1.06, 2.29),
    100: (0.06, 0.21, 0.50, 1.06),
}


# ----------------------------------------------------------------------- the theorem


@pytest.mark.parametrize("uses", TABLE_A)
def test_noise_for_epsilon_matches_the_table_of_both_theorems(uses):
    entries = [float(x) for x in TABLE_A[uses].split()]
    for epsilon, recalled, exact in zip(
        EPSILONS, entries[::2], entries[1::2], strict=True
    ):
        ours = residual.input_noise_for(epsilon, 1e-5, bound=1.0, participations=uses)
        assert ours == pytest.approx(exact, abs=5.1e-4)
        looser = theorem.noise_for(epsilon, 1e-5, 1.0, uses)
        assert looser == pytest.approx(recalled, abs=5.1e-4)


@pytest.mark.parametrize("noise", TABLE_B)
def test_epsilon_of_a_given_noise_matches_the_table(noise):
    for uses, expected in zip((1, 10, 50, 200), TABLE_B[noise], strict=True):
        mu = residual.mu(noise, bound=1.0, participations=uses)
        digits = 0.051 if expected > 40_000 else 0.0051
        assert gdp.epsilon(1e-5, mu) == pytest.approx(expected, abs=digits)


def test_five_members_with_their_own_noise_raise_epsilon_from_4_to_10():
    run = {"bound": 1.0, "participations": 50}
    alone = residual.mu(15.29, **run)
    assert gdp.epsilon(1e-5, alone) == pytest.approx(4.00, abs=5e-3)
    own = residual.mu(15.29, **run, members=5, noise_per_member="own")
    assert gdp.epsilon(1e-5, own) == pytest.approx(10.42, abs=5e-3)
    shared = residual.mu(15.29, **run, members=5, noise_per_member="shared")
    assert shared == alone


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


def test_poisson_participation_is_worse_in_the_tail_than_its_mean():
    mixed = participation.poisson(0.1, 5000, 0.01).delta(4.0)
    assert mixed == pytest.approx(4.07e-8, rel=2e-3)
    fixed = gdp.delta(4.0, 0.1 * math.sqrt(50))
    assert fixed == pytest.approx(6.34e-9, rel=2e-3)


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


def test_the_recalled_theorem_with_an_even_split_matches_its_row():
    for epsilon, expected in zip(
        EPSILONS, (9.803, 5.003, 2.599, 1.393, 1.149), strict=True
    ):
        noise = theorem.noise_for(epsilon, 1e-5, 1.0, 1, split=0.5)
        assert noise == pytest.approx(expected, abs=5.1e-4)


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
