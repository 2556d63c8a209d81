"""DP-SGD's epsilon against recorded values, dp-accounting itself and closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from dp_accounting import NeighboringRelation, dp_event, pld, rdp

from rpjax.data.sampling import shuffled
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
    # the table has four decimals
    table = {"rel": 1e-4}
    found = dpsgd.epsilon(sigma, q, steps, delta, "rdp")
    assert found == pytest.approx(renyi, **table)
    found = dpsgd.epsilon(sigma, q, steps, delta)
    assert found == pytest.approx(loss, **table)
    if replaced is not None:
        found = dpsgd.epsilon(sigma, q, steps, delta, adjacency="replace_one")
        assert found == pytest.approx(replaced, **table)


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
    assert dpsgd.epsilon(0.0, **SMALL) == dpsgd.epsilon(1e-9, **SMALL) == math.inf
    assert dpsgd.epsilon(1e-3, 0.05, 100_000, 1e-5) == math.inf
    assert 1e3 < dpsgd.epsilon(0.05, **SMALL) < 1e6


def test_one_step_is_analysed_once_however_many_numbers_of_them_are_asked_for(
    monkeypatch,
):
    from dp_accounting.pld import privacy_loss_distribution as module

    real, calls = module.from_gaussian_mechanism, []

    def counted(**options):
        calls.append(options)
        return real(**options)

    monkeypatch.setattr(module, "from_gaussian_mechanism", counted)
    found = [dpsgd.epsilon(1.2345, 0.05, steps, 1e-5) for steps in range(400, 410)]
    assert len(calls) == 1
    assert (np.diff(found) > 0).all()


def test_members_are_that_many_runs():
    three = dpsgd.epsilon(1.5, 0.05, 100, 1e-5, members=3)
    assert three == dpsgd.epsilon(1.5, 0.05, 300, 1e-5)


def test_accounting_is_loaded_only_when_it_is_used():
    code = "import sys, rpjax.privacy; sys.exit('dp_accounting' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------- the run as an event


def of_accountant(event, relation, delta=1e-5, grid=1e-3):
    return pld.PLDAccountant(relation, grid).compose(event).get_epsilon(delta)


def test_the_event_of_poisson_steps_has_our_epsilon():
    event = dpsgd.event(1.5, 0.05, 200, members=2)
    ours = dpsgd.epsilon(1.5, 0.05, 400, 1e-5)
    added = NeighboringRelation.ADD_OR_REMOVE_ONE
    assert of_accountant(event, added) == pytest.approx(ours, rel=1e-6)
    swapped = dpsgd.epsilon(1.5, 0.05, 400, 1e-5, adjacency="replace_one")
    found = of_accountant(event, NeighboringRelation.REPLACE_ONE)
    assert found == pytest.approx(swapped, rel=1e-6)
    renyi = rdp.RdpAccountant().compose(event).get_epsilon(1e-5)
    assert renyi == dpsgd.epsilon(1.5, 0.05, 400, 1e-5, "rdp")


def test_the_event_of_cut_batches_has_our_exact_epsilon():
    cut = dpsgd.Truncation(500, 30, "exact")
    added = NeighboringRelation.ADD_OR_REMOVE_ONE
    events = [
        dpsgd.event(1.5, 0.05, 400, truncation=cut._replace(records=size))
        for size in (500, 501)
    ]
    assert events[0].event == dp_event.TruncatedSubsampledGaussianDpEvent(
        500, 0.05, 30, 1.5
    )
    of_each = [of_accountant(event, added) for event in events]
    assert dpsgd.epsilon(1.5, **SMALL, truncation=cut) == pytest.approx(
        max(of_each), rel=1e-6
    )
    for adjacency, relation in (
        ("replace_one", NeighboringRelation.REPLACE_ONE),
        ("zero_out", NeighboringRelation.REPLACE_SPECIAL),
    ):
        found = dpsgd.epsilon(1.5, **SMALL, adjacency=adjacency, truncation=cut)
        expected = of_accountant(events[0], relation)
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_event_of_shuffled_epochs_has_our_epsilon():
    # 95 steps of 20 an epoch: the fifth epoch may have brought the record already
    shuffled = {"sampling_probability": 0.05, "steps": 95, "sampling": "shuffled"}
    event = dpsgd.event(3.0, **shuffled)
    assert event == dp_event.SelfComposedDpEvent(dp_event.GaussianDpEvent(3.0), 5)
    assert not isinstance(event.event, dp_event.PoissonSampledDpEvent)
    for adjacency, relation in (
        ("zero_out", NeighboringRelation.REPLACE_SPECIAL),
        ("replace_one", NeighboringRelation.REPLACE_ONE),
    ):
        options = {**shuffled, "delta": 1e-5, "adjacency": adjacency}
        found = dpsgd.epsilon(3.0, **options)
        expected = of_accountant(event, relation)
        assert found == pytest.approx(expected, rel=1e-4)
        assert found <= expected, "the grid rounds up"
        # dp-accounting's Renyi accountant doubles no sensitivity: half the noise does
        halved = 3.0 / (2 if adjacency == "replace_one" else 1)
        renyi = rdp.RdpAccountant().compose(dpsgd.event(halved, **shuffled))
        found = dpsgd.epsilon(3.0, **options, accountant="rdp")
        assert found == pytest.approx(renyi.get_epsilon(1e-5), rel=1e-12)


# ------------------------------------------------------------------------ jax-privacy


def test_epsilon_is_that_of_jax_privacys_own_accountants():
    accounting = pytest.importorskip("jax_privacy.accounting")
    params = {"noise_multipliers": 1.5, "batch_size": 50, "num_samples": 1000}
    loss, renyi = (
        accounting.analysis.DpsgdTrainingAccountant(config)
        for config in (
            accounting.PldAccountantConfig(value_discretization_interval=1e-3),
            accounting.RdpAccountantConfig(),
        )
    )
    run = accounting.analysis.DpParams(**params, delta=1e-5)
    found = dpsgd.epsilon(1.5, **SMALL)
    assert found == pytest.approx(loss.compute_epsilon(400, run), rel=1e-6)
    found = dpsgd.epsilon(1.5, **SMALL, accountant="rdp")
    assert found == pytest.approx(renyi.compute_epsilon(400, run), rel=0.01)
    assert found <= renyi.compute_epsilon(400, run), "it tries fewer orders"
    cut = accounting.analysis.DpParams(**params, delta=1e-5, truncated_batch_size=60)
    exact = {"truncation": dpsgd.Truncation(1000, 60, "exact")}
    found = dpsgd.epsilon(1.5, **SMALL, adjacency="zero_out", **exact)
    assert found == pytest.approx(loss.compute_epsilon(400, cut), rel=1e-6)
    # one epoch that takes each record once, of which it needs no more
    alone = accounting.analysis.SingleReleaseTrainingAccountant(
        accounting.PldAccountantConfig(value_discretization_interval=1e-3)
    )
    found = dpsgd.epsilon(1.5, 0.05, 20, 1e-5, "pld", "zero_out", sampling="shuffled")
    assert found == pytest.approx(alone.compute_epsilon(1, run), rel=1e-4)


def test_events_are_those_that_jax_privacy_makes():
    theirs = pytest.importorskip("jax_privacy.experimental.accounting")
    event = theirs.dpsgd_event(1.5, 400, sampling_prob=0.05)
    assert dpsgd.event(1.5, 0.05, 400) == event
    event = theirs.truncated_dpsgd_event(
        1.5, 400, sampling_prob=0.05, num_examples=1000, truncated_batch_size=60
    )
    cut = dpsgd.Truncation(1000, 60)
    assert dpsgd.event(1.5, 0.05, 400, truncation=cut) == event


# -------------------------------------------------------------------- shuffled epochs


@pytest.mark.parametrize(
    ("records", "batch"), [(49, 7), (50, 7), (10, 3), (1000, 1), (60_000, 250)]
)
@pytest.mark.parametrize("steps", [1, 7, 8, 123])
def test_participations_are_counted_as_the_sampler_counts_them(records, batch, steps):
    counted = shuffled(records, batch).participations(steps)
    assert dpsgd.participations(batch / records, steps) == counted


def test_an_epoch_has_as_many_batches_as_fit_for_any_number_of_records():
    for records in range(1, 200):
        for batch in range(1, records + 1):
            epoch = records // batch
            assert dpsgd.participations(batch / records, epoch) == 1
            assert dpsgd.participations(batch / records, epoch + 1) == 2


def test_shuffled_epochs_compose_gaussians_that_nothing_amplifies():
    """The shift that one record makes, over the noise, for each batch it is in."""
    for adjacency, shift in (("zero_out", 1), ("replace_one", 2)):
        options = {"adjacency": adjacency, "sampling": "shuffled"}
        epsilon = dpsgd.epsilon(4.0, 0.05, 60, 1e-5, **options)  # three epochs
        mu = shift * math.sqrt(3) / 4.0
        # Balle and Wang, arXiv 1805.06530, Theorem 8
        above = scipy.stats.norm.cdf(mu / 2 - epsilon / mu)
        below = scipy.stats.norm.cdf(-mu / 2 - epsilon / mu)
        assert above - math.exp(epsilon) * below == pytest.approx(1e-5, rel=1e-6)
        one, same = (dpsgd.epsilon(4.0, 0.05, n, 1e-5, **options) for n in (41, 60))
        assert one == same, "within an epoch nothing is spent twice"
        amplified = dpsgd.epsilon(4.0, 0.05, 60, 1e-5, adjacency=adjacency)
        assert amplified < 0.5 * epsilon
        ceiling = dpsgd.tpr(0.01, 4.0, 0.05, 60, **options)
        assert ceiling == pytest.approx(gdp.tpr(0.01, mu))
        three = dpsgd.epsilon(4.0, 0.05, 20, 1e-5, **options, members=3)
        assert three == epsilon


def test_no_figure_for_one_record_more_is_given_to_shuffled_epochs():
    """Batches after it would shift, so that every record's batch may be another."""
    for accountant in ("pld", "rdp"):
        with pytest.raises(InputError, match=r"^adjacency.*shifts"):
            dpsgd.epsilon(4.0, **SMALL, accountant=accountant, sampling="shuffled")
    with pytest.raises(InputError, match=r"^adjacency"):
        dpsgd.tpr(0.01, 4.0, 0.05, 60, sampling="shuffled")
    with pytest.raises(InputError, match=r"^adjacency"):
        dpsgd.steps_for(8.0, 1e-5, 4.0, 0.05, sampling="shuffled")


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


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_the_most_steps_stay_within_the_target_and_one_more_does_not(accountant):
    for target in (2.0, 8.0):
        steps = dpsgd.steps_for(target, 1e-5, 1.5, 0.05, accountant)
        assert dpsgd.epsilon(1.5, 0.05, steps, 1e-5, accountant) <= target
        assert dpsgd.epsilon(1.5, 0.05, steps + 1, 1e-5, accountant) > target


def test_the_most_steps_of_shuffled_epochs_are_whole_epochs():
    options = {"adjacency": "replace_one", "sampling": "shuffled"}
    steps = dpsgd.steps_for(8.0, 1e-5, 10.0, 0.1, **options)
    # the closed form turned round: mu = 2 sqrt(E) / 10
    assert steps == 10 * math.floor((gdp.mu_from(8.0, 1e-5) * 10 / 2) ** 2)
    sigma = dpsgd.noise_multiplier_for(8.0, 1e-5, 0.1, steps, **options)
    exact = 2 * math.sqrt(steps / 10) / gdp.mu_from(8.0, 1e-5)
    assert exact <= sigma <= 1.0001 * exact


def test_the_most_steps_pay_for_overflow_and_for_members():
    plain = dpsgd.steps_for(4.0, 1e-5, 1.5, 0.05)
    cut = dpsgd.steps_for(4.0, 1e-5, 1.5, 0.05, overflow_probability=2e-10)
    assert cut < plain
    assert dpsgd.steps_for(4.0, 1e-5, 1.5, 0.05, members=3) == plain // 3


def test_a_target_below_one_step_or_beyond_all_training_is_refused():
    with pytest.raises(InputError, match=r"^epsilon = 0.01: one step exceeds it"):
        dpsgd.steps_for(0.01, 1e-5, 0.5, 0.05)
    with pytest.raises(InputError, match=r"^epsilon = 8: allows more than 1e\+09"):
        dpsgd.steps_for(8.0, 1e-5, 1e5, 1e-3, "rdp")
    with pytest.raises(InputError, match=r"^sampling_probability = 1.5"):
        dpsgd.steps_for(8.0, 1e-5, 1.0, 1.5)


def test_a_target_that_overflow_makes_impossible_is_refused():
    message = r"^epsilon = 4: no noise reaches it .*larger capacity"
    with pytest.raises(InputError, match=message):
        dpsgd.noise_multiplier_for(4.0, 1e-5, 0.05, 400, overflow_probability=1e-6)


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
        ({"members": 0}, "members"),
        (
            {
                "sampling": "shuffled",
                "adjacency": "zero_out",
                "truncation": dpsgd.Truncation(50, 9),
            },
            "sampling",
        ),
        (
            {"accountant": "rdp", "truncation": dpsgd.Truncation(50, 9, "exact")},
            "accountant",
        ),
        (
            {"overflow_probability": 1e-9, "truncation": dpsgd.Truncation(50, 9)},
            "overflow_probability",
        ),
    ],
)
def test_settings_outside_their_range_are_refused(change, field):
    with pytest.raises(InputError, match=f"^{field}"):
        dpsgd.epsilon(**{"noise_multiplier": 1.0, **SMALL, **change})


def test_calibration_refuses_a_target_of_zero():
    with pytest.raises(InputError, match=r"^epsilon = 0.0"):
        dpsgd.noise_multiplier_for(0.0, 1e-5, 0.05, 400)
