"""Class counts released for a loss: DP-SGD's guarantee pays for them by itself."""

import json
import math

import jsonschema
import numpy as np
import optax
import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from support import Dense

from rpjax.counts import ClassLosses, Counts, Release
from rpjax.data import poisson
from rpjax.errors import InputError
from rpjax.learners import dpsgd, losses
from rpjax.privacy import documents, dpsgd_guarantee, gdp, stated_epsilon
from rpjax.privacy import dpsgd as accounting
from rpjax.privacy.histogram import Histogram
from rpjax.training.run import guarantee

DELTA, RECORDS, STEPS = 1e-5, 1000, 20
FACTS = {"noise_multiplier": 1.1, "steps": STEPS, "delta": DELTA, "records": RECORDS}
# places for all: no batch is cut, so that dp-accounting's own events are the mechanism
POISSON = {**FACTS, "sampling_probability": 0.05, "capacity": RECORDS}
EPOCHS = {**FACTS, "sampling_probability": 0.05, "capacity": 50, "sampling": "shuffled"}
EPOCHS |= {"noise_multiplier": 6.0, "steps": 60}
TRAINING = accounting.event(1.1, 0.05, STEPS)
RELATIONS = {
    "add or remove one record": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace one record by another": NeighboringRelation.REPLACE_ONE,
}
ADJACENCIES = {
    "add or remove one record": "add_remove",
    "replace one record by another": "replace_one",
}
SCALE = 3.0


def figures(proved):
    """Epsilon by neighbours and accountant."""
    rows = (proved, *proved.alternatives)
    return {(r.adjacency, r.accountant.partition(" (")[0]): r.epsilon for r in rows}


# ------------------------------------------------------------------------- the figures


@pytest.mark.parametrize("neighbours", RELATIONS)
def test_poisson_figures_are_dp_accountings_composition(neighbours):
    proved = dpsgd_guarantee(**POISSON, releases=(Release(SCALE),))
    histogram = Histogram(SCALE).event(ADJACENCIES[neighbours])
    both = dp_event.ComposedDpEvent([histogram, TRAINING])
    oracle = PLDAccountant(RELATIONS[neighbours]).compose(both).get_epsilon(DELTA)
    assert figures(proved)[neighbours, "PLD"] == pytest.approx(oracle, rel=2e-3)
    alone = figures(dpsgd_guarantee(**POISSON))[neighbours, "PLD"]
    assert oracle > 1.02 * alone, "the release is not to be overlooked"


def test_the_renyi_figure_is_dp_accountings_composition():
    proved = dpsgd_guarantee(**POISSON, releases=(Release(SCALE),))
    both = dp_event.ComposedDpEvent([Histogram(SCALE).event(), TRAINING])
    oracle = RdpAccountant().compose(both).get_epsilon(DELTA)
    found = figures(proved)["add or remove one record", "RDP"]
    assert found == pytest.approx(oracle, rel=1e-2)


def test_geometric_noise_is_composed_too():
    proved = dpsgd_guarantee(**POISSON, releases=(Release(SCALE, "geometric"),))
    both = dp_event.ComposedDpEvent([Histogram(SCALE, "geometric").event(), TRAINING])
    oracle = PLDAccountant().compose(both).get_epsilon(DELTA)
    assert proved.epsilon == pytest.approx(oracle, rel=5e-3)


def test_of_shuffled_epochs_all_is_one_gaussian():
    """Three epochs at sigma 6, and one count at standard deviation 3."""
    proved = dpsgd_guarantee(**EPOCHS, releases=(Release(SCALE),))
    mu = math.hypot(math.sqrt(3) / 6.0, 1 / SCALE)
    assert (proved.kind, proved.mu) == ("gdp", pytest.approx(mu))
    assert proved.epsilon == pytest.approx(gdp.epsilon(DELTA, mu))
    replaced = math.hypot(2 * math.sqrt(3) / 6.0, math.sqrt(2) / SCALE)
    others = figures(proved)
    closed = "closed form"
    assert others["replace one record by another", closed] == pytest.approx(
        gdp.epsilon(DELTA, replaced)
    )


def test_geometric_counts_beside_shuffled_epochs_have_no_closed_form():
    proved = dpsgd_guarantee(**EPOCHS, releases=(Release(SCALE, "geometric"),))
    assert (proved.kind, proved.mu) == ("dp", None)
    assert proved.accountant.startswith("PLD")
    alone = dpsgd_guarantee(**EPOCHS)
    assert alone.epsilon < proved.epsilon < alone.epsilon + 1 / SCALE


def test_two_releases_cost_more_than_one():
    once, twice = (
        dpsgd_guarantee(**POISSON, releases=(Release(SCALE),) * n).epsilon
        for n in (1, 2)
    )
    merged = dpsgd_guarantee(**POISSON, releases=(Release(SCALE / math.sqrt(2)),))
    assert twice == pytest.approx(merged.epsilon, rel=1e-6)
    assert once < twice


def test_cut_batches_are_paid_for_beside_the_counts():
    cut = {**POISSON, "capacity": 95}
    roomy, tight = (
        dpsgd_guarantee(**facts, releases=(Release(SCALE),)) for facts in (POISSON, cut)
    )
    assert roomy.epsilon < tight.epsilon < 1.05 * roomy.epsilon


def test_the_noise_is_the_least_for_both_together():
    run = (0.05, STEPS)
    noise = accounting.noise_multiplier_for(
        2.0, DELTA, *run, releases=(Release(SCALE),)
    )
    facts = {**POISSON, "noise_multiplier": noise, "releases": (Release(SCALE),)}
    assert 0.999 * 2.0 < dpsgd_guarantee(**facts).epsilon <= 2.0
    assert noise > 1.02 * accounting.noise_multiplier_for(2.0, DELTA, *run)
    with pytest.raises(InputError, match="class counts alone"):
        accounting.noise_multiplier_for(0.2, DELTA, *run, releases=(Release(SCALE),))


@pytest.mark.parametrize("facts", [POISSON, EPOCHS])
def test_what_a_budget_counts_is_what_is_stated(facts):
    releases = (Release(SCALE),)
    assert (
        stated_epsilon(**facts, releases=releases)
        == dpsgd_guarantee(**facts, releases=releases).epsilon
    )


# --------------------------------------------------------------------------- in words


def test_the_release_is_named_with_its_noise_and_its_cost():
    proved = dpsgd_guarantee(**POISSON, releases=(Release(SCALE),))
    cost = Histogram(SCALE).curve().epsilon(DELTA)
    assert f"standard deviation 3 on each (by itself (ε = {cost:.4g}" in str(
        " ".join(proved.mechanism.split())
    )
    own = {k: v for k, v in proved.parameters.items() if k.startswith("count_")}
    assert own == {
        "count_noise": "gaussian",
        "count_scale": SCALE,
        "count_epsilon": cost,
    }
    assert "release of class counts and of training" in proved.statement
    assert any("noisy class counts are released" in a for a in proved.assumptions)
    fields = proved.as_dict()
    jsonschema.validate(
        documents.document([("dpsgd", "DP-SGD", fields)]), documents.schema()
    )
    assert type(proved).from_dict(json.loads(json.dumps(fields))) == proved


def test_without_a_release_nothing_is_said_of_one():
    said = str(dpsgd_guarantee(**POISSON).as_dict())
    assert "class counts" not in said
    assert "count_" not in said


def test_public_counts_are_a_premise_left_to_the_user():
    proved = dpsgd_guarantee(**POISSON, public_counts=True)
    assert proved.epsilon == dpsgd_guarantee(**POISSON).epsilon
    assert "the class counts that the loss uses" in proved.public
    (left,) = [a for a in proved.assumptions if "class counts" in a]
    assert left.startswith("Left to the user")


# ----------------------------------------------------------------------- from a learner


def private(loss):
    options = {"clip_norm": 0.2, "noise_multiplier": 1.0, "batch_size": 4}
    return dpsgd(Dense(), optax.sgd(0.1), loss=loss, **options)


def test_a_learner_carries_each_release_once():
    labels = np.array([0] * 9 + [1] * 4 + [2] * 3)
    one, other = (Histogram(SCALE).release(labels, 3, bytes(32)) for _ in range(2))
    assert one == other, "the same secret, so the same counts"
    same = losses.deferred(one, 5, base=losses.ldam(one))
    assert private(same).mechanism.releases == (Release(SCALE),)
    # released twice, whatever came out: two objects
    apart = losses.deferred(one, 5, base=losses.ldam(other))
    assert private(apart).mechanism.releases == (Release(SCALE),) * 2


def test_the_guarantee_of_a_learner_composes_by_itself():
    counts = Counts((9, 4, 3), "released", Release(SCALE))
    made = private(losses.balanced_softmax(counts))
    assert not made.mechanism.released_counts, "nothing is left to compose with"
    assert not made.mechanism.public_counts
    sampler, facts = poisson(16, 4, 20), {"delta": 1e-3, "noise_seed": "secret"}
    proved = guarantee(made, sampler, 20, (6, 6, 1), **facts)
    run = {"noise_multiplier": 1.0, "sampling_probability": 0.25, "steps": 20}
    asked = {**run, "delta": 1e-3, "records": 16, "capacity": 20}
    expected = dpsgd_guarantee(**asked, releases=(Release(SCALE),))
    assert proved.epsilon == expected.epsilon > dpsgd_guarantee(**asked).epsilon


def test_a_release_that_is_not_known_is_still_left_to_the_user():
    for source, known, unknown in (
        (Counts((9, 4, 3), "released"), False, True),
        (Counts((9, 4, 3), "public"), True, False),
    ):
        facts = private(losses.balanced_softmax(source)).mechanism
        assert (facts.public_counts, facts.released_counts) == (known, unknown)
        assert facts.releases == ()
    counts = Counts((9, 4, 3), "released", Release(SCALE))
    facts = private(losses.msfe(counts, ClassLosses((1, 1, 1), "released"))).mechanism
    assert (facts.released_counts, facts.releases) == (True, (Release(SCALE),))


def test_a_release_belongs_to_released_counts_alone():
    with pytest.raises(InputError, match="only 'released' counts have one"):
        Counts((9, 4), "public", Release(SCALE))
