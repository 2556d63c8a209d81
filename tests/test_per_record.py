"""Attacks with a model of each record, on a target that learnt its labels by heart."""

from dataclasses import replace

import numpy as np
import optax
import pytest
from test_attacks import POOL, Memory, random_labels

from rpjax import attacks, intervals
from rpjax.attacks.per_record import coins, per_record, usable
from rpjax.data.membership import design
from rpjax.learners import supervised
from rpjax.training import Query, fit

OPTIONS = {"batch_size": 20, "epochs": 15}


@pytest.fixture(scope="module")
def attacked():
    pool = random_labels()
    plan = design(POOL, shadows=24, seed=0)
    learner = supervised(Memory(), optax.adam(1e-2))
    target = fit(learner, pool, lists=plan.members, **OPTIONS)
    return target, attacks.shadows(learner, pool, plan, **OPTIONS), pool


@pytest.fixture(scope="module")
def answers(attacked):
    target, bank, pool = attacked
    return target.answers(pool, Query()), bank.run.answers(pool, Query())


def test_members_show_and_thresholds_hold(attacked, answers):
    target, bank, pool = attacked
    found = per_record(*answers, bank, pool.labels)
    assert found.keys() == {"lira", "base", "calibrated"}
    for name, each in found.items():
        assert each.auc.low > 0.7, name
        assert each.balanced_accuracy.low > 0.6, name
        assert len(each.member_scores) == len(each.non_member_scores) == POOL // 2
    everything = attacks.expose(target, bank, pool)
    assert set(attacks.ATTACKS) | set(found) == set(everything)
    for name, each in found.items():
        np.testing.assert_array_equal(
            everything[name].member_scores, each.member_scores
        )


def test_nothing_shows_where_membership_is_anyones_guess(attacked, answers):
    """An error rate of 1e-3 for each of three attacks."""
    _, bank, pool = attacked
    scores = per_record(*answers, bank, pool.labels)
    # other designs' halves have nothing to do with this target
    other = design(POOL, shadows=0, seed=9)
    for name, each in scores.items():
        table = np.empty(POOL)
        table[bank.design.members] = each.member_scores
        table[bank.design.non_members] = each.non_member_scores
        auc = intervals.auc(table[other.members], table[other.non_members], 0.999)
        assert auc.low < 0.5 < auc.high, name


def test_coins_are_the_designs(attacked):
    _, bank, _ = attacked
    table = coins(bank, POOL)
    for own, members in zip(table, bank.design.shadow_members, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(own), np.sort(members))


@pytest.mark.parametrize(
    ("shadows", "protocol"), [(4, "halves"), (24, "quarters"), (7, "halves")]
)
def test_few_models_or_other_records_are_not_enough(
    attacked, answers, shadows, protocol
):
    _, bank, pool = attacked
    few = replace(bank, design=design(POOL, shadows, 0, protocol))
    assert not usable(few)
    assert per_record(*answers, few, pool.labels) == {}
