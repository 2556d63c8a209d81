"""DP-SGD's epsilon against recorded values, dp-accounting itself and closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from dp_accounting import NeighboringRelation, dp_event, pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.errors import InputError
from rpjax.privacy import dpsgd, gdp

# q, sigma, steps, delta, RDP, PLD, PLD for replace-one where recorded
RUNS = {
    "ImageNet fine-tuning": (
        *(65536 / 1281167, 1.312707, 1368, 1e-6),
        *(9.9726, 9.2901, None),
    ),
    "WRN-16-4": (4096 / 50000, 10.0, 875, 1e-5, 0.9877, 0.9040, 1.9248),
    "WRN-28-10": (16384 / 50000, 21.1, 250, 1e-5, 0.9976, 0.9125, None),
    "NF-ResNet-50": (16384 / 1281167, 2.5, 71589, 8e-7, 7.9273, 7.4654, None),
    "TAN CIFAR-10": (4096 / 50000, 3.0, 2500, 1e-5, 7.0985, 6.5797, 14.7117),
    "TAN ImageNet": (32768 / 1281167, 2.5, 18000, 8e-7, 7.9798, 7.4919, None),
    "CIFAR-10": (2000 / 50000, 1.5, 2250, 1e-5, 7.3293, 6.7695, None),
    "MNIST": (250 / 60000, 1.3, 3600, 1e-5, 0.9422, 0.8580, None),
    "plain": (4096 / 50000, 3.0, 2000, 1e-5, 6.2391, 5.7750, None),
}

SMALL = {"sampling_probability": 0.05, "steps": 400, "delta": 1e-5}


@pytest.mark.parametrize("run", RUNS)
def test_epsilon_of_known_runs_is_reproduced(run):
    q, sigma, steps, delta, renyi, loss, replaced = RUNS[run]
    assert dpsgd.epsilon(sigma, q, steps, delta, "rdp") == pytest.approx(
        renyi, abs=0.01
    )
    assert dpsgd.epsilon(sigma, q, steps, delta) == pytest.approx(loss, abs=0.01)
    if replaced is not None:
        found = dpsgd.epsilon(sigma, q, steps, delta, adjacency="replace_one")
        assert found == pytest.approx(replaced, abs=0.01)


def test_the_two_rows_of_the_comparison_of_neighbours_are_reproduced():
    q = 4096 / 50000
    for sigma, steps, either, exchanged in (
        (10.0, 875, 0.904, 1.925),
        (3.0, 2500, 6.580, 14.71),
    ):
        found = dpsgd.epsilon(sigma, q, steps, 1e-5)
        assert found == pytest.approx(either, abs=0.01)
        found = dpsgd.epsilon(sigma, q, steps, 1e-5, adjacency="replace_one")
        assert found == pytest.approx(exchanged, abs=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_epsilon_is_that_of_a_direct_call_and_rdp_is_never_below_pld(seed):
    rng = np.random.default_rng(seed)
    sigma, q = 10 ** rng.uniform(-0.2, 1.3), 10 ** rng.uniform(-3, 0)
    steps, delta = int(10 ** rng.uniform(0, 3.3)), 10 ** rng.uniform(-8, -3)
    step = dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(sigma))
    event = dp_event.SelfComposedDpEvent(step, steps)
    loss = dpsgd.epsilon(sigma, q, steps, delta)
    # a grid of 1e-3 rounds small epsilons up by a tenth
    direct = pld.PLDAccountant(
        NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3 if loss > 1.5 else 1e-4
    )
    expected = direct.compose(event).get_epsilon(delta)
    assert loss == pytest.approx(expected, rel=1e-3, abs=2e-3)
    renyi = dpsgd.epsilon(sigma, q, steps, delta, "rdp")
    assert renyi == rdp.RdpAccountant().compose(event).get_epsilon(delta)
    assert loss <= renyi + 1e-4


def test_without_sampling_it_is_the_gaussian_mechanism():
    for sigma, steps in ((5.0, 100), (20.0, 37)):
        exact = gdp.epsilon(1e-5, math.sqrt(steps) / sigma)
        found = dpsgd.epsilon(sigma, 1.0, steps, 1e-5)
        assert found == pytest.approx(exact, abs=1e-3)
        assert found >= exact - 1e-9
        swapped = gdp.epsilon(1e-5, 2 * math.sqrt(steps) / sigma)
        found = dpsgd.epsilon(sigma, 1.0, steps, 1e-5, adjacency="replace_one")
        assert found == pytest.approx(swapped, abs=2e-3)


def test_epsilon_grows_with_steps_and_rate_and_falls_with_noise_and_delta():
    base = {"noise_multiplier": 1.5, **SMALL}
    middle = dpsgd.epsilon(**base)
    assert dpsgd.epsilon(**{**base, "steps": 440}) > middle
    assert dpsgd.epsilon(**{**base, "sampling_probability": 0.055}) > middle
    assert dpsgd.epsilon(**{**base, "noise_multiplier": 1.6}) < middle
    assert dpsgd.epsilon(**{**base, "delta": 1e-4}) < middle
    assert dpsgd.epsilon(**base, adjacency="replace_one") > middle


def test_no_noise_is_no_privacy_and_little_noise_still_gets_a_number():
    assert dpsgd.epsilon(0.0, **SMALL) == math.inf
    assert 1e3 < dpsgd.epsilon(0.05, **SMALL) < 1e6


def test_accounting_is_loaded_only_when_it_is_used():
    code = "import sys, rpjax.privacy; sys.exit('dp_accounting' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -------------------------------------------------------------- the search for sigma


@pytest.mark.parametrize("target", [0.3, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_calibrated_noise_meets_its_target_and_a_little_less_does_not(
    target, accountant
):
    sigma = dpsgd.noise_multiplier_for(target, 1e-5, 0.05, 400, accountant)
    assert dpsgd.epsilon(sigma, **SMALL, accountant=accountant) <= target
    assert dpsgd.epsilon(0.999 * sigma, **SMALL, accountant=accountant) > target


def test_calibration_pays_for_replacement_and_overflow():
    plain = dpsgd.noise_multiplier_for(4.0, 1e-5, 0.05, 400)
    swap = dpsgd.noise_multiplier_for(4.0, 1e-5, 0.05, 400, adjacency="replace_one")
    cut = dpsgd.noise_multiplier_for(4.0, 1e-5, 0.05, 400, overflow_probability=2e-10)
    assert plain < cut < swap
    assert dpsgd.epsilon(cut, **SMALL, overflow_probability=2e-10) <= 4.0


def test_a_target_that_overflow_makes_impossible_is_refused():
    with pytest.raises(InputError, match=r"epsilon.*larger capacity"):
        dpsgd.noise_multiplier_for(4.0, 1e-5, 0.05, 400, overflow_probability=1e-6)


# -------------------------------------------------------------------------- overflow


def test_an_overflow_costs_its_share_of_delta_and_no_more():
    sigma, p = 1.5, 3e-10
    found = dpsgd.epsilon(sigma, **SMALL, overflow_probability=p)
    left = 1e-5 - (1 + math.exp(found)) * 400 * p
    # the definition holds at the value found, and fails a little below it
    assert dpsgd.epsilon(sigma, 0.05, 400, left) <= found
    below = found - 1e-3
    left = 1e-5 - (1 + math.exp(below)) * 400 * p
    assert dpsgd.epsilon(sigma, 0.05, 400, left) > below
    assert found > dpsgd.epsilon(sigma, **SMALL)


def test_a_negligible_overflow_costs_nothing_that_shows():
    plain = dpsgd.epsilon(1.5, **SMALL)
    with_it = dpsgd.epsilon(1.5, **SMALL, overflow_probability=1e-25)
    assert with_it == pytest.approx(plain, abs=1e-4)
    assert with_it >= plain


def test_an_overflow_of_more_than_delta_is_refused():
    with pytest.raises(dpsgd.OverflowTooLikely, match="enlarge the batch capacity"):
        dpsgd.epsilon(1.5, **SMALL, overflow_probability=1e-7)


def test_the_allowance_exceeds_the_exact_accounting_of_cut_batches():
    q, sigma, steps, cap = 0.08192, 3.0, 2500, 4534
    p = dpsgd.overflow_probability(50_001, q, cap)
    event = dp_event.TruncatedSubsampledGaussianDpEvent(50_000, q, cap, sigma)
    exact = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    truth = exact.compose(event, steps).get_epsilon(1e-5)
    found = dpsgd.epsilon(sigma, q, steps, 1e-5, overflow_probability=p)
    assert truth - 1e-3 <= found <= truth + 0.2


@pytest.mark.parametrize(
    ("capacity", "expected"), [(4200, 4.5e-2), (4352, 1.7e-5), (4608, 1.1e-16)]
)
def test_overflow_probabilities_match_their_table(capacity, expected):
    found = dpsgd.overflow_probability(50_000, 0.08192, capacity)
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("probability", "expected"), [(1e-8, 4444), (1e-10, 4492), (1e-12, 4534)]
)
def test_capacities_match_their_table(probability, expected):
    assert dpsgd.capacity(50_000, 0.08192, probability) == expected


@given(
    records=st.integers(1, 5000),
    q=st.floats(1e-3, 1.0),
    exponent=st.floats(-25, -0.5),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_capacity_suffices_and_one_place_less_does_not(records, q, exponent):
    allowed = 10**exponent
    places = dpsgd.capacity(records, q, allowed)
    counts = np.arange(records + 1)
    weights = scipy.stats.binom.pmf(counts, records, q)
    assert weights[places + 1 :].sum() <= allowed * (1 + 1e-6)
    if places > 1:
        assert weights[places:].sum() > allowed * (1 - 1e-6)


# --------------------------------------------------------------- what attacks can do


def test_without_sampling_the_attack_ceiling_is_the_gaussian_one():
    rates = np.array([0.0, 1e-3, 1e-2, 0.1, 0.5, 0.9, 1.0])
    found = dpsgd.tpr(rates, 10.0, 1.0, 400)
    np.testing.assert_allclose(found, gdp.tpr(rates, 2.0), rtol=2e-3, atol=1e-8)
    assert (found >= gdp.tpr(rates, 2.0) - 1e-9).all()


def test_the_attack_ceiling_lies_between_guessing_and_the_single_epsilon():
    rates = np.geomspace(1e-4, 1, 30)
    found = dpsgd.tpr(rates, 1.5, 0.05, 400)
    epsilon = dpsgd.epsilon(1.5, **SMALL)
    assert (found >= rates).all()
    assert (found <= math.exp(epsilon) * rates + 1.001e-5).all()
    assert (np.diff(found) >= 0).all()
    # concave: no mixture of two tests beats the curve
    slopes = np.diff(found) / np.diff(rates)
    assert (np.diff(slopes) <= 1e-9).all()
    raised = dpsgd.tpr(rates, 1.5, 0.05, 400, overflow_probability=1e-8)
    assert (raised >= found).all()
    assert raised[0] > found[0]


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"sampling_probability": 0.0}, "sampling_probability"),
        ({"sampling_probability": 1.5}, "sampling_probability"),
        ({"steps": 0}, "steps"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"overflow_probability": -0.1}, "overflow_probability"),
        ({"accountant": "rdp", "adjacency": "replace_one"}, "accountant"),
    ],
)
def test_settings_outside_their_range_are_refused(change, field):
    with pytest.raises(InputError, match=f"^{field}"):
        dpsgd.epsilon(**{"noise_multiplier": 1.0, **SMALL, **change})


def test_calibration_refuses_a_target_of_zero():
    with pytest.raises(InputError, match=r"^epsilon = 0.0"):
        dpsgd.noise_multiplier_for(0.0, 1e-5, 0.05, 400)
