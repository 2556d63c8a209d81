"""The one-run bound: known values, its definition, its laws, counting of guesses."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.audits import one_run
from rpjax.errors import InputError

# (canaries, guesses, correct): bounds at (delta, error) = (0, .05), (1e-5, .05) and
# (1e-5, .01)
BOUNDS = {
    (1000, 1000, 1000): (5.809068, 5.782283, 5.315612),
    (1000, 100, 100): (3.492965, 3.465376, 2.989193),
    (1000, 50, 50): (2.784727, 2.756219, 2.269291),
    (1000, 10, 10): (1.051873, 1.014986, 0.429555),
    (1000, 100, 95): (2.172434, 2.165176, 1.917159),
    (1000, 200, 150): (0.821396, 0.819973, 0.711296),
    (1000, 1000, 600): (0.297468, 0.297227, 0.253051),
    (1000, 1000, 500): (0, 0, 0),
    (1000, 100, 60): (0.051915, 0.049549, 0),
    (5000, 500, 450): (1.947138, 1.941420, 1.834290),
    (5000, 1000, 700): (0.732011, 0.730647, 0.681290),
    (100_000, 1500, 1429): (2.799196, 2.668754, 1.665273),
}


@pytest.mark.parametrize("counts", BOUNDS)
def test_the_bound_has_its_known_values(counts):
    settings_ = [(0.0, 0.95), (1e-5, 0.95), (1e-5, 0.99)]
    found = [one_run.epsilon_lower_bound(*counts, *at) for at in settings_]
    assert found == pytest.approx(BOUNDS[counts], abs=1e-6)


@pytest.mark.parametrize(
    ("counts", "epsilon", "delta", "expected"),
    [
        ((1000, 100, 95), 2.0, 0.0, 0.0161018),
        ((1000, 100, 95), 2.0, 1e-5, 0.0178246),
        ((1000, 1000, 600), 0.3, 1e-5, 0.0545983),
        ((1000, 100, 100), 3.0, 1e-5, 0.0104113),
    ],
)
def test_the_p_value_has_its_known_values(counts, epsilon, delta, expected):
    assert one_run.p_value(*counts, epsilon, delta) == pytest.approx(expected, abs=6e-8)


@pytest.mark.parametrize(
    ("guesses", "ceiling"),
    [
        (100, 3.493),
        (500, 5.114),
        (1000, 5.809),
        (4000, 7.196),
        (8000, 7.890),
        (16_000, 8.583),
        (32_000, 9.276),
    ],
)
def test_guesses_that_are_all_right_reach_the_ceiling(guesses, ceiling):
    found = one_run.epsilon_lower_bound(guesses, guesses, guesses, 0.0)
    assert found == pytest.approx(ceiling, abs=6e-4)
    assert found == pytest.approx(scipy.special.logit(0.05 ** (1 / guesses)))


def by_definition(m, r, v, epsilon, delta):
    """Theorem 5.2 of arXiv 2305.08846 as it stands, with scipy's binomial tail."""
    f = lambda j: scipy.stats.binom.sf(j - 1, r, 1 / (1 + math.exp(-epsilon)))
    steepest = max((f(v - i) - f(v)) / i for i in range(1, v + 1))
    return min(1.0, f(v) + 2 * m * delta * steepest)


@pytest.mark.parametrize("counts", [(50, 20, 17), (50, 50, 30), (9, 1, 1), (60, 40, 3)])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3, 0.02])
@pytest.mark.parametrize("epsilon", [0.0, 0.4, 3.0, 20.0])
def test_the_p_value_is_that_of_its_definition(counts, epsilon, delta):
    found = one_run.p_value(*counts, epsilon, delta)
    assert found == pytest.approx(by_definition(*counts, epsilon, delta), rel=1e-9)


@pytest.mark.parametrize("counts", [(200, 100, 90), (1000, 1000, 650), (10, 10, 10)])
@pytest.mark.parametrize("delta", [0.0, 1e-9, 1e-4])
def test_the_bound_is_where_the_p_value_passes_the_error(counts, delta):
    bound = one_run.epsilon_lower_bound(*counts, delta, 0.9)
    assert one_run.p_value(*counts, bound, delta) == pytest.approx(0.1)


def test_a_hundred_thousand_guesses_are_no_trouble():
    found = one_run.epsilon_lower_bound(100_000, 100_000, 60_000, 1e-6)
    exact = one_run.epsilon_lower_bound(100_000, 100_000, 60_000, 0.0)
    assert 0.39 < found < exact < math.log(0.6 / 0.4)


# ------------------------------------------------------------------------------- laws

cases = st.tuples(st.integers(1, 400), st.floats(0, 1), st.integers(0, 400)).map(
    lambda t: (t[0] + t[2], t[0], 1 + round(t[1] * (t[0] - 1)))
)
deltas = st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.05])
errors = st.floats(1e-4, 0.4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases, deltas, errors, st.integers(0, 20), st.floats(0, 0.5))
def test_the_bound_is_monotone_and_below_its_ceiling(case, delta, error, more, doubt):
    m, r, v = case
    bound = one_run.epsilon_lower_bound(m, r, v, delta, 1 - error)
    assert 0 <= bound <= max(0, scipy.special.logit(error ** (1 / r))) + 1e-9
    better = min(v + more, r)
    assert one_run.epsilon_lower_bound(m, r, better, delta, 1 - error) >= bound - 1e-9
    surer = one_run.epsilon_lower_bound(m, r, v, delta, 1 - error * (1 - doubt))
    assert surer <= bound + 1e-9
    wider = one_run.epsilon_lower_bound(m + more, r, v, delta, 1 - error)
    assert wider <= bound + 1e-9
    if delta == 0:
        assert wider == bound


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases, deltas, st.floats(0, 8), st.floats(0, 2))
def test_the_p_value_grows_with_epsilon_and_with_delta(case, delta, epsilon, more):
    m, r, v = case
    p = one_run.p_value(m, r, v, epsilon, delta)
    assert 0 <= p <= 1
    assert one_run.p_value(m, r, v, epsilon + more, delta) >= p - 1e-12
    assert one_run.p_value(m, r, v, epsilon, delta + 1e-4) >= p


# ------------------------------------------------------------------------ the guesses


def test_high_scores_are_guessed_in_and_low_ones_out():
    scores = np.array([[5.0, 1.0, 4.0], [2.0, 3.0, 0.0]])
    inside = np.array([[True, True, False], [False, True, False]])
    right = lambda up, down: one_run.correct_guesses(scores, inside, up, down, seed=0)
    # by score: 5 in, 4 out, 3 in, 2 out, 1 in, 0 out
    assert [right(k, 0) for k in range(7)] == [0, 1, 1, 2, 2, 3, 3]
    assert [right(0, k) for k in range(7)] == [0, 1, 1, 2, 2, 3, 3]
    assert right(1, 1) == 2
    assert right(3, 3) == 4


def test_ties_are_broken_at_random_and_not_by_position():
    inside = np.arange(1000) < 500
    found = [one_run.correct_guesses(np.zeros(1000), inside, 200, 0, s) for s in (1, 2)]
    # 200 of 1,000 without replacement: 100 with a deviation of 6.3
    assert all(70 < right < 130 for right in found)
    again = one_run.correct_guesses(np.zeros(1000), inside, 200, 0, 1)
    assert again == found[0] != found[1]


def test_nothing_guessed_or_nothing_right_refutes_nothing():
    assert one_run.epsilon_lower_bound(10, 0, 0, 1e-5) == 0
    assert one_run.epsilon_lower_bound(10, 5, 0, 1e-5) == 0
    assert one_run.p_value(10, 5, 0, 0.0, 1e-5) == 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: one_run.p_value(0, 0, 0, 1.0, 0.0), "canaries"),
        (lambda: one_run.p_value(5, 6, 3, 1.0, 0.0), "guesses"),
        (lambda: one_run.p_value(5, 4, 5, 1.0, 0.0), "correct"),
        (lambda: one_run.p_value(5, 4, 3, -1.0, 0.0), "epsilon"),
        (lambda: one_run.p_value(5, 4, 3, 1.0, 1.0), "delta"),
        (lambda: one_run.epsilon_lower_bound(5, 4, 3, 0.0, 1.0), "confidence"),
        (lambda: one_run.correct_guesses([1.0, 2.0], [1, 0], 2, 1, 0), "guess_in"),
        (lambda: one_run.correct_guesses([1.0, 2.0], [1], 1, 0, 0), "scores"),
        (lambda: one_run.correct_guesses([math.nan, 2.0], [1, 0], 1, 0, 0), "scores"),
    ],
)
def test_bad_input_is_refused_in_a_line_that_names_the_field(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
