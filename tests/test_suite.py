"""The attacks of the suite, on made-up answers of models that leak in known ways."""

from dataclasses import replace

import numpy as np
import pytest
from support import CLASSES, records

from rpjax import resampling
from rpjax.attacks import SUITE, ShadowModels, lira, plant, questions, run_suite
from rpjax.attacks.suite import two_left_out
from rpjax.audits import audit, balanced, independent
from rpjax.errors import InputError

COUNT = 120
PLANTED = plant(records(400), "mislabelled", COUNT)
PAIRS = plant(records(400), "opposite", COUNT)
A, B = balanced(24, COUNT, seed=1), independent(8, COUNT, seed=2)
DRAWS = 6


def log_probs(phi, labels, rng):
    """Answers whose log-odds of the label are `phi`; other classes at random."""
    rest = rng.normal(size=(*phi.shape, CLASSES))
    np.put_along_axis(rest, np.broadcast_to(labels, phi.shape)[..., None], -np.inf, -1)
    rest -= np.logaddexp.reduce(rest, -1, keepdims=True)
    np.put_along_axis(rest, np.broadcast_to(labels, phi.shape)[..., None], 0, -1)
    own = np.arange(CLASSES) == labels[:, None]
    logits = np.where(own, phi[..., None], rest)
    return logits - np.logaddexp.reduce(logits, -1, keepdims=True)


def answered(planted, coins, gap, flatter, seed):
    """Models that are surer of what they saw, by `gap`, and steadier, by `flatter`."""
    rng = np.random.default_rng([seed, 0])
    labels = planted.asked.labels
    inside = coins.inside
    if planted.canaries.ndim == 2:
        inside = np.stack([inside, ~inside], -1).reshape(len(inside), -1)
    # records differ in difficulty, which is the same in all models
    hard = 2 * np.random.default_rng(7).normal(size=len(labels))
    phi = hard + gap * inside + rng.normal(size=inside.shape)
    spread = np.where(inside, 1 / flatter, 1.0)

    def noisy(count, spread=spread):
        noise = rng.normal(size=(len(phi), count, phi.shape[1]))
        return phi[:, None] + spread[:, None] * noise

    answers = {
        "deployed": noisy(1),
        "draws": noisy(DRAWS),
        "common": noisy(DRAWS),
        "still": phi[:, None],
        "views": noisy(4, 0.3 * np.ones_like(spread)),
        "members": noisy(2)[:, None],
    }
    made = {name: log_probs(x, labels, rng) for name, x in answers.items()}
    # what is surer is flatter: log norms of two parts and of all parameters
    steepness = -phi[..., None] + 0.5 * rng.normal(size=(*phi.shape, 3))
    made["gradient"] = steepness[:, None]
    seeds = tuple(range(1000 * seed, 1000 * seed + len(inside)))
    return ShadowModels(planted.membership(coins), seeds, made)


def both(planted=PLANTED, gap=2.0, flatter=1.5):
    return answered(planted, A, gap, flatter, 1), answered(planted, B, gap, flatter, 2)


@pytest.fixture(scope="module")
def leaking():
    return {f.entry.name: f for f in run_suite(*both(), PLANTED)}


@pytest.fixture(scope="module")
def silent():
    return {f.entry.name: f for f in run_suite(*both(gap=0.0, flatter=1.0), PLANTED)}


def area(found):
    return resampling.auc(found.scores_b, B.inside, replicates=200)


# ------------------------------------------------------------------------- all attacks


def test_every_attack_is_carried_out(leaking):
    assert list(leaking) == [entry.name for entry in SUITE]
    asked = questions(noisy=True, members=2)
    assert {n for entry in SUITE for n in entry.needs} == asked.keys()
    for found in leaking.values():
        assert found.scores_a.shape == A.inside.shape
        assert found.scores_b.shape == B.inside.shape
        assert np.isfinite(found.scores_b).all()


@pytest.mark.parametrize("name", [entry.name for entry in SUITE])
def test_an_attack_finds_a_leak_and_nothing_where_nothing_leaks(name, leaking, silent):
    """The interval of the silent one is of 99.9 %: one of 19 fails in 50 seeds."""
    assert area(leaking[name]).low > 0.55
    nothing = resampling.auc(silent[name].scores_b, B.inside, 0.999, replicates=4_000)
    assert nothing.low < 0.5 < nothing.high


def test_better_attacks_find_more(leaking):
    auc = {name: area(found).value for name, found in leaking.items()}
    assert auc["lira"] > auc["loss"] + 0.1, "records differ in difficulty"
    assert auc["calibrated"] > auc["loss"] + 0.1
    assert auc["lira_draws"] > auc["lira"] + 0.02, "noise is averaged away"
    assert auc["joint"] > auc["lira_draws"] + 0.01, "and its spread tells too"
    assert auc["lira_still"] > auc["lira"] + 0.02
    assert auc["members"] > auc["lira"]
    assert auc["lira"] > auc["labels_draws"] - 0.2


def test_what_it_takes_to_ask_is_told(leaking):
    levels = {name: found.threat for name, found in leaking.items()}
    assert levels["lira"] == "T1"
    assert levels["joint"] == "T2"
    assert levels["members"] == levels["lira_still"] == levels["lira_views"] == "T4"
    a, b = (
        replace(m, answers={n: m.answers[n] for n in ("deployed", "views")})
        for m in both()
    )
    plain = {f.entry.name: f.threat for f in run_suite(a, b, PLANTED)}
    assert set(plain.values()) == {"T1", "T2"}
    assert plain["lira_views"] == "T2", "a net without noise has none to switch off"


def test_an_audit_follows_from_what_was_found(leaking, silent):
    """The bound is above zero where members show, and zero where they do not."""
    told = {"delta": 1e-5, "adjacency": "add or remove one canary", "threat": "T4"}
    for found, shows in ((leaking, True), (silent, False)):
        own = found["lira_still"]
        result = audit(own.scores_a, A, own.scores_b, B, canaries="mislabelled", **told)
        assert (result.epsilon > 0.5) == shows


def test_pairs_are_told_apart():
    found = {f.entry.name: f for f in run_suite(*both(PAIRS), PAIRS)}
    assert found.keys() == {entry.name for entry in SUITE if entry.pairs}
    for name, own in found.items():
        assert area(own).low > 0.6, name


# ------------------------------------------------------------------------- leaving out


def test_models_are_left_out_by_twos():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(8, 30, 2))
    coins = balanced(8, 30, seed=3).inside
    found = two_left_out(lira, scores, coins)
    for model in range(8):
        other = np.setdiff1d(np.arange(8), [model, model ^ 1])
        own = lira(scores[other], coins[other], scores[[model]])
        np.testing.assert_allclose(found[model], own[0])


def test_the_number_of_models_in_gives_no_coin_away():
    """Without any scores at all: the rest of a balanced set is balanced again."""
    counted = lambda scores_a, coins_a, scores_b: np.broadcast_to(
        coins_a.sum(0).astype(float), scores_b.shape[:2]
    )
    found = two_left_out(counted, np.zeros((8, 30, 1)), balanced(8, 30, seed=3).inside)
    assert (found == 3).all()


# ---------------------------------------------------------------------------- refusals


def test_sets_that_do_not_belong_together_are_refused():
    a, b = both()
    with pytest.raises(InputError, match="share the training seed 1003"):
        run_suite(a, replace(b, seeds=(*b.seeds[1:], 1003)), PLANTED)
    fewer = {n: x for n, x in b.answers.items() if n != "common"}
    with pytest.raises(InputError, match="not asked the same: common"):
        run_suite(a, replace(b, answers=fewer), PLANTED)
