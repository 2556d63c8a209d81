"""Attacks: what they find in nets that leak, and that they find nothing in others."""

import importlib
import itertools
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score
from support import SHAPE, Dense, assert_close, differ

from rpjax import attacks, intervals, keys
from rpjax.attacks import ATTACKS, Asked, salem
from rpjax.attacks.attack import Exposure, best_threshold, thinned
from rpjax.data.membership import design
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.training import Query, Run, answers, fit, loop
from rpjax.training import run as run_module

# the package hands on a function of the same name
shadows_module = importlib.import_module("rpjax.attacks.shadows")

CLASSES = 3


def asked(count, seed, gap=1.0):
    """Made-up answers: members are right by `gap` more logits than others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    member = np.arange(count) % 2 == 0
    logits = rng.normal(size=(count, CLASSES))
    logits[np.arange(count), labels] += gap * member
    log_probs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    return Asked(log_probs, labels, member)


SHADOW, TARGET = asked(200, 1), asked(160, 2)


def scores_in_order(attack, shadow, target):
    """The target's scores in the order of its records, and the threshold."""
    found = attacks.run(attack, shadow, target, seed=0)
    scores = np.empty(len(target.member))
    scores[target.member] = found.member_scores
    scores[~target.member] = found.non_member_scores
    return scores, found.threshold


@pytest.fixture(params=ATTACKS.values(), ids=ATTACKS)
def attack(request):
    return request.param


# ----------------------------------------------------------------------- what is found


def test_the_auc_of_an_exposure_is_that_of_scikit_learn_ties_included(attack):
    coarse = TARGET._replace(log_probs=np.round(TARGET.log_probs, 1))
    found = attacks.run(attack, SHADOW, coarse, seed=0)
    scores = np.concatenate([found.member_scores, found.non_member_scores])
    member = np.arange(160) < 80
    assert len(np.unique(scores)) < 160
    assert found.auc.value == pytest.approx(roc_auc_score(member, scores), abs=1e-12)
    assert found.auc.low <= found.auc.value <= found.auc.high


def test_a_leak_in_shadow_and_target_is_found_and_one_in_neither_is_not(attack):
    """Error rate 1e-4 for each attack."""
    leaking = attacks.run(attack, SHADOW, TARGET, seed=0)
    tight = attacks.run(attack, asked(200, 3, gap=0), asked(400, 4, gap=0), seed=0)
    groups = [(e.member_scores, e.non_member_scores) for e in (leaking, tight)]
    low, null = (intervals.auc(*group, confidence=0.9999) for group in groups)
    if attack.name not in ("confidence", "salem"):  # those two do not see the label
        assert low.low > 0.5
    assert null.low < 0.5 < null.high


def test_balanced_accuracy_and_rates_count_records_at_the_threshold():
    found = Exposure("x", "X", np.array([3.0, 2, 2, 0]), np.array([2.0, 1, 1, 0]), 2.0)
    assert found.balanced_accuracy is not None
    assert found.balanced_accuracy.value == (3 / 4 + 3 / 4) / 2
    assert found.tpr(0.25).tpr == 0.75
    assert found.tpr(0.01).tpr == 0.25
    assert replace(found, threshold=None).balanced_accuracy is None


def test_the_best_threshold_is_a_score_at_which_balanced_accuracy_is_highest():
    scores = np.array([5.0, 4, 3, 3, 2, 1])
    member = np.array([True, False, True, True, False, False])
    assert best_threshold(scores, member) == 3.0
    every = [
        (np.mean(scores[member] >= t) + np.mean(scores[~member] < t)) for t in scores
    ]
    at_best = np.mean(scores[member] >= 3) + np.mean(scores[~member] < 3)
    assert at_best == max(every)


# ------------------------------------------------- nothing is learnt from the target


def test_scores_and_threshold_do_not_depend_on_who_is_a_member_of_the_target(attack):
    scores, threshold = scores_in_order(attack, SHADOW, TARGET)
    shuffled = np.random.default_rng(5).permutation(TARGET.member)
    others, same = scores_in_order(attack, SHADOW, TARGET._replace(member=shuffled))
    np.testing.assert_array_equal(scores, others)
    assert threshold == same
    assert threshold is not None


def test_a_record_s_score_does_not_depend_on_which_others_are_asked(attack):
    scores, threshold = scores_in_order(attack, SHADOW, TARGET)
    some = np.random.default_rng(6).permutation(160)[:50]
    fewer, same = scores_in_order(attack, SHADOW, Asked(*(x[some] for x in TARGET)))
    np.testing.assert_allclose(fewer, scores[some], rtol=1e-6)
    assert threshold == same


def test_thresholds_come_from_the_shadow_models(attack):
    """Those of modified entropy, one for each class, are part of the score."""
    scores, threshold = scores_in_order(attack, SHADOW, TARGET)
    other = Asked(SHADOW.log_probs * 2, *SHADOW[1:])
    others, another = scores_in_order(attack, other, TARGET)
    if attack.name == "modified_entropy":
        assert len(np.unique(np.round(scores - others, 9))) == CLASSES
    else:
        assert threshold != another


def test_without_shadow_models_only_plain_signals_can_be_had(attack):
    if attack.needs_shadows:
        with pytest.raises(ValueError, match=f"'{attack.name}' needs shadow models"):
            attacks.run(attack, None, TARGET, seed=0)
        return
    found = attacks.run(attack, None, TARGET, seed=0)
    assert found.threshold is found.balanced_accuracy is None
    assert found.as_dict()["threshold_from"] == "none needed"
    assert found.auc == attacks.run(attack, SHADOW, TARGET, seed=0).auc


def test_modified_entropy_has_a_threshold_for_each_class():
    """Class 0 is easy and class 1 hard: one threshold for both would fail on one."""

    def answered(p, labels):
        two = np.stack([np.where(labels == 0, p, 1 - p), np.zeros(len(p))], 1)
        two[:, 1] = 1 - two[:, 0]
        return np.log(two)

    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    p = np.array([0.99, 0.98, 0.90, 0.89, 0.60, 0.59, 0.40, 0.39])
    member = np.array([True, True, False, False] * 2)
    shadow = Asked(answered(p, labels), labels, member)
    target = Asked(answered(p - 0.001, labels), labels, member)
    found = attacks.run(attacks.MODIFIED_ENTROPY, shadow, target, seed=0)
    assert found.auc.value == 1
    assert attacks.run(attacks.LOSS, shadow, target, seed=0).auc.value == 0.75
    own = attacks.run(attacks.MODIFIED_ENTROPY, shadow, shadow, seed=0)
    assert own.balanced_accuracy is not None
    assert own.balanced_accuracy.value == 1
    # the hardest member of each class lies just at its class's threshold
    np.testing.assert_allclose(np.sort(own.member_scores)[:2], 0, atol=1e-12)


def test_a_class_that_no_shadow_model_saw_has_the_threshold_of_all():
    seen = SHADOW.labels != 2
    shadow = Asked(*(x[seen] for x in SHADOW))
    scores, _ = scores_in_order(attacks.MODIFIED_ENTROPY, shadow, TARGET)
    signal = attacks.signals.modified_entropy
    overall = best_threshold(signal(*shadow[:2]), shadow.member)
    unseen = TARGET.labels == 2
    expected = signal(*TARGET[:2])[unseen] - overall
    np.testing.assert_allclose(scores[unseen], expected)


# -------------------------------------------------------------------------- the net


def test_salem_s_features_are_the_three_largest_posteriors_or_both_of_two():
    p = np.array([[0.1, 0.4, 0.2, 0.3]])
    np.testing.assert_allclose(salem.features(np.log(p)), [[0.4, 0.3, 0.2]])
    np.testing.assert_allclose(salem.features(np.log([[0.3, 0.7]])), [[0.7, 0.3]])


def test_salem_s_attack_sees_neither_labels_nor_the_order_of_classes():
    scores, _ = scores_in_order(attacks.SALEM, SHADOW, TARGET)
    blind = Asked(TARGET.log_probs[:, ::-1], 0 * TARGET.labels, TARGET.member)
    others, _ = scores_in_order(attacks.SALEM, SHADOW, blind)
    np.testing.assert_allclose(others, scores, rtol=1e-9)


def test_salem_s_attack_is_a_function_of_its_seed():
    scores = [
        attacks.run(attacks.SALEM, SHADOW, TARGET, seed).member_scores
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).any()


# ---------------------------------------------------------------------- broken models


def test_answers_that_are_all_equal_are_a_guess_and_not_an_error(attack):
    flat = SHADOW._replace(log_probs=np.full((200, CLASSES), -np.log(CLASSES)))
    found = attacks.run(attack, flat, flat, seed=0)
    assert found.auc.value == 0.5
    assert found.balanced_accuracy is not None
    assert found.balanced_accuracy.value == 0.5
    assert np.isfinite(found.member_scores).all()


def test_certain_answers_give_finite_scores(attack):
    certain = np.full((200, CLASSES), -np.inf)
    certain[np.arange(200), SHADOW.labels] = 0
    mixed = SHADOW._replace(
        log_probs=np.where(SHADOW.member[:, None], certain, SHADOW.log_probs)
    )
    found = attacks.run(attack, mixed, mixed, seed=0)
    assert np.isfinite(found.member_scores).all()
    assert found.auc.value > 0.95


def test_a_diverged_model_is_refused_in_one_line(small):
    broken = np.full((16, CLASSES), np.nan)
    with pytest.raises(InputError, match=r"answers hold NaN.*learning rate") as error:
        shadows_module.pooled(broken, small, np.arange(8), np.arange(8, 16))
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------- shadow models


def test_a_bank_pools_each_shadow_model_s_own_members_and_non_members(
    small, monkeypatch
):
    """Made-up answers name the model and the record that they are about."""
    plan = design(len(small), shadows=2, seed=3)
    record = np.arange(len(small))

    def named(run, pool, query):
        return np.stack([np.stack([record, 0 * record + m], 1) for m in (0, 1)]) * 1.0

    run = fit(LEARNER, small, batch_size=4, steps=1)
    monkeypatch.setattr(Run, "answers", named)
    found = attacks.Bank(run, plan).asked(small, Query())
    where, model = found.log_probs.astype(int).T
    assert len(where) == 2 * len(small)
    np.testing.assert_array_equal(found.labels, small.labels[where])
    for m in (0, 1):
        own = where[(model == m) & found.member]
        assert sorted(own) == plan.shadow_members[m].tolist()
        rest = where[(model == m) & ~found.member]
        assert sorted(rest) == plan.shadow_non_members[m].tolist()


LEARNER = supervised(Dense(Additive(0.3)), optax.sgd(0.1, momentum=0.9))


@pytest.fixture(scope="module")
def bank(small):
    """Three Strategy I shadow models of sixteen records, trained side by side."""
    plan = design(len(small), shadows=3, seed=1)
    return attacks.shadows(LEARNER, small, plan, seed=2, batch_size=4, steps=10)


def test_a_shadow_model_is_the_learner_trained_alone_on_its_list(
    small, bank, monkeypatch
):
    quiet = Query(noise=False)
    together = answers(bank.run.learner, bank.run.state, small, quiet)
    root = keys.root(2 + shadows_module.SEED_OFFSET)
    for index, own in enumerate(bank.design.shadow_members):
        monkeypatch.setattr(
            loop.rp_keys, "root", lambda _, i=index: keys.member(root, i)
        )
        alone = fit(LEARNER, small, lists=own, batch_size=4, steps=10)
        monkeypatch.undo()
        assert_close(jax.tree.map(lambda a, i=index: a[i], bank.run.state), alone.state)
        assert_close(together[index], alone.answers(small, quiet))


def test_shadow_models_share_no_randomness_with_a_target_or_each_other(small, bank):
    """Trained on one list, all end elsewhere: an ensemble's members too, which have the
    same numbers as the models of a bank."""
    inside, outside = bank.design.members, bank.design.non_members
    alike = replace(
        bank.design,
        shadow_members=np.stack([inside] * 2),
        shadow_non_members=np.stack([outside] * 2),
    )
    options = {"seed": 2, "batch_size": 4, "steps": 10}
    single = fit(LEARNER, small, lists=inside, **options).state.params
    several = fit(ensemble(LEARNER, 2), small, lists=inside, **options).state.params
    shadow = attacks.shadows(LEARNER, small, alike, **options).run.state.params
    trained = [single, *(one_of(t, i) for t in (several, shadow) for i in (0, 1))]
    for one, other in itertools.combinations(trained, 2):
        assert differ(one, other)


def one_of(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def test_target_and_shadow_models_are_asked_by_one_function_in_one_way(
    small, bank, monkeypatch
):
    target = fit(LEARNER, small, lists=bank.design.members, batch_size=4, steps=1)
    calls = []

    def spy(learner, state, pool, query, seed, **options):
        calls.append((pool, query, seed))
        return answers(learner, state, pool, query, seed, **options)

    monkeypatch.setattr(run_module, "answers", spy)
    attacks.expose(target, bank, small, Query(draws=3))
    (pool, query, seed), (other_pool, other_query, other_seed) = calls
    assert pool is other_pool is small
    assert query == other_query == Query(draws=3)
    assert seed != other_seed  # the noise of an answer is nobody else's


# ----------------------------------------------------- a planted leak, and none at all


class Memory(nn.Module):
    """Wide enough to learn random labels by heart."""

    perturbation: Any = None

    @nn.compact
    def __call__(self, record_keys, pixels, train=False):
        x = nn.relu(nn.Dense(128)(pixels.reshape(len(pixels), -1)))
        return nn.Dense(CLASSES)(x)


POOL = 240


def random_labels():
    """Pictures that say nothing of their labels: only a member's can be known."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (POOL, *SHAPE)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, POOL).astype(np.int32)
    return Records(images, labels, np.arange(POOL, dtype=np.int32))


def exposures(learning_rate, protocol):
    """A target and four shadow models after forty epochs at that rate."""
    pool = random_labels()
    plan = design(POOL, shadows=4, seed=0, protocol=protocol)
    learner = supervised(Memory(), optax.adam(learning_rate))
    options = {"batch_size": 20, "epochs": 40}
    target = fit(learner, pool, lists=plan.members, **options)
    bank = attacks.shadows(learner, pool, plan, **options)
    return attacks.expose(target, bank, pool)


@pytest.fixture(scope="module", params=["halves", "quarters"])
def over_fitted(request):
    return exposures(1e-2, request.param)


@pytest.fixture(scope="module", params=["halves", "quarters"])
def untrained(request):
    return exposures(0.0, request.param)


def test_every_attack_finds_a_net_that_learnt_random_labels_by_heart(over_fitted):
    aucs = {name: found.auc.value for name, found in over_fitted.items()}
    assert all(value > 0.7 for value in aucs.values()), aucs
    for found in over_fitted.values():
        assert found.balanced_accuracy is not None
        assert found.balanced_accuracy.low > 0.5


def test_no_attack_finds_anything_in_an_untrained_net(untrained):
    """Error rate 1e-3 for each of eight statements of each kind; seeds are fixed."""
    for name, found in untrained.items():
        groups = found.member_scores, found.non_member_scores
        auc = intervals.auc(*groups, confidence=0.999)
        assert auc.low < 0.5 < auc.high, name
        assert found.balanced_accuracy is not None
        assert abs(found.balanced_accuracy.value - 0.5) < 0.25  # 4 standard errors


def test_shuffled_membership_hides_even_a_net_that_learnt_by_heart(over_fitted):
    """The null of the first test: an error rate of 1e-3 for each attack."""
    rng = np.random.default_rng(8)
    for name, found in over_fitted.items():
        scores = np.concatenate([found.member_scores, found.non_member_scores])
        scores = rng.permutation(scores)
        half = len(found.member_scores)
        auc = intervals.auc(scores[:half], scores[half:], confidence=0.999)
        assert auc.low < 0.5 < auc.high, name


def test_a_thinned_curve_keeps_exact_corners_its_ends_and_all_at_low_rates():
    rng = np.random.default_rng(0)
    fpr, tpr = intervals.roc(rng.normal(0.5, 1, 4000), rng.normal(0, 1, 4000))
    assert len(fpr) > 1000
    some_fpr, some_tpr = thinned(fpr, tpr)
    assert len(some_fpr) <= 200
    corners = set(zip(fpr, tpr, strict=True))
    assert set(zip(some_fpr, some_tpr, strict=True)) <= corners
    assert (some_fpr[0], some_tpr[-1]) == (0, 1)
    np.testing.assert_array_equal(some_fpr[:60], fpr[:60])
    # read as steps it loses little anywhere, and never gains
    read = some_tpr[np.searchsorted(some_fpr, fpr, side="right") - 1]
    whole = tpr[np.searchsorted(fpr, fpr, side="right") - 1]
    assert (read <= whole).all()
    assert (whole - read).max() < 0.03
