"""Exposure of single classes: by hand, planted leaks, how often chance is a find."""

import numpy as np
import pytest
from scipy import stats

from rpjax import intervals
from rpjax.attacks.by_class import by_class, most_exposed_class
from rpjax.errors import InputError

# one in ten thousand runs of a correct program fails at each of these limits
ERROR = 1e-4
SIZES = (120, 80, 60, 40, 30, 24, 20, 16)


def halves(sizes):
    """A label and a coin for each record, half of each class in."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    coins = np.concatenate([np.arange(size) % 2 == 0 for size in sizes])
    return labels, coins[None]


def balanced(rng, models, records):
    """Coins of which each record has as many heads as tails."""
    return np.argsort(rng.random((models, records)), 0) < models // 2


@pytest.fixture(scope="module")
def worked():
    """Class 0 apart, class 1 all tied, class 2 one record, class 3 none."""
    scores = [*range(10, 16), *range(6), *[99.0] * 12, 7.0]
    coins = [1] * 6 + [0] * 6 + [1] * 6 + [0] * 6 + [1]
    labels = [0] * 12 + [1] * 12 + [2]
    return by_class([scores], [coins], labels, 4)


# ------------------------------------------------------------------------------ figures


def test_a_case_by_hand(worked):
    first, second = worked["classes"][:2]
    assert (first["members"], first["non_members"], first["records"]) == (6, 6, 12)
    assert first["auc"]["value"] == 1.0
    # six of six disjoint pairs, at 1 - 0.05 / 2: both ends err by 0.0125
    assert first["auc"]["low"] == pytest.approx(0.0125 ** (1 / 6))
    assert first["auc"]["high"] == 1.0
    assert second["auc"]["value"] == 0.5
    assert worked["intervals"] == 2
    assert worked["confidence"] == 0.95
    assert worked["confidence_each"] == pytest.approx(0.975)
    assert first["auc"]["confidence"] == worked["confidence_each"]
    worst = worked["most_exposed"]
    assert (worst["label"], worst["gap"], worst["others"]) == (0, 0.5, 0.5)


def test_what_too_few_records_cannot_say_is_none_with_a_reason(worked):
    first, _, single, nobody = worked["classes"]
    assert (
        single["auc"] is single["tpr_at"] is nobody["auc"] is nobody["tpr_at"] is None
    )
    assert single["missing"] == ["1 member; 6 are needed"]
    assert nobody["missing"] == ["no record of this class"]
    assert first["tpr_at"] is None
    assert first["missing"] == [
        "6 non-members: fewer than 10 false positives even at 20 % FPR"
    ]


def test_fewer_than_two_classes_are_not_compared():
    labels, coins = halves((20,))
    found = by_class(np.arange(20.0)[None], coins, labels, 3)
    assert found["most_exposed"] is None
    assert found["confidence_each"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("non_members", "rate"),
    [(49, None), (50, 0.2), (99, 0.2), (100, 0.1), (1000, 0.01)],
)
def test_members_found_are_at_the_lowest_rate_that_the_class_resolves(
    non_members, rate
):
    rng = np.random.default_rng(0)
    coins = np.arange(30 + non_members) < 30
    scores = rng.normal(size=coins.size) + coins
    (own,) = by_class(scores[None], coins[None], 0 * coins, 1)["classes"]
    if rate is None:
        assert own["tpr_at"] is None
        return
    point = intervals.tpr_at_fpr(scores[coins], scores[~coins], rate)
    assert own["tpr_at"] == point.as_dict()
    assert point.false_positives >= 10


def test_areas_are_those_within_each_class_ties_and_all():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    coins = balanced(rng, 4, 60)
    scores = np.round(rng.normal(size=(4, 60)) + coins + 5 * labels)
    found = by_class(scores, coins, labels, 3)
    for label, each in enumerate(found["classes"]):
        own, inside = scores[:, labels == label], coins[:, labels == label]
        area = intervals.auc(own[inside], own[~inside]).value
        assert each["auc"]["value"] == pytest.approx(area)
    worst = found["most_exposed"]
    assert worst["auc"] == pytest.approx(
        found["classes"][worst["label"]]["auc"]["value"]
    )


def test_infinite_scores_of_a_sure_net_are_ranked():
    labels, coins = halves((20, 20))
    scores = np.where(coins, np.inf, -np.inf)
    found = by_class(scores, coins, labels, 2)
    assert [each["auc"]["value"] for each in found["classes"]] == [1.0, 1.0]
    assert found["most_exposed"]["p_value"] == 1.0


# -------------------------------------------------------------------------- the finding


def test_a_leak_in_one_rare_class_is_found_and_named():
    rng = np.random.default_rng(1)
    labels, coins = halves(SIZES)
    scores = rng.normal(size=coins.shape) + 3 * coins * (labels == 6)
    found = by_class(scores, coins, labels, len(SIZES))
    assert found["most_exposed"]["label"] == 6
    assert found["most_exposed"]["p_value"] <= 0.01
    assert found["classes"][6]["auc"]["low"] > 0.5
    assert found["classes"][0]["auc"]["low"] < 0.5


def test_equal_leaks_are_no_find_where_classes_score_higher_or_lower():
    """Against all others pooled, or a class's own p-value, most would be a find."""
    labels, coins = halves(SIZES)
    finds = {shift: 0 for shift in (0, 3)}
    runs = 160
    for shift in finds:
        rng = np.random.default_rng(shift)
        for run in range(runs):
            scores = rng.normal(size=coins.shape) + coins + shift * (labels % 3)
            found = most_exposed_class(
                *(scores, coins, labels, list(range(len(SIZES)))),
                permutations=99,
                seed=run,
            )
            finds[shift] += found["p_value"] <= 0.05
    most, least = (stats.binom.ppf(p, runs, 0.05) for p in (1 - ERROR, ERROR))
    assert least <= finds[0] <= most
    assert finds[3] <= most


def test_intervals_hold_together_and_separate_ones_would_not():
    rng = np.random.default_rng(2)
    labels, coins = halves((60,) * 10)
    truth, runs = stats.norm.cdf(1 / np.sqrt(2)), 200
    together = apart = 0
    for _ in range(runs):
        scores = rng.normal(size=coins.shape) + coins
        ends = [
            [
                intervals.auc(own[::2], own[1::2], level)
                for own in np.split(scores[0], 10)
            ]
            for level in (0.995, 0.95)
        ]
        together += all(e.low <= truth <= e.high for e in ends[0])
        apart += all(e.low <= truth <= e.high for e in ends[1])
    assert together >= stats.binom.ppf(ERROR, runs, 0.95)
    assert apart < stats.binom.ppf(ERROR, runs, 0.95)
    areas = [c["auc"] for c in by_class(scores, coins, labels, 10)["classes"]]
    assert [a["low"] for a in areas] == [pytest.approx(e.low) for e in ends[0]]


# ----------------------------------------------------------------------- several models


def test_a_class_of_canaries_that_leaks_is_found_over_models():
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 5
    coins = balanced(rng, 16, 60)
    scores = (
        rng.normal(size=coins.shape) + rng.normal(size=60) + 4 * coins * (labels == 2)
    )
    found = by_class(scores, coins, labels, 6)
    worst = found["classes"][2]["auc"]
    assert found["most_exposed"]["label"] == 2
    assert found["most_exposed"]["p_value"] <= 0.01
    assert worst["method"] == "two-way bootstrap of models and records"
    assert 0.5 < worst["low"] < worst["value"] < worst["high"] <= 1
    point = found["classes"][2]["tpr_at"]
    assert point["target_fpr"] == 0.2
    assert point["low"] <= point["tpr"] <= point["high"]
    assert found["classes"][5]["missing"] == ["no record of this class"]


def test_a_perfect_separation_over_models_has_an_interval_with_a_width():
    """Resampling alone would give it none."""
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [10, 10, 7])
    coins = balanced(rng, 12, 27)
    found = by_class(10.0 * coins + rng.random(coins.shape), coins, labels, 3)
    first, _, few = found["classes"]
    # five pairs share neither a model nor a record; an error of 0.05 / 2 in all
    assert first["auc"]["low"] == pytest.approx(0.0125 ** (1 / 5))
    assert first["tpr_at"]["low"] == pytest.approx(0.0125 ** (1 / 5))
    assert few["auc"] is None
    assert few["missing"] == ["7 records; 8 are needed"]


def test_records_that_differ_are_no_find_over_models():
    """Cells of one record go together: exchanged one by one, chance would be a find."""
    labels, runs, finds = np.arange(40) % 4, 160, 0
    rng = np.random.default_rng(5)
    for run in range(runs):
        coins = balanced(rng, 8, 40)
        leak = 1.5 * rng.exponential(size=40)
        scores = rng.normal(size=coins.shape) + leak * coins
        found = most_exposed_class(
            scores, coins, labels, [0, 1, 2, 3], permutations=99, seed=run
        )
        finds += found["p_value"] <= 0.05
    least, most = (stats.binom.ppf(p, runs, 0.05) for p in (ERROR, 1 - ERROR))
    assert least <= finds <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0] * 9}, r"^labels: shape \(9,\); it is \(10,\)"),
        ({"labels": [3] * 10}, r"^labels: from 3 to 3; 0\.\.1"),
        ({"scores": [[np.nan] * 10]}, "^scores: 10 of them are not numbers"),
        ({"coins": [[1] * 10]}, "^coins: members and non-members are both needed"),
        ({"confidence": 1.0}, r"^confidence = 1\.0"),
    ],
)
def test_bad_input_is_refused_by_name(changes, message):
    given = {"scores": [range(10)], "coins": [[0, 1] * 5], "labels": [0] * 10}
    with pytest.raises(InputError, match=message):
        by_class(**(given | {"classes": 2} | changes))
