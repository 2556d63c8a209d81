"""Accountants of residual perturbation as curves, DP-SGD's beside them, an audit."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.errors import InputError
from rpjax.intervals import clopper_pearson
from rpjax.perturbations import noisy_input
from rpjax.privacy import dpsgd, gdp, participation, theorem
from rpjax.privacy.couplings import Coupled, Worst
from rpjax.privacy.curves import Gaussian, Numerical, Point, Renyi
from rpjax.privacy.residual import NoisyInputs

uses = st.fixed_dictionaries(
    {
        "participations": st.integers(1, 4),
        "draw": st.sampled_from(["step", "record"]),
        "copies": st.integers(1, 3),
        "members": st.integers(1, 3),
        "noise_per_member": st.sampled_from(["own", "shared"]),
        "records_per_member": st.sampled_from(["same", "disjoint"]),
        "group": st.integers(1, 3),
    }
)

# ------------------------------------------------------------------- exact variants


def seen(inputs):
    """What everyone sees of the records replaced: each noisy copy's name of its noise.

    Two copies of the same name are the same numbers.
    """
    for record, member, time, copy in itertools.product(
        range(inputs.group),
        range(inputs.members),
        range(inputs.participations),
        range(inputs.copies),
    ):
        if inputs.records_per_member == "disjoint" and member != record % 2:
            continue
        when = time if inputs.draw == "step" else None
        whose = member if inputs.noise_per_member == "own" else None
        yield record, whose, when, copy


@given(uses, st.floats(0.1, 5), st.floats(0.1, 5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_mu_is_the_distance_of_all_that_is_seen_in_units_of_its_covariance(
    how, diameter, noise
):
    if how["records_per_member"] == "disjoint":
        how = {**how, "members": max(2, how["members"])}
    inputs = NoisyInputs(diameter, **how)
    names = list(seen(inputs))
    covariance = noise**2 * np.array([[a == b for b in names] for a in names])
    shift = np.full(len(names), diameter)
    expected = math.sqrt(shift @ np.linalg.pinv(covariance, rcond=1e-9) @ shift)
    assert inputs.curve(noise).mu == pytest.approx(expected, rel=1e-9)


@given(uses, st.floats(0.05, 100), st.floats(1e-12, 0.3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_noise_for_a_target_meets_it_and_a_little_less_does_not(how, epsilon, delta):
    inputs = NoisyInputs(3.0, **how)
    noise = inputs.noise_for(epsilon, delta)
    assert inputs.curve(noise).epsilon(delta) <= epsilon
    assert inputs.curve(0.999 * noise).epsilon(delta) > epsilon


@given(uses, st.floats(0.2, 50), st.floats(1e-12, 0.01))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_more_noise_a_larger_delta_and_fewer_copies_all_help(how, noise, delta):
    base = NoisyInputs(2.0, **how).curve(noise)
    assert NoisyInputs(2.0, **how).curve(1.1 * noise).epsilon(delta) < base.epsilon(
        delta
    )
    assert base.epsilon(2 * delta) < base.epsilon(delta)
    for count in ("participations", "copies", "members", "group"):
        more = NoisyInputs(2.0, **{**how, count: how[count] + 1}).curve(noise)
        assert more.epsilon(delta) >= base.epsilon(delta)
        assert float(more.tpr(0.01)) >= float(base.tpr(0.01))


@given(st.integers(1, 500), st.floats(0.5, 50), st.floats(1e-10, 0.01))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_exact_curve_is_never_above_the_theorem_as_recalled(times, noise, delta):
    exact = NoisyInputs(2.0, participations=times).curve(noise)
    recalled = theorem.curve(noise, 1.0, times)
    assert exact.epsilon(delta) < recalled.epsilon(delta)
    epsilon = recalled.epsilon(delta)
    assert exact.delta(epsilon) < recalled.delta(epsilon)
    rates = np.array([1e-6, 1e-3, 0.1])
    assert (exact.tpr(rates) <= recalled.tpr(rates) + 1e-12).all()


@given(st.integers(1, 500), st.floats(0.5, 50), st.floats(1e-10, 0.01))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_recalled_curve_is_mironovs_conversion_at_the_best_order(
    times, noise, delta
):
    orders = 1 + np.geomspace(1e-6, 1e6, 20_001)
    divergences = times * orders * (2 / noise) ** 2 / 2
    expected = (divergences - math.log(delta) / (orders - 1)).min()
    curve = theorem.curve(noise, 1.0, times)
    found = curve.epsilon(delta)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found <= expected
    # and the same statement as the theorem's condition on the noise
    assert theorem.noise_for(found, delta, 1.0, times) == pytest.approx(noise)
    assert curve.delta(found) == pytest.approx(delta, rel=1e-9, abs=0)


# --------------------------------------------------------------------- participation


@pytest.mark.parametrize("setting", [(0.1, 5000, 0.01), (0.02, 20_000, 0.4)])
@pytest.mark.parametrize("epsilon", [0.0, 2.0, 5.0])
def test_counts_that_are_left_out_only_raise_the_mean_over_counts(setting, epsilon):
    mu, steps, q = setting
    k = np.arange(steps + 1)
    deltas = gdp.delta(epsilon, mu * np.sqrt(k))
    expected = scipy.stats.binom.pmf(k, steps, q) @ deltas
    curve = participation.poisson(mu, steps, q)
    assert expected * (1 - 1e-10) <= curve.delta(epsilon) <= expected * (1 + 1e-6)
    assert len(curve.parts) < 3500
    # fewer counts than the first are taken for it
    least = round((curve.parts[0].mu / mu) ** 2)
    first = scipy.stats.binom.cdf(least, steps, q)
    assert curve.weights[0] == pytest.approx(first, rel=1e-9, abs=0)


def test_nothing_is_assumed_of_counts_that_are_never_seen():
    curve = participation.poisson(1.0, 2000, 0.01)
    most = len(curve.parts) - 2
    left = scipy.stats.binom.sf(most, 2000, 0.01)
    # no count that is kept is found out at such an epsilon
    assert curve.delta(1e9) == pytest.approx(left, rel=1e-9, abs=0)
    assert 0 < left < 1e-30


@pytest.mark.parametrize("fpr", [2e-3, 0.05])
def test_an_attacker_who_sees_the_counts_reaches_their_tpr_and_no_more(fpr):
    """Likelihood ratios of a simulated run, with the count in sight.

    A million runs on each side: the threshold's rate is known to 3 standard errors, and
    the chance that this test fails for a right curve is below 1 %.
    """
    mu, steps, q, runs = 0.8, 12, 0.3, 1_000_000
    rng = np.random.default_rng(7)
    ratios = []
    for side in (0, 1):
        k = rng.binomial(steps, q, runs)
        shift = mu * np.sqrt(k)
        score = rng.normal(size=runs) + side * shift
        ratios += [shift * score - shift**2 / 2]
    threshold = np.quantile(ratios[0], 1 - fpr)
    false, true = ((side > threshold).mean() for side in ratios)
    curve = participation.poisson(mu, steps, q)
    errors = [3 * math.sqrt(rate * (1 - rate) / runs) for rate in (fpr, true)]
    assert float(curve.tpr(false - errors[0])) < true + errors[1]
    assert float(curve.tpr(false + errors[0])) > true - errors[1]
    # an attacker who spent the same false positives on every count would find less
    shares = scipy.stats.binom.pmf(np.arange(steps + 1), steps, q)
    even = shares @ [gdp.tpr(fpr, mu * math.sqrt(k)) for k in range(steps + 1)]
    assert true - errors[1] > even


def test_members_with_coins_of_their_own_are_as_many_more_steps():
    assert participation.poisson(0.3, 20, 0.1, members=3) == participation.poisson(
        0.3, 60, 0.1
    )


@given(
    st.floats(0.05, 1),
    st.integers(2, 40),
    st.floats(0.05, 0.9),
    st.sampled_from([1e-7, 1e-4, 0.01]),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_more_noise_fewer_steps_and_rarer_use_all_help(mu, steps, q, delta):
    base = participation.poisson(mu, steps, q).epsilon(delta)
    assert participation.poisson(0.9 * mu, steps, q).epsilon(delta) <= base
    assert participation.poisson(mu, steps - 1, q).epsilon(delta) <= base
    assert participation.poisson(mu, steps, 0.9 * q).epsilon(delta) <= base
    assert participation.poisson(mu, steps, q).epsilon(3 * delta) <= base
    if base > 0:
        assert participation.poisson(0.9 * mu, steps, q).epsilon(delta) < base


def test_noise_for_poisson_participation_meets_its_target():
    noise = participation.poisson_noise_for(4.0, 1e-5, 2.0, 500, 0.1)
    reached = participation.poisson(2.0 / noise, 500, 0.1).epsilon(1e-5)
    assert reached == pytest.approx(4.0, rel=1e-8)
    assert reached <= 4.0
    # more than for fifty participations that are certain
    assert noise > NoisyInputs(2.0, participations=50).noise_for(4.0, 1e-5)


# ---------------------------------------------------------------------------- DP-SGD

RUN = {"noise_multiplier": 1.5, "sampling_probability": 0.05, "steps": 200}


@pytest.mark.parametrize("adjacency", ["add_remove", "zero_out", "replace_one"])
def test_the_curve_of_dpsgd_is_its_epsilon_at_every_delta(adjacency):
    curve = dpsgd.curve(**RUN, adjacency=adjacency)
    assert isinstance(curve, Numerical)
    for delta in (1e-7, 1e-5, 1e-3):
        expected = dpsgd.epsilon(**RUN, delta=delta, adjacency=adjacency)
        assert curve.epsilon(delta) == pytest.approx(expected, rel=2e-3)


def test_other_accounts_of_dpsgd_are_curves_too():
    renyi = dpsgd.curve(**RUN, accountant="rdp")
    assert isinstance(renyi, Renyi)
    expected = dpsgd.epsilon(**RUN, delta=1e-5, accountant="rdp")
    assert renyi.epsilon(1e-5) == pytest.approx(expected, rel=1e-12)
    epochs = {"adjacency": "zero_out", "sampling": "shuffled", "members": 2}
    assert dpsgd.curve(**RUN, **epochs) == Gaussian(math.sqrt(20) / 1.5)
    by_renyi = dpsgd.curve(**RUN, **epochs, accountant="rdp")
    expected = dpsgd.epsilon(**RUN, **epochs, delta=1e-5, accountant="rdp")
    assert by_renyi.epsilon(1e-5) == pytest.approx(expected, rel=1e-12)
    assert dpsgd.curve(0.0, 0.05, 200) == Point(0.0, 1.0)


def test_what_cut_batches_cost_is_in_the_curve():
    folded = dpsgd.curve(**RUN, overflow_probability=1e-12)
    assert isinstance(folded, Coupled)
    expected = dpsgd.epsilon(**RUN, delta=1e-5, overflow_probability=1e-12)
    assert folded.epsilon(1e-5) == pytest.approx(expected, abs=2e-5)
    roomy = dpsgd.Truncation(records=400, capacity=55, account="folded")
    paid = dpsgd.curve(**RUN, truncation=roomy)
    assert isinstance(paid, Coupled)
    chance = dpsgd.overflow_probability(401, 0.05, 55)
    assert paid.distance == pytest.approx(200 * chance, rel=1e-9, abs=0)
    expected = dpsgd.epsilon(**RUN, delta=1e-5, truncation=roomy)
    assert paid.epsilon(1e-5) == pytest.approx(expected, abs=2e-5)
    hopeless = dpsgd.curve(**RUN, overflow_probability=0.1)
    assert hopeless == Point(0.0, 1.0)
    cut = dpsgd.Truncation(records=400, capacity=24, account="exact")
    exact = dpsgd.curve(**RUN, truncation=cut)
    assert isinstance(exact, Worst)
    expected = dpsgd.epsilon(**RUN, delta=1e-5, truncation=cut)
    assert exact.epsilon(1e-5) == pytest.approx(expected, rel=1e-6)


# ----------------------------------------------------------------------------- audit

REPETITIONS, TRIALS, TIMES = 100, 4000, 4
NOISE, BOUND = 2.0, 0.5
SIZES = (250, 1000, 4000)


@functools.partial(jax.jit, static_argnames="scale")
def scores(keys, image, scale):
    """Log likelihood ratio of x against -x from the noisy copies of `image`, (trials,).

    keys: (trials, times), one for each copy; up to a factor.
    """
    copies = jnp.broadcast_to(image, (keys.size, *image.shape))
    noisy = noisy_input(keys.reshape(-1), copies, scale, BOUND)
    along = jnp.einsum("nhwc,hwc->n", noisy, AUDITED)
    return along.reshape(keys.shape).sum(axis=1)


# longer than the bound, so that clipping is part of what is audited: 2 BOUND apart
AUDITED = np.float32([[[1.0], [-1.0]], [[1.0], [1.0]]])


def found(scale):
    """Scores at x and at -x, (repetitions, trials) each, of seeded runs."""
    sides = []
    for number, side in enumerate((AUDITED, -AUDITED)):
        image = jnp.asarray(side)
        rows = []
        for repetition in range(REPETITIONS):
            key = jax.random.fold_in(jax.random.key(number), repetition)
            rows += [scores(jax.random.split(key, (TRIALS, TIMES)), image, scale)]
        sides += [np.asarray(jnp.stack(rows), dtype=np.float64)]
    return sides


@pytest.fixture(scope="module")
def right():
    return found(NOISE)


def bounds(sides, trials, repetition):
    """Mu by the threshold 0, fixed beforehand: the estimate, and a 95 % lower bound.

    The bound takes the lower end for the true positives and the upper end for the false
    ones; each end is wrong with probability 2.5 % at most, so both are right together
    with 95 % at least.
    """
    true, false = (int((side[repetition, :trials] > 0).sum()) for side in sides)
    hits, alarms = clopper_pearson(true, trials), clopper_pearson(false, trials)
    low = scipy.stats.norm.ppf(hits.low) - scipy.stats.norm.ppf(alarms.high)
    value = scipy.stats.norm.ppf(hits.value) - scipy.stats.norm.ppf(alarms.value)
    return value, low


def most_often(error_rate):
    """How often of a hundred is exceeded with a probability below one in a thousand."""
    return int(scipy.stats.binom.isf(1e-3, REPETITIONS, error_rate))


AUDITED_MU = NoisyInputs(2 * BOUND, participations=TIMES).curve(NOISE).mu


@pytest.mark.parametrize("trials", SIZES)
def test_an_audits_lower_bound_exceeds_mu_no_more_often_than_it_may(right, trials):
    """False alarm of this test: below 1e-3 for each number of trials."""
    above = [bounds(right, trials, r)[1] > AUDITED_MU for r in range(REPETITIONS)]
    assert sum(above) <= most_often(0.05)


def test_audits_of_too_little_noise_are_caught():
    """The power of the test above: noise that is a tenth too small fails it."""
    less = found(0.9 * NOISE)
    above = [bounds(less, TRIALS, r)[1] > AUDITED_MU for r in range(REPETITIONS)]
    assert sum(above) > most_often(0.05)


def test_the_bound_approaches_mu_from_below_and_the_estimate_hits_it(right):
    """Means over a hundred repetitions, to four standard errors: failure below 1e-4."""
    means = []
    for trials in SIZES:
        values, lows = np.array(
            [bounds(right, trials, r) for r in range(REPETITIONS)]
        ).T
        error = values.std(ddof=1) / math.sqrt(REPETITIONS)
        # the estimate's own bias is of the order of 1 / trials
        assert abs(values.mean() - AUDITED_MU) < 4 * error + 1 / trials
        means += [lows.mean()]
    assert means[0] < means[1] < means[2] < AUDITED_MU
    # half of the interval: two ends at once, each 1.96 standard errors and a little
    rate = scipy.stats.norm.cdf(AUDITED_MU / 2)
    density = scipy.stats.norm.pdf(AUDITED_MU / 2)
    for trials, mean in zip(SIZES, means, strict=True):
        width = 2 * 1.96 * math.sqrt(rate * (1 - rate) / trials) / density
        assert AUDITED_MU - mean == pytest.approx(width, rel=0.15)


# -------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: NoisyInputs(0.0), "diameter"),
        (lambda: NoisyInputs(1.0, copies=0), "copies"),
        (lambda: NoisyInputs(1.0, group=0), "group"),
        (lambda: NoisyInputs(1.0, members=0), "members"),
        (lambda: NoisyInputs(1.0).curve(0.0), "input_noise"),
        (lambda: NoisyInputs(1.0).noise_for(0.0, 1e-5), "epsilon"),
        (lambda: theorem.RecalledTheorem(-1.0), "rho"),
        (lambda: theorem.curve(0.0, 1.0, 1), "input_noise"),
        (lambda: theorem.curve(1.0, 1.0, 0), "participations"),
        (lambda: participation.poisson(0.1, 0, 0.1), "steps"),
        (lambda: participation.poisson(0.1, 10, 1.1), "sampling_probability"),
        (lambda: participation.poisson(0.1, 10, 0.1, members=0), "members"),
        (lambda: participation.poisson_noise_for(1.0, 1e-5, 0.0, 9, 0.1), "diameter"),
    ],
)
def test_settings_outside_the_accounts_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
