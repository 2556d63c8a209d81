"""Amplification by shuffling against enumeration, real mechanisms and the tables."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.errors import InputError
from rpjax.privacy import Gaussian, gdp, shuffling
from rpjax.privacy.shuffling import Clones, ShuffledGaussian, closed_form_epsilon

# n, epsilon_0, first form, the code's form, at delta 1e-6
CLOSED_FORMS = [
    (50_000, 1, 0.101185, 0.106276),
    (50_000, 2, 0.254396, 0.261996),
    (50_000, 4, 0.694180, 0.698800),
    (5_000, 1, 0.291248, 0.323126),
    (5_000, 2, 0.653478, 0.686439),
    (1_000, 1, 0.566201, 0.649538),
]

# n, pi / R, epsilon_0 at delta_0 = 1e-7 / n, epsilon of a pass, what delta grows by
GAUSSIANS = [
    (50_000, 2, 7.139, 7.139, 1.3e-4),
    (50_000, 5, 2.687, 0.3842, 2.6e-7),
    (50_000, 10, 1.304, 0.1430, 2.4e-7),
    (50_000, 20, 0.637, 0.0575, 2.6e-7),
    (5_000, 5, 2.548, 0.8609, 3.5e-7),
    (5_000, 10, 1.233, 0.3726, 2.8e-7),
    (5_000, 20, 0.601, 0.1609, 2.8e-7),
]


def hockey_stick(first, second, epsilon):
    """Sum of p - e^epsilon q where positive, of two laws as dictionaries."""
    scale = math.exp(epsilon)
    return sum(max(0.0, p - scale * second.get(at, 0.0)) for at, p in first.items())


def clones(local_epsilon, records):
    """Both laws of the clones, by adding up every outcome of C, A and D."""
    hidden, likely = math.exp(-local_epsilon), 1 / (1 + math.exp(-local_epsilon))
    laws = {}, {}
    for c in range(records):
        count = scipy.stats.binom.pmf(c, records - 1, hidden)
        for a, (d, chance) in itertools.product(
            range(c + 1), ((1, likely), (0, 1 - likely))
        ):
            mass = count * math.comb(c, a) / 2**c * chance
            for law, at in zip(
                laws, ((a + d, c - a + 1 - d), (a + 1 - d, c - a + d)), strict=True
            ):
                law[at] = law.get(at, 0.0) + mass
    return laws


def shuffled_response(local_epsilon, values, kinds):
    """Law of the counts of all answers when K-ary randomised response is shuffled."""
    kept = math.exp(local_epsilon) / (math.exp(local_epsilon) + kinds - 1)
    law = {(0,) * kinds: 1.0}
    for value in values:
        after = {}
        for counts, mass in law.items():
            for answer in range(kinds):
                chance = kept if answer == value else (1 - kept) / (kinds - 1)
                at = tuple(n + (i == answer) for i, n in enumerate(counts))
                after[at] = after.get(at, 0.0) + mass * chance
        law = after
    return law


# ---------------------------------------------------------------------- the clones


@pytest.mark.parametrize("records", [1, 2, 3, 5, 6, 40])
@pytest.mark.parametrize("local_epsilon", [0.1, 1.0, 3.0])
def test_delta_is_that_of_all_outcomes_added_up(records, local_epsilon):
    first, second = clones(local_epsilon, records)
    curve = Clones(local_epsilon, records)
    for share in (0.0, 0.05, 0.3, 0.9):
        epsilon = share * local_epsilon
        expected = hockey_stick(first, second, epsilon)
        assert hockey_stick(second, first, epsilon) == pytest.approx(expected)
        found = curve.delta(epsilon)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert found >= expected * (1 - 1e-12)
    assert curve.delta(local_epsilon) == 0.0


def test_all_counts_that_matter_are_summed_and_the_others_are_added():
    local_epsilon, records = 0.7, 20_000
    curve = Clones(local_epsilon, records)
    counts, weights, outside = curve._window
    assert len(counts) < records / 4
    assert outside < 1e-15
    assert weights.sum() + outside >= 1 - 1e-12
    # the sum over all counts, in place of those in the window
    everything = np.arange(records, dtype=float)
    law = scipy.stats.binom(records - 1, math.exp(-local_epsilon))
    for epsilon in (0.0, 0.02, 0.04):
        full = curve._given(np.array([[epsilon]]), everything) @ law.pmf(everything)
        assert full[0] <= curve.delta(epsilon) <= full[0] * (1 + 1e-9) + 1e-15


def test_what_is_left_out_of_the_sum_is_not_left_out_of_the_bound(monkeypatch):
    full = Clones(1.0, 2_000).delta(0.15)
    monkeypatch.setattr(shuffling, "SPREAD", 1.0)
    narrow = Clones(1.0, 2_000)
    assert narrow._window[2] > 0.2
    assert full < narrow.delta(0.15) < full + narrow._window[2]


@pytest.mark.parametrize(("records", "kinds"), [(4, 2), (30, 2), (6, 3)])
@pytest.mark.parametrize("local_epsilon", [0.5, 2.0])
def test_shuffled_randomised_response_stays_below_the_bound(
    records, kinds, local_epsilon
):
    curve = Clones(local_epsilon, records)
    # the others all say 0, or are spread over the answers
    for others in ([0] * (records - 1), [i % kinds for i in range(records - 1)]):
        for first, second in ((0, 1), (1, 0)):
            laws = [
                shuffled_response(local_epsilon, [own, *others], kinds)
                for own in (first, second)
            ]
            for epsilon in (0.0, 0.1, 0.4, 1.2):
                assert hockey_stick(*laws, epsilon) <= curve.delta(epsilon) + 1e-14


def test_alone_it_is_randomised_response():
    curve = Clones(2.0, 1)
    likely = 1 / (1 + math.exp(-2.0))
    for epsilon in (0.0, 0.7, 1.9):
        expected = likely - math.exp(epsilon) * (1 - likely)
        assert curve.delta(epsilon) == pytest.approx(expected, rel=1e-9)
    assert curve.epsilon(0.0) == 2.0
    assert Clones(0.0, 50).delta(0.0) == 0.0
    # so strong a randomiser says all, and e^epsilon_0 is beyond the floats
    assert Clones(800.0, 50).delta(700.0) == pytest.approx(1.0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    local_epsilon=st.floats(0.01, 8.0),
    records=st.integers(1, 20_000),
    share=st.floats(0.0, 1.0),
    delta=st.floats(1e-10, 1e-2),
)
def test_more_records_help_and_more_revealing_ones_hurt(
    local_epsilon, records, share, delta
):
    curve, epsilon = Clones(local_epsilon, records), share * local_epsilon
    here = curve.delta(epsilon)
    slack = 1 + 1e-10
    assert Clones(local_epsilon, records + 1 + records // 9).delta(epsilon) <= (
        here * slack + 1e-15
    )
    assert Clones(1.1 * local_epsilon, records).delta(epsilon) * slack >= here - 1e-15
    assert curve.delta(epsilon + 0.01) <= here * slack
    found = curve.epsilon(delta)
    assert curve.delta(found) <= delta
    assert found <= local_epsilon
    assert curve.epsilon(delta / 2) >= found
    for form in ("first", "code"):
        assert found <= closed_form_epsilon(local_epsilon, records, delta, form) + 1e-9


# ------------------------------------------------------------------ the closed forms


@pytest.mark.parametrize(("records", "local_epsilon", "first", "code"), CLOSED_FORMS)
def test_both_closed_forms_match_the_table(records, local_epsilon, first, code):
    found = [
        closed_form_epsilon(local_epsilon, records, 1e-6, form)
        for form in ("first", "code", "larger")
    ]
    assert found == pytest.approx([first, code, code], abs=5.1e-7)


def test_outside_its_range_a_closed_form_amplifies_nothing():
    for form, inside in (("first", 2), ("code", 4), ("larger", 4)):
        edge = math.log(50_000 / (16 * math.log(inside / 1e-6)))
        below = closed_form_epsilon(edge - 1e-9, 50_000, 1e-6, form)
        assert below < 0.6 * edge
        above = edge + 1e-9
        assert closed_form_epsilon(above, 50_000, 1e-6, form) == above
    # nor where the form would be above epsilon_0
    assert closed_form_epsilon(0.01, 300, 1e-6) == 0.01


# ------------------------------------------------------------------- Gaussian copies


@pytest.mark.parametrize(("records", "ratio", "local", "once", "grown"), GAUSSIANS)
def test_gaussian_copies_match_the_table(records, ratio, local, once, grown):
    local_delta = 1e-7 / records
    local_epsilon = gdp.epsilon(local_delta, 2 / ratio)
    assert local_epsilon == pytest.approx(local, abs=5.1e-4)
    epsilon = closed_form_epsilon(local_epsilon, records, 1e-6, "first")
    assert epsilon == pytest.approx(once, abs=5.1e-4 if once > 1 else 5.1e-5)
    apart = shuffling.distance(local_epsilon, local_delta, records)
    # two digits
    assert f"{(math.exp(epsilon) + 1) * apart:.1e}" == f"{grown:.1e}"


def test_a_pass_is_the_clones_and_the_distance_or_the_known_order():
    curve = ShuffledGaussian(0.3, 2_000, 1e-11)
    local = gdp.epsilon(1e-11, 0.3)
    once = Clones(local, 2_000)
    apart = (1 + math.exp(-local) / 2) * 2_000 * 1e-11
    for epsilon in (0.02, 0.1):
        expected = once.delta(epsilon) + (math.exp(epsilon) + 1) * apart
        assert curve.delta(epsilon) == pytest.approx(expected, rel=1e-12)
    # at a large epsilon the noise alone says more than the clones
    assert curve.delta(3.0) == gdp.delta(3.0, 0.3)
    # and in between the distance counts with the least e^epsilon that will do
    assert curve.delta(0.9) <= 4 * apart < gdp.delta(0.9, 0.3)
    assert curve.delta(1.1) <= curve.delta(0.9)


def test_shuffled_gaussians_are_told_apart_less_than_the_bound_says():
    # The exact likelihood ratio of a shuffled pass of scalars, one record at +1/2 or
    # -1/2 and the others at +-1/2: a mean over places. delta is estimated by
    # E max(0, 1 - e^(epsilon - loss)) from 20,000 passes; five standard errors are
    # exceeded with a probability below 1e-6 for each of the four.
    rng = np.random.default_rng(0)
    mu, records, passes = 0.5, 40, 20_000
    others = np.where(np.arange(records - 1) % 2 == 0, 0.5, -0.5)
    values = np.concatenate([[0.5], others]) * mu
    outputs = values + rng.normal(size=(passes, records))
    # of unordered outputs: the symmetric functions of exp(mu y), one factor each
    ratio = np.exp(mu * outputs)
    ups = elementary(ratio)
    plus = records // 2  # of the others at +1/2
    # exp(mu y) to the +1/2 records, normalised by their number of choices
    first = ups[:, plus + 1] / math.comb(records, plus + 1)
    second = ups[:, plus] / math.comb(records, plus)
    loss = np.log(first / second)
    curve = shuffling.shuffled_gaussian(mu, records, delta=1e-3)
    for epsilon in (0.0, 0.1, 0.3, 0.6):
        gains = -np.expm1(np.minimum(epsilon - loss, 0.0))
        error = gains.std() / math.sqrt(passes)
        assert gains.mean() <= curve.delta(epsilon) + 5 * error


def elementary(values):
    """Elementary symmetric polynomials of each row, degrees 0 to n."""
    rows, n = values.shape
    found = np.zeros((rows, n + 1))
    found[:, 0] = 1
    for i in range(n):
        found[:, 1:] += values[:, i : i + 1] * found[:, :-1].copy()
    return found


def test_passes_compose():
    # the product of the clones with themselves, by enumeration
    mu, local_delta = 0.2, 1e-9
    local = gdp.epsilon(local_delta, mu)
    law = clones(local, 5)
    twice = [
        {(a, b): p * q for (a, p), (b, q) in itertools.product(w.items(), repeat=2)}
        for w in law
    ]
    apart = 2 * shuffling.distance(local, local_delta, 5)
    curve = ShuffledGaussian(mu, 5, local_delta, epochs=2)
    for epsilon in (0.1, 0.5):
        exact = hockey_stick(*twice, epsilon) + (math.exp(epsilon) + 1) * apart
        known = gdp.delta(epsilon, mu * math.sqrt(2))
        assert curve._shuffled(np.float64(epsilon)) >= exact * (1 - 1e-9)
        assert curve._shuffled(np.float64(epsilon)) <= exact * 1.01
        assert curve.delta(epsilon) <= known


def test_the_chosen_local_delta_is_better_than_others():
    best = shuffling.best_local_delta(0.3, 3_000, 1, 1e-5)
    epsilon = ShuffledGaussian(0.3, 3_000, best).epsilon(1e-5)
    for factor in (1e-3, 0.1, 10):
        other = ShuffledGaussian(0.3, 3_000, factor * best).epsilon(1e-5)
        assert other > epsilon
    assert epsilon < 0.3 * Gaussian(0.3).epsilon(1e-5)


def test_more_epochs_and_smaller_classes_cost_more_and_never_above_a_known_order():
    def epsilon(records, epochs):
        return ShuffledGaussian(0.3, records, 1e-11, epochs).epsilon(1e-5)

    assert epsilon(3_000, 1) < epsilon(3_000, 4) < epsilon(3_000, 16)
    assert epsilon(3_000, 4) < epsilon(300, 4)
    for records in (2, 300):
        assert epsilon(records, 4) <= gdp.epsilon(1e-5, 0.6) * (1 + 1e-12)


@pytest.mark.parametrize(("records", "epochs"), [(500, 1), (100, 2)])
def test_the_least_noise_meets_its_target_and_less_does_not(records, epochs):
    noise = shuffling.input_noise_for(
        1.0, 1e-5, diameter=2.0, records=records, epochs=epochs
    )

    def delta(noise):
        return shuffling.shuffled_gaussian(2.0 / noise, records, epochs).delta(1.0)

    assert delta(noise) <= 1e-5 < delta(0.995 * noise)
    assert noise < 0.9 * 2.0 * math.sqrt(epochs) / gdp.mu_from(1.0, 1e-5)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: Clones(-1.0, 5), "local_epsilon"),
        (lambda: Clones(1.0, 0), "records"),
        (lambda: ShuffledGaussian(0.0, 5, 1e-9), "mu"),
        (lambda: ShuffledGaussian(1.0, 5, 0.0), "local_delta"),
        (lambda: ShuffledGaussian(1.0, 5, 1e-9, 0), "epochs"),
        (lambda: closed_form_epsilon(1.0, 5, 0.0), "delta"),
        (lambda: shuffling.distance(1.0, 1.0, 5), "local_delta"),
        (lambda: shuffling.input_noise_for(0, 0.1, diameter=1, records=5), "epsilon"),
    ],
)
def test_impossible_settings_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field} = "):
        call()
