"""Poisson batches that overflow their capacity: what that costs."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.privacy import dpsgd
from rpjax.privacy.private_run import PrivateRun

SMALL = {"sampling_probability": 0.05, "steps": 400, "delta": 1e-5}


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


@pytest.mark.parametrize("adjacency", ["add_remove", "replace_one", "zero_out"])
def test_the_fold_is_never_below_the_exact_account_of_cut_batches(adjacency):
    for capacity in (4534, 4676):
        cut = dpsgd.Truncation(50_000, capacity)
        folded, exact, chosen = (
            dpsgd.epsilon(
                *(3.0, 0.08192, 600, 1e-5),
                adjacency=adjacency,
                truncation=cut._replace(account=account),
            )
            for account in ("folded", "exact", "auto")
        )
        # what 600 convolutions by FFT lose, on any processor, is this much of delta
        rounded = 1e-5 + 1e-13
        uncut = dpsgd.epsilon(3.0, 0.08192, 600, rounded, adjacency=adjacency)
        assert uncut <= exact <= folded <= exact + 0.02
        assert chosen in (folded, exact)
        assert chosen <= exact + 1e-3


def test_the_fold_is_taken_where_it_is_free_and_the_exact_event_where_it_is_not():
    def account(capacity, accountant="pld"):
        cut = dpsgd.Truncation(50_000, capacity)
        run = PrivateRun(0.08192, 600, 1e-5, accountant, truncation=cut)
        return run.accounted(3.0).truncation

    assert account(50_001) is None, "nothing is ever cut"
    assert account(4676) == "folded"
    assert account(4500) == "exact"
    assert account(4100) == "exact"
    assert account(4534, "rdp") == "folded", "there is no other"
    with pytest.raises(dpsgd.OverflowTooLikely):
        account(4100, "rdp")


def likelihood_ratio_delta(epsilon, one, other, sigma):
    """Hockey-stick divergence of two mixtures of Gaussians on the line, by quadrature.

    one, other: mean -> probability.
    """
    x = np.linspace(-8 - 9 * sigma, 8 + 9 * sigma, 40_001)

    def density(law):
        return sum(p * scipy.stats.norm.pdf(x, m, sigma) for m, p in law.items())

    excess = density(one) - math.exp(epsilon) * density(other)
    return scipy.integrate.trapezoid(np.maximum(excess, 0.0), x)


def cut_sum(others, q, capacity, own):
    """Law of the sum of a cut batch: others at -1 each, one record at `own`, if any."""
    law = {}
    for sampled in range(others + 1):
        chance = scipy.stats.binom.pmf(sampled, others, q)
        parts = [(1.0, -min(sampled, capacity))]
        if own is not None:
            stays = min(1.0, capacity / (sampled + 1))
            without = -min(sampled, capacity)
            parts = [
                (1 - q + q * (1 - stays), without),
                (q * stays, own - min(sampled, capacity - 1)),
            ]
        for part, total in parts:
            law[total] = law.get(total, 0.0) + chance * part
    return law


@pytest.mark.parametrize("capacity", [2, 4])
def test_the_exact_account_holds_for_a_mechanism_that_is_counted_out(capacity):
    """One step on six records, where a record that comes pushes an opposite one out.

    The Poisson figure, blind to that, is wrong here: the test can tell.
    """
    q, sigma = 0.6, 2.0
    cut = dpsgd.Truncation(6, capacity, "exact")

    def worst(epsilon, neighbours):
        return max(
            likelihood_ratio_delta(epsilon, a, b, sigma)
            for one, other in neighbours
            for a, b in ((one, other), (other, one))
        )

    def law(others, own):
        return cut_sum(others, q, capacity, own)

    # the record is the sixth of six, or comes as the seventh
    come_or_go = [(law(5, 1), law(5, None)), (law(6, 1), law(6, None))]
    emptied = [(law(5, 1), law(5, 0))]
    exchanged = [(law(5, 1), law(5, -1))]
    for delta in (1e-3, 0.05):
        for adjacency, neighbours in (
            ("add_remove", come_or_go),
            ("zero_out", emptied),
            ("replace_one", exchanged),
        ):
            options = {"adjacency": adjacency}
            found = dpsgd.epsilon(sigma, q, 1, delta, **options, truncation=cut)
            assert worst(found, neighbours) <= delta * (1 + 1e-6)
        blind = dpsgd.epsilon(sigma, q, 1, delta)
        assert worst(blind, come_or_go) > 1.05 * delta


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
