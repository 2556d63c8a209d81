"""Released class counts: closed forms, dp-accounting, the noise that is drawn."""

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_normal

from rpjax.counts import Counts, tally
from rpjax.errors import InputError
from rpjax.privacy import algebra, dpsgd
from rpjax.privacy.histogram import (
    Histogram,
    losses_curve,
    release_losses,
    scale_for,
)

LABELS = np.repeat(np.arange(4), (500, 60, 9, 0))
ADJACENCIES = {"add_remove": 1, "replace_one": 2}


def analytic_gaussian(epsilon, sensitivity, sigma):
    """Delta by Balle and Wang, arXiv 1805.06530, Theorem 8."""
    phi = scipy.stats.norm.cdf
    a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return phi(a - b) - math.exp(epsilon) * phi(-a - b)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
@pytest.mark.parametrize("scale", [0.7, 3.0, 20.0])
def test_gaussian_counts_are_the_analytic_gaussian_mechanism(adjacency, scale):
    curve = Histogram(scale).curve(adjacency)
    root = math.sqrt(ADJACENCIES[adjacency])
    for epsilon in (0.0, 0.1, 1.0):
        expected = analytic_gaussian(epsilon, root, scale)
        assert curve.delta(epsilon) == pytest.approx(expected, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize(
    ("adjacency", "relation"),
    [
        ("add_remove", NeighboringRelation.ADD_OR_REMOVE_ONE),
        ("replace_one", NeighboringRelation.REPLACE_ONE),
    ],
)
def test_the_event_is_accounted_as_the_curve(adjacency, relation):
    """dp-accounting doubles a sensitivity that grows by root 2 only."""
    histogram = Histogram(4.0)
    accountant = PLDAccountant(relation).compose(histogram.event(adjacency))
    own = histogram.curve(adjacency).epsilon(1e-5)
    assert accountant.get_epsilon(1e-5) == pytest.approx(own, rel=1e-3)


def test_counts_compose_with_a_training():
    run = {"noise_multiplier": 1.2, "sampling_probability": 0.02, "steps": 50}
    histogram = Histogram(20.0)
    together = algebra.compose(histogram.curve(), dpsgd.curve(**run))
    event = dp_event.ComposedDpEvent([histogram.event(), dpsgd.event(**run)])
    by_pld = PLDAccountant().compose(event).get_epsilon(1e-5)
    own = together.epsilon(1e-5)
    assert own == pytest.approx(by_pld, rel=0.01)
    alone = dpsgd.epsilon(delta=1e-5, **run)
    assert alone < own < alone + histogram.curve().epsilon(1e-6)
    assert own < RdpAccountant().compose(event).get_epsilon(1e-5)


# ------------------------------------------------------------------- geometric noise


def brute_force(epsilon, scale, changed):
    """Delta of noise exp(-|z| / b) on a vector that moves by one in each place."""
    z = np.arange(-400, 401)
    mass = np.exp(-np.abs(z) / scale)
    mass /= mass.sum()
    there, moved = np.append(mass, 0), np.append(0, mass)
    if changed == 2:
        there, moved = (np.multiply.outer(p, p).ravel() for p in (there, moved))
    return np.maximum(there - math.exp(epsilon) * moved, 0).sum()


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_geometric_counts_are_what_their_law_says(adjacency):
    changed = ADJACENCIES[adjacency]
    curve = Histogram(3.0, "geometric").curve(adjacency)
    for epsilon in (0.0, 0.1, 0.3, 0.5):
        expected = brute_force(epsilon, 3.0, changed)
        assert curve.delta(epsilon) == pytest.approx(expected, rel=2e-3, abs=1e-10)
    assert curve.epsilon(0.0) == pytest.approx(changed / 3, rel=1e-3)


def test_the_geometric_event_is_accounted_as_the_curve():
    histogram = Histogram(3.0, "geometric")
    accountant = PLDAccountant().compose(histogram.event())
    own = histogram.curve().epsilon(0.01)
    assert accountant.get_epsilon(0.01) == pytest.approx(own, rel=1e-2)
    with pytest.raises(InputError, match="no event for 'replace_one'"):
        histogram.event("replace_one")


def test_geometric_noise_is_drawn_from_its_law():
    noise = draws(Histogram(2.0, "geometric"))
    z = np.arange(-8, 9)
    share = math.tanh(1 / 4)  # (1 - a) / (1 + a) with a = exp(-1 / 2)
    expected = np.append(share * np.exp(-np.abs(z) / 2.0), 0)
    expected[-1] = 1 - expected.sum()
    seen = np.array([np.sum(noise == k) for k in z] + [np.sum(np.abs(noise) > 8)])
    assert scipy.stats.chisquare(seen, len(noise) * expected).pvalue > 1e-4
    wrong = share * np.exp(-np.abs(z) / 2.4)
    wrong = np.append(wrong, 0) / wrong.sum() * expected[:-1].sum()
    wrong[-1] = expected[-1]
    assert scipy.stats.chisquare(seen, len(noise) * wrong).pvalue < 1e-6


def draws(histogram, classes=5000):
    """The noise on so many classes of ten thousand records, which no clamp meets."""
    many = np.repeat(np.arange(classes), 100)
    found = np.array(histogram.release(many, classes, b"s" * 32).values)
    assert histogram.scale < 20, "a count of 100 would be clamped"
    return found - 100


# ------------------------------------------------------------------- what is released


def test_gaussian_noise_has_its_standard_deviation():
    # rounding adds the variance of a uniform, 1/12
    assert_normal(
        draws(Histogram(15.0)) + np.random.default_rng(0).random(5000) - 0.5,
        math.sqrt(15.0**2 + 2 / 12),
    )


@pytest.mark.parametrize("noise", ["gaussian", "geometric"])
def test_released_counts_are_whole_at_least_one_and_fresh(noise):
    histogram = Histogram(10.0, noise)
    one, other = (histogram.release(LABELS, 4) for _ in range(2))
    assert one.source == "released"
    assert one.values != other.values
    for counts in (one, other):
        assert min(counts.values) >= 1
        assert all(value == int(value) for value in counts.values)
    same = [histogram.release(LABELS, 4, b"k" * 32) for _ in range(2)]
    assert same[0] == same[1]
    assert np.abs(np.array(one.values) - tally(LABELS, 4)).max() < 150


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.integers(0, 3))
def test_a_record_moves_the_counts_by_the_stated_distance(labels, other):
    full, without = tally(labels, 4), tally(labels[1:], 4)
    assert np.linalg.norm(full - without) == 1
    replaced = tally([other, *labels[1:]], 4)
    assert np.linalg.norm(full - replaced) <= math.sqrt(2) + 1e-12
    assert np.abs(full - replaced).sum() <= 2


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_the_scale_for_a_target_meets_it(adjacency):
    for noise, delta in (("gaussian", 1e-5), ("geometric", 0.0)):
        scale = scale_for(0.8, delta, noise, adjacency)
        found = Histogram(scale, noise).curve(adjacency).epsilon(delta)
        assert found == pytest.approx(0.8, rel=2e-3)
        less = Histogram(0.9 * scale, noise).curve(adjacency).epsilon(delta)
        assert less > 0.85


# ----------------------------------------------------------------------- class losses


def test_released_losses_are_the_means_with_noise_of_the_stated_size():
    rng = np.random.default_rng(0)
    classes = 5000
    labels = np.repeat(np.arange(classes), 4)
    own = rng.uniform(0, 3, len(labels))
    counts = Counts((1000.0,) * classes, "public")
    found = release_losses(own + 200, labels, counts, 250.0, 0.1, b"x" * 32)
    assert found.source == "released"
    sums = np.bincount(labels, own + 200)
    assert_normal(1000 * np.array(found.values) - sums, 25.0)


def test_losses_are_cut_to_their_bound_and_stay_in_it():
    counts = Counts((2, 2, 2), "public")
    own = [math.inf, 0.0, -5.0]
    found = release_losses(own, [0, 1, 2], counts, 2.0, 1e-9)
    np.testing.assert_allclose(found.values, [1.0, 0.0, 0.0], atol=1e-6)
    found = release_losses(own, [0, 1, 2], counts, 2.0, 50.0)
    assert all(0 <= value <= 2 for value in found.values)


def test_one_release_of_losses_is_a_gaussian_mechanism():
    for adjacency, changed in ADJACENCIES.items():
        delta = losses_curve(2.0, adjacency).delta(0.5)
        expected = analytic_gaussian(0.5, math.sqrt(changed), 2.0)
        assert delta == pytest.approx(expected, rel=1e-8)


PUBLIC = Counts((1, 1), "public")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Histogram(0.0), "scale = 0.0"),
        (lambda: Histogram(1.0, "uniform"), "noise = 'uniform'"),
        (lambda: Histogram(1.0).curve("zero_out"), "adjacency = 'zero_out'"),
        (lambda: Histogram(1.0).release([0, 5], 3), "labels: from 0 to 5"),
        (lambda: Histogram(1.0).release([0], 2, b"short"), "secret: 5 bytes"),
        (lambda: scale_for(0.0, 1e-5), "epsilon = 0.0"),
        (
            lambda: release_losses([1.0], [0], Counts((1, 1), "data"), 1.0, 1.0),
            "source is 'data'",
        ),
        (lambda: release_losses([1.0], [0, 1], PUBLIC, 1.0, 1.0), r"losses: shape \(1"),
        (lambda: release_losses([math.nan], [0], PUBLIC, 1.0, 1.0), "1 not numbers"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
