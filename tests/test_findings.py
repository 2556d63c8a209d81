"""Figures of attacks: against counts by hand, and their meaning on known scores."""

import numpy as np
import pytest
from known_leaks import fair

from rpjax import intervals
from rpjax.attacks import SUITE, findings
from rpjax.attacks.suite import Found

RNG = np.random.default_rng(0)
COINS = fair(RNG, 20, 60)
SCORES = RNG.normal(size=COINS.shape) + 2 * COINS
FOUND = Found(SUITE[0], "T1", SCORES, SCORES)


@pytest.fixture(scope="module")
def told():
    return findings.attack(FOUND, COINS)


def test_counts_and_rates_belong_together(told):
    members, others = int(COINS.sum()), int((~COINS).sum())
    for point, rate in zip(told["tpr_at"], findings.RATES, strict=True):
        assert point["target_fpr"] == rate
        assert point["tpr"] == point["true_positives"] / members
        assert point["realised_fpr"] == point["false_positives"] / others <= rate
        assert point["below_resolution"] == (rate * others < 10)
        assert point["low"] <= point["tpr"] <= point["high"]
    assert told["auc"]["value"] == pytest.approx(
        intervals.auc(SCORES[COINS], SCORES[~COINS]).value
    )


def test_precision_falls_with_the_share_of_members(told):
    values = [each["value"] for each in told["ppv"]]
    assert values == sorted(values, reverse=True)
    point = told["tpr_at"][1]
    even = point["tpr"] / (point["tpr"] + point["realised_fpr"])
    assert values[0] == pytest.approx(even)


def test_balanced_accuracy_is_of_models_that_chose_no_threshold():
    # scores of each half of the models lie elsewhere: the other half's threshold fails
    moved = SCORES + 100 * (np.arange(20) < 10)[:, None]
    assert findings.balanced_accuracy(moved, COINS).value < 0.55
    assert findings.balanced_accuracy(SCORES, COINS).value > 0.8
    noise = np.random.default_rng(1).normal(size=COINS.shape)
    nothing = findings.balanced_accuracy(noise, COINS)
    assert nothing.low < 0.5 < nothing.high


def test_best_threshold_is_the_best_of_all():
    gains = [
        ((t <= SCORES) & COINS).sum() / COINS.sum()
        - ((t <= SCORES) & ~COINS).sum() / (~COINS).sum()
        for t in SCORES.ravel()
    ]
    best = findings.best_threshold(SCORES, COINS)
    assert SCORES.ravel()[np.argmax(gains)] == best


def test_a_threshold_lets_no_more_through_than_it_says():
    for fpr in (0.0, 0.01, 0.1, 1.0):
        threshold = findings.threshold_at(SCORES, COINS, fpr)
        point = intervals.tpr_at_fpr(SCORES[COINS], SCORES[~COINS], fpr)
        again = findings.at(SCORES, COINS, threshold)
        assert again["false_positives"] == point.false_positives
        assert again["true_positives"] == point.true_positives
    assert findings.threshold_at(-SCORES * 0, COINS, 0.01) == np.inf


def test_a_band_holds_its_curve():
    band = findings.band(SCORES, COINS)
    fpr, tpr, low, high = (np.array(band[n]) for n in ("fpr", "tpr", "low", "high"))
    assert (low <= tpr + 1e-6).all()
    assert (tpr <= high + 1e-6).all()
    assert fpr[-1] == tpr[-1] == 1


def test_a_histogram_counts_everyone():
    odd = SCORES.copy()
    odd[0, 0] = 1e9
    bars = findings.histogram(odd, COINS)
    assert sum(bars["members"]) == COINS.sum()
    assert sum(bars["non_members"]) == (~COINS).sum()
    assert len(bars["edges"]) == findings.BINS + 1
    assert np.isfinite(bars["edges"]).all()


def test_the_strongest_is_chosen_by_what_can_be_seen():
    weak = {"auc": {"value": 0.9}, "tpr_at": [{}, {"tpr": 0.1}, {}]}
    strong = {"auc": {"value": 0.8}, "tpr_at": [{}, {"tpr": 0.2}, {}]}
    assert findings.rank(strong, 1000) > findings.rank(weak, 1000)
    assert findings.rank(strong, 999) < findings.rank(weak, 999)


def test_exposed_canaries_are_listed_with_their_labels():
    labels = np.arange(60) % 10
    scores = SCORES.copy()
    scores[:, 17] += 5 * COINS[:, 17]
    effects, worst = findings.exposed(scores, COINS, labels.tolist(), count=5)
    assert len(effects) == 60
    assert worst[0]["record"] == 17
    assert worst[0]["label"] == 7
    assert len(worst) == 5
