"""Strategy II with a floor: one exact answer, by independent ways of computing it."""

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting import rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from rpjax.errors import InputError
from rpjax.privacy import Gaussian, Numerical, compose, gdp, multiplicative, residual
from rpjax.privacy import unequal_scales as unequal
from rpjax.privacy.multiplicative import Block
from rpjax.privacy.scale_pairs import ScalePairs, largest_log_delta

# ratio, coordinates, epsilon at delta 1e-5 without a shift; as printed by `row`
EPSILONS = [
    (1.01, 1, 0.110372),
    (1.01, 12_800, 7.7563),
    (1.1, 100, 7.99729),
    (1.1, 12_800, 195.993),
    (2.0, 1000, 1109.34),
    (10.0, 1, 962.518),
    (10.0, 12_800, 638473),
]


def chi_square_delta(epsilon, ratio, coordinates):
    """Closed form with all coordinates up: the loss is affine in one chi-square."""
    edge = (epsilon + coordinates * math.log(ratio)) * 2 / (1 - ratio**-2)
    law = scipy.stats.chi2(coordinates)
    return law.sf(edge / ratio**2) - math.exp(epsilon) * law.sf(edge)


def noncentral_delta(epsilon, ratio, coordinates, shift):
    """The same with shifted means: chi-squares around the point of least loss."""
    excess = ratio**2 - 1
    least = -coordinates * math.log(ratio) - shift**2 / (2 * excess)
    edge = (epsilon - least) * 2 / (1 - ratio**-2)
    p = scipy.stats.ncx2(coordinates, (shift * ratio / excess) ** 2)
    q = scipy.stats.ncx2(coordinates, (shift / excess) ** 2)
    return p.sf(edge / ratio**2) - math.exp(epsilon) * q.sf(edge)


def mixed_delta(epsilon, ratio, up, down):
    """Some coordinates up and some down, by quadrature over the first chi-square."""

    def part(scale_up, scale_down):
        def integrand(z):
            # the loss of the coordinates up where their chi-square is z
            loss = -up * math.log(ratio) + scale_up * z * (ratio**2 - 1) / 2
            edge = (loss + down * math.log(ratio) - epsilon) * 2 / (1 - ratio**-2)
            law = scipy.stats.chi2
            return law.pdf(z, up) * law.cdf(edge / scale_down, down)

        edge = (epsilon + (up - down) * math.log(ratio)) * 2
        start = max(edge / (ratio**2 - 1) / scale_up, 0.0)
        return quad(integrand, start, start + 80 + 3 * up, epsabs=0, limit=300)[0]

    # under Q both chi-squares have the other scale
    return part(1.0, 1.0) - math.exp(epsilon) * part(ratio**-2, ratio**2)


# ------------------------------------------------------------------- without a shift


@pytest.mark.parametrize(("ratio", "coordinates", "expected"), EPSILONS)
def test_epsilon_by_contour_and_by_convolution_agree_to_a_per_cent(
    ratio, coordinates, expected
):
    contour = Block(1.0, 1.0, ratio, coordinates).epsilon(1e-5)
    assert contour == pytest.approx(expected, rel=1e-5)
    losses = Numerical(unequal.distribution(ratio, coordinates=coordinates))
    assert contour <= losses.epsilon(1e-5) <= 1.01 * contour


@pytest.mark.parametrize(
    ("ratio", "coordinates"), [(1.01, 1), (1.01, 500), (1.1, 100), (1.5, 10), (4, 1)]
)
def test_delta_is_that_of_a_chi_square(ratio, coordinates):
    block = Block(0.3, 0.2, 0.2 * ratio, coordinates)
    mean = coordinates * ((ratio**2 - 1) / 2 - math.log(ratio))
    for epsilon in (0.0, 0.3 * mean, mean, 2 * mean, 4 * mean):
        expected = chi_square_delta(epsilon, ratio, coordinates)
        assert block.delta(epsilon) == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_delta_far_below_the_smallest_double_is_right_in_its_logarithm():
    # the tail of a chi-square of 2 degrees of freedom is exp(-x / 2), without rounding
    ratio, epsilon = 1.3, 2000.0
    edge = (epsilon + 2 * math.log(ratio)) / (1 - ratio**-2)
    expected = -edge / ratio**2 + math.log1p(-(ratio**-2))
    found = largest_log_delta(ScalePairs(math.log(ratio), 2), epsilon)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found < -1000


def test_where_delta_is_one_to_rounding_it_is_not_below():
    for coordinates in (300, 12_800):
        mean = coordinates * (0.105 - math.log(1.1))
        spread = 0.105 * math.sqrt(2 * coordinates)
        for below in (4.0, 4.9, 5.1, 7.0):
            epsilon = mean - below * spread
            if epsilon >= 0:
                found = Block(1.0, 1.0, 1.1, coordinates).attained.delta(epsilon)
                expected = chi_square_delta(epsilon, 1.1, coordinates)
                assert expected - 1e-12 <= found <= min(1.0, expected + 1e-6)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 4), (6, 2)])
@pytest.mark.parametrize("ratio", [1.1, 2.0])
def test_a_mixture_of_directions_matches_its_quadrature(ratio, up, down):
    pairs = ScalePairs(math.log(ratio), up + down)
    for epsilon in (0.05, 0.4, 1.5):
        expected = mixed_delta(epsilon, ratio, up, down)
        found = math.exp(pairs.log_deltas([up], epsilon, pairs.saddle(epsilon))[0])
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize(
    ("ratio", "coordinates", "epsilon"), [(1.1, 60, 2.0), (1.02, 30, 0.05), (2.0, 3, 0)]
)
def test_no_number_up_is_passed_over_that_might_be_the_largest(
    ratio, coordinates, epsilon, monkeypatch
):
    pairs, computed = ScalePairs(math.log(ratio), coordinates), set()
    log_deltas = ScalePairs.log_deltas

    def recorded(self, ups, *others):
        computed.update(int(k) for k in ups)
        return log_deltas(self, ups, *others)

    monkeypatch.setattr(ScalePairs, "log_deltas", recorded)
    found = largest_log_delta(pairs, epsilon)
    rest = sorted(set(range(coordinates + 1)) - computed)
    assert len(computed) > 1
    if rest:
        assert max(pairs.log_bounds(rest, epsilon, pairs.saddle(epsilon))) < found
    everything = range(coordinates, -1, -1)  # whose contour is that of all up
    bounds = pairs.log_bounds(everything, epsilon, pairs.saddle(epsilon))
    deltas = log_deltas(pairs, everything, epsilon, pairs.saddle(epsilon))
    assert (deltas <= bounds + 1e-12).all()
    assert deltas.max() == pytest.approx(found, abs=1e-10)


def test_no_neighbours_within_the_bounds_are_easier_to_tell_apart():
    # any two scales in each of two coordinates, by quadrature over the plane
    low, high = 0.5, 0.9
    block = Block(0.5, 1.0, 1.8, 2)
    rng = np.random.default_rng(0)
    for epsilon in (0.0, 0.3, 1.0, 2.5):
        bound = block.delta(epsilon)
        for corner in (True, False):
            p, q = rng.uniform(low, high, (2, 2))
            if corner:
                p, q = rng.choice([low, high], (2, 2))
            assert plane_delta(epsilon, p, q) <= bound * (1 + 1e-4) + 1e-9
        reached = plane_delta(epsilon, np.full(2, high), np.full(2, low))
        assert reached == pytest.approx(bound, rel=2e-3)


def plane_delta(epsilon, p, q, shift=(0.0, 0.0)):
    """Sum over a grid of p - e^epsilon q, where it is positive."""
    x = np.linspace(-8, 8, 2001)
    step = x[1] - x[0]
    first = [scipy.stats.norm.pdf(x, m, s) for m, s in zip(shift, p, strict=True)]
    second = [scipy.stats.norm.pdf(x, 0.0, s) for s in q]
    gap = np.multiply.outer(*first) - math.exp(epsilon) * np.multiply.outer(*second)
    return np.maximum(gap, 0).sum() * step**2


def test_no_test_is_more_powerful_than_the_sum_of_squares():
    # the likelihood ratio of the worst pair rises with the sum of squares
    rates = np.array([1e-3])
    law = scipy.stats.chi2(10)
    power = law.sf(law.isf(rates) / 1.5**2)
    np.testing.assert_allclose(Block(1.0, 1.0, 1.5, 10).tpr(rates), power, rtol=1e-7)


# ---------------------------------------------------------------------------- Renyi


@pytest.mark.parametrize("ratio", [1.05, 1.5])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_largest_divergence_is_from_large_scales_to_small(ratio, shift):
    block = Block(0.5, 2.0, 2.0 * ratio, 1, shift)
    scales = np.linspace(1.0, ratio, 15)
    for share in (0.01, 0.3, 0.9):
        order = 1 + share * (block.largest_order - 1)
        found = [
            residual.renyi_gaussian(order, m, s0, 0.0, s1)
            for m in (0.0, shift / 2, shift)
            for s0 in scales
            for s1 in scales
        ]
        assert block.renyi(order) == pytest.approx(max(found), rel=1e-12)
        assert np.argmax(found) == len(found) - len(scales) or shift == 0


@pytest.mark.parametrize(
    ("ratio", "total"), [(1.01, 2.5862), (1.05, 67.596), (1.1, 288.65)]
)
def test_the_divergence_of_many_coordinates_matches_the_table(ratio, total):
    block = Block(7.0, 0.1, 0.1 * ratio, 12_800)
    assert block.renyi(2.0) == pytest.approx(total, rel=5e-5)
    assert block.renyi(block.largest_order * 1.0001) == math.inf


def test_the_squares_of_the_shift_add_up_over_coordinates():
    block = Block(0.5, 1.0, 1.2, 4, shift=0.6)
    spread = residual.renyi_gaussian(
        2.0, [0.3, 0.3, 0.3, 0.3], [0.6] * 4, [0.0] * 4, [0.5] * 4
    )
    assert block.renyi(2.0) == pytest.approx(spread, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_epsilon_by_renyi_is_that_of_dp_accounting_at_many_orders(shift):
    block = Block(0.5, 1.0, 1.3, 30, shift)
    orders = 1 + np.linspace(1e-3, 1, 4000)[:-1] * (block.largest_order - 1)
    divergences = [block.renyi(order) for order in orders]
    expected, _ = rdp.compute_epsilon(orders, divergences, 1e-5)
    assert block.renyi_epsilon(1e-5) == pytest.approx(expected, rel=5e-5)
    # with a shift of many coordinates nothing better than Renyi is known
    assert (block.renyi_epsilon(1e-5) > block.epsilon(1e-5)) == (shift == 0)


# ---------------------------------------------------------------------- with a shift


@pytest.mark.parametrize(
    ("ratio", "coordinates", "shift"),
    [(1.05, 1, 0.5), (1.1, 100, 3.0), (1.5, 7, 1.0), (2.0, 1, 4.0)],
)
def test_what_is_attained_is_a_noncentral_chi_square_and_a_convolution(
    ratio, coordinates, shift
):
    attained = Block(0.5, 2.0, 2.0 * ratio, coordinates, shift).attained
    for epsilon in (0.0, 1.0, 5.0, 20.0):
        expected = noncentral_delta(epsilon, ratio, coordinates, shift)
        assert attained.delta(epsilon) == pytest.approx(expected, rel=1e-8, abs=1e-13)
    losses = Numerical(unequal.distribution(ratio, shift, coordinates))
    epsilon = attained.epsilon(1e-5)
    assert epsilon <= losses.epsilon(1e-5) <= 1.01 * epsilon


@pytest.mark.parametrize("ratio", [1.1, 2.0])
@pytest.mark.parametrize("coordinates", [1, 100])
@pytest.mark.parametrize("shift", [0.3, 3.0])
def test_what_is_proved_is_close_above_what_is_attained(ratio, coordinates, shift):
    block = Block(1.0, 1.0, ratio, coordinates, shift)
    attained, proved = block.attained.epsilon(1e-5), block.epsilon(1e-5)
    assert attained < proved < 1.15 * attained
    assert proved <= block.renyi_epsilon(1e-5) * (1 + 1e-9)
    assert block.delta(proved) <= 1e-5 < block.delta(0.999 * proved)


def test_no_shifted_neighbours_exceed_what_is_proved():
    rng = np.random.default_rng(1)
    for shift in (0.4, 2.0):
        block = Block(0.5, 1.0, 1.8, 2, shift * 0.5)
        for epsilon in (0.0, 1.0, 3.0):
            bound = block.delta(epsilon)
            for _ in range(4):
                p, q = rng.choice([0.5, 0.7, 0.9], (2, 2))
                angle = rng.uniform(0, 2 * math.pi)
                means = 0.5 * shift * np.array([math.cos(angle), math.sin(angle)])
                assert plane_delta(epsilon, p, q, means) <= bound * (1 + 1e-6)


def test_with_a_constant_scale_it_is_strategy_one():
    constant = Block(0.5, 2.0, 2.0, 20, shift=0.8)
    for epsilon in (0.0, 0.5, 2.0):
        assert constant.delta(epsilon) == gdp.delta(epsilon, 0.8)
    assert constant.epsilon(1e-5) == pytest.approx(gdp.epsilon(1e-5, 0.8))
    assert constant.renyi_epsilon(1e-5) == pytest.approx(
        rdp.compute_epsilon(
            (a := 1 + np.geomspace(0.1, 1e3, 4000)), a * 0.8**2 / 2, 1e-5
        )[0],
        rel=1e-4,
    )
    assert constant.largest_order == math.inf
    nearly = [Block(0.5, 2.0 - gap, 2.0, 20, 0.8) for gap in (1e-4, 1e-6, 1e-8)]
    gaps = [block.epsilon(1e-5) / gdp.epsilon(1e-5, 0.8) - 1 for block in nearly]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 1e-3
    assert Block(0.5, 2.0, 2.0, 10).epsilon(1e-5) == 0.0


def test_gamma_matters_only_for_the_shift():
    assert Block(0.1, 1.0, 1.5, 10).delta(1.0) == Block(9.0, 1.0, 1.5, 10).delta(1.0)
    shifted = [Block(gamma, 1.0, 1.5, 10, 1.0).epsilon(1e-5) for gamma in (1, 2, 4, 99)]
    assert shifted == sorted(shifted, reverse=True)
    # however large gamma is, the scales are still told apart
    assert shifted[-1] > Block(1.0, 1.0, 1.5, 10).epsilon(1e-5)


def test_composed_with_a_gaussian_it_is_a_block_with_one_beside():
    # scales alone and a Gaussian are independent: their joint K is the sum
    ratio, epsilon = 1.2, 3.0
    scales = compose(Block(1.0, 1.0, ratio, 5), Gaussian(0.6))
    both = ScalePairs(math.log(ratio), 5, beside=0.6)
    exact = math.exp(largest_log_delta(both, epsilon))
    assert exact <= scales.delta(epsilon) <= 1.01 * exact


def test_many_epsilons_at_once_lie_above_the_curve_and_close_to_it(monkeypatch):
    # where delta is near 1 it is concave in epsilon, but still convex in e^epsilon
    curve = Block(1.0, 1.0, 1.5, 40).attained
    epsilons = np.linspace(0.0, 40.0, 301)
    exact = np.array([curve.delta(epsilon) for epsilon in epsilons[::10]])
    close = curve.profile(epsilons)[::10]
    monkeypatch.setattr(multiplicative, "KNOTS", 8)
    coarse = curve.profile(epsilons)[::10]
    for found in (close, coarse):
        assert (found >= exact * (1 - 1e-10)).all()
    assert (close <= exact * 1.005).all()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    ratio=st.floats(1.001, 4.0),
    coordinates=st.integers(1, 100),
    shift=st.sampled_from([0.0, 0.5, 3.0]),
    epsilon=st.floats(0.0, 30.0),
)
def test_a_wider_range_more_coordinates_and_a_longer_shift_cost_more(
    ratio, coordinates, shift, epsilon
):
    delta = Block(1.0, 1.0, ratio, coordinates, shift).delta(epsilon)
    slack = 1 - 1e-3 * (shift > 0)  # of the bound's search for the best c
    assert delta <= 1
    assert Block(1.0, 1.0, 1.1 * ratio, coordinates, shift).delta(epsilon) >= (
        slack * delta
    )
    assert Block(1.0, 1.0, ratio, coordinates + 9, shift).delta(epsilon) >= (
        slack * delta
    )
    assert Block(1.0, 1.0, ratio, coordinates, shift + 0.1).delta(epsilon) >= (
        slack * delta
    )
    assert Block(1.0, 1.0, ratio, coordinates, shift).delta(epsilon + 0.1) <= delta


# ----------------------------------------------------------- table, floors, refusals


def test_the_table_has_a_row_for_each_setting_and_grows():
    rows = multiplicative.table(ratios=(1.1, 1.5), coordinates=(1, 10))
    settings = [(row.ratio, row.coordinates) for row in rows]
    assert settings == [(1.1, 1), (1.1, 10), (1.5, 1), (1.5, 10)]
    assert all(row.additive == 0 < row.attained == row.proved for row in rows)
    assert [round(row.largest_order, 3) for row in rows[::2]] == [5.762, 1.8]
    rows = [multiplicative.row(1.1, count, shift=0.5) for count in (1, 10)]
    for row in rows:
        assert row.additive < row.attained < row.proved <= row.renyi * (1 + 1e-9)
        assert row.additive == gdp.epsilon(1e-5, 0.5)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_least_floor_reaches_its_target_and_a_lower_one_does_not(shift):
    setting = {"gamma": 0.5, "largest": 2.0, "coordinates": 9, "shift": shift}
    floor = multiplicative.least_floor(4.0, 1e-5, **setting)
    assert Block(floor=floor, **setting).delta(4.0) <= 1e-5
    lower = 2.0 - 1.01 * (2.0 - floor)
    assert Block(floor=lower, **setting).delta(4.0) > 1e-5


def test_a_target_that_even_a_constant_scale_misses_is_refused():
    reached = gdp.epsilon(1e-5, 3.0)
    with pytest.raises(InputError, match=f"no floor reaches it .* {reached:.4g}$"):
        multiplicative.least_floor(
            1.0, 1e-5, gamma=0.5, largest=2.0, coordinates=5, shift=3.0
        )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gamma": 0.0}, "gamma"),
        ({"floor": 0.0}, "floor"),
        ({"floor": 3.0}, "floor"),
        ({"largest": math.inf}, "largest"),
        ({"coordinates": 0}, "coordinates"),
        ({"shift": -1.0}, "shift"),
    ],
)
def test_impossible_blocks_are_refused(change, field):
    setting = {"gamma": 1.0, "floor": 1.0, "largest": 2.0, "coordinates": 1} | change
    with pytest.raises(InputError, match=f"^{field} = "):
        Block(**setting)


# ------------------------------------------------------- losses of unequal normal laws


@pytest.mark.parametrize(("ratio", "shift"), [(1.05, 0.0), (1.3, 0.8), (3.0, 2.0)])
def test_the_profiles_match_their_integrals(ratio, shift):
    x = np.linspace(-30, 30, 400_001)
    p, q = scipy.stats.norm(shift, ratio), scipy.stats.norm(0, 1)
    for log_s in (-2.0, -0.1, 0.0, 0.2, 3.0):
        for profile, (first, second) in (
            (unequal.profile, (p, q)),
            (unequal.profile_reversed, (q, p)),
        ):
            gap = first.pdf(x) - math.exp(log_s) * second.pdf(x)
            expected = np.maximum(gap, 0).sum() * (x[1] - x[0])
            found = float(profile(log_s, ratio, shift))
            assert found == pytest.approx(expected, abs=1e-7)


def test_the_two_orders_are_each_others_mirror_image():
    t = np.linspace(-3, 3, 25)
    mirrored = 1 - np.exp(t) * (1 - unequal.profile(-t, 1.7, 0.4))
    found = unequal.profile_reversed(t, 1.7, 0.4)
    np.testing.assert_allclose(found, mirrored, atol=1e-14)
