"""Intervals: exact values against scipy and scikit-learn, coverage by simulation.

The simulations have fixed seeds. Each states how often a correct interval would fail
the assertion for a random seed.
"""

import json
import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score, roc_curve

from rpjax.errors import InputError
from rpjax.intervals import (
    Estimate,
    auc,
    balanced_accuracy,
    clopper_pearson,
    difference_of_proportions,
    precision,
    roc,
    tpr_at_fpr,
)


def tied_scores(seed, members=57, nonmembers=83):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 9, members) / 2.0, rng.integers(0, 8, nonmembers) / 2.0


# ---------------------------------------------------------------------- proportions


@pytest.mark.parametrize(
    ("hits", "trials"), [(0, 1), (0, 30), (1, 30), (352, 360), (30, 30)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_clopper_pearson_is_scipys_exact_interval(hits, trials, confidence):
    ours = clopper_pearson(hits, trials, confidence)
    theirs = scipy.stats.binomtest(hits, trials).proportion_ci(confidence, "exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (ours.value, ours.n, ours.confidence) == (hits / trials, trials, confidence)


def test_newcombes_published_examples_are_reproduced():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80, 9/10 - 3/10, 10/10 - 0/20
    for counts, low, high in [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((10, 10, 0, 20), 0.6791, 1.0),
    ]:
        found = difference_of_proportions(*counts)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_a_difference_changes_sign_with_the_order_of_its_groups():
    there = difference_of_proportions(40, 50, 30, 60)
    back = difference_of_proportions(30, 60, 40, 50)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert there.n == 110


@pytest.mark.parametrize("truth", [(0.98, 0.9), (0.6, 0.6), (0.999, 0.97)])
def test_the_gap_interval_covers_the_truth_as_often_as_it_says(truth):
    # 2,000 trials at a true coverage of 0.95: below 0.93 with probability 3e-5
    rng = np.random.default_rng(7)
    hits = [rng.binomial(n, p, 2000) for n, p in zip((300, 150), truth, strict=True)]
    gap = truth[0] - truth[1]
    covered = 0
    for a, b in zip(*hits, strict=True):
        found = difference_of_proportions(int(a), 300, int(b), 150)
        covered += found.low <= gap <= found.high
    assert covered / 2000 > 0.93


def test_balanced_accuracy_is_the_mean_of_the_two_rates():
    found = balanced_accuracy(70, 100, 120, 200)
    assert found.value == pytest.approx((0.7 + 0.6) / 2)
    gap = difference_of_proportions(70, 100, 80, 200)
    assert (found.low, found.high) == pytest.approx(
        ((1 + gap.low) / 2, (1 + gap.high) / 2)
    )
    assert found.low < found.value < found.high


# ----------------------------------------------------------------------- ROC curves


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_roc_agree_with_scikit_learn_when_scores_are_tied(seed):
    members, nonmembers = tied_scores(seed)
    truth = np.repeat([1, 0], [members.size, nonmembers.size])
    scores = np.concatenate([members, nonmembers])
    assert auc(members, nonmembers).value == pytest.approx(roc_auc_score(truth, scores))
    wrong, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    ours = roc(members, nonmembers)
    np.testing.assert_allclose(np.interp(wrong, *ours), np.interp(wrong, wrong, found))
    assert np.trapezoid(ours[1], ours[0]) == pytest.approx(roc_auc_score(truth, scores))


def test_delongs_variance_is_that_of_its_definition():
    members, nonmembers = tied_scores(11)
    above = members[:, None] > nonmembers[None, :]
    wins = above + 0.5 * (members[:, None] == nonmembers[None, :])
    variance = wins.mean(1).var(ddof=1) / members.size
    variance += wins.mean(0).var(ddof=1) / nonmembers.size
    value, z = wins.mean(), scipy.stats.norm.ppf(0.975)
    half = z * math.sqrt(variance) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    found = auc(members, nonmembers)
    assert found.method == "DeLong (logit)"
    expected = [1 / (1 + math.exp(-centre - side * half)) for side in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("sizes", [(40, 60), (150, 150)])
def test_the_auc_interval_covers_the_truth_as_often_as_it_says(shift, sizes):
    # 1,000 trials at a true coverage of 0.95: below 0.925 with probability 4e-4; an
    # interval of 90 % confidence would pass with probability 4e-3
    rng = np.random.default_rng(3)
    truth = scipy.stats.norm.cdf(shift / math.sqrt(2))
    covered = 0
    for _ in range(1000):
        found = auc(rng.normal(shift, 1, sizes[0]), rng.normal(0, 1, sizes[1]))
        covered += found.low <= truth <= found.high
    assert covered / 1000 > 0.925


def test_rare_outliers_behind_a_perfect_separation_are_not_ruled_out():
    # 2 % of members score below everything: 60 of them often show none at all. 1,000
    # trials at a true coverage of 0.95: below 0.925 with probability 4e-4
    rng = np.random.default_rng(5)
    covered, perfect = 0, 0
    for _ in range(1000):
        members = np.where(rng.random(60) < 0.02, -10.0, 10.0)
        found = auc(members + rng.normal(size=60), rng.normal(size=60))
        covered += found.low <= 0.98 <= found.high
        perfect += found.value == 1
    assert perfect > 200
    assert covered / 1000 > 0.925


def test_a_perfect_auc_keeps_an_interval_with_a_width():
    best = auc(np.arange(50.0) + 100, np.arange(80.0))
    assert (best.value, best.high) == (1.0, 1.0)
    # all of 50 disjoint pairs are concordant: low^50 = 0.025
    assert best.low == pytest.approx(0.025 ** (1 / 50))
    worst = auc(np.arange(80.0), np.arange(50.0) + 100)
    assert (worst.value, worst.low) == (0.0, 0.0)
    assert worst.high == pytest.approx(1 - best.low)


def test_one_swapped_pair_gives_no_more_certainty_than_none():
    members, nonmembers = np.arange(300.0) + 300, np.arange(300.0)
    perfect = auc(members, nonmembers)
    members[0], nonmembers[-1] = nonmembers[-1], members[0]
    swapped = auc(members, nonmembers)
    assert swapped.value == 1 - 1 / 300**2
    assert swapped.low <= perfect.low
    # six discordant pairs in three hundred are enough for DeLong
    assert auc(np.arange(300) + 0.0, np.arange(300) - 240.0).method == "DeLong (logit)"


def test_constant_scores_give_a_half_and_no_false_certainty():
    flat = auc(np.zeros(40), np.zeros(40))
    assert flat.value == 0.5
    assert flat.low < 0.4 < 0.6 < flat.high


def test_one_record_on_a_side_gives_a_wide_interval():
    lone = auc([0.5], np.linspace(0, 1, 101))
    assert lone.high - lone.low > 0.9


def test_tpr_is_read_at_the_largest_rate_not_above_the_target():
    # three non-members tied at the top with two members: the rates are 0, 0.3, ...
    nonmembers = np.array([5, 5, 5, 4, 3, 2, 1, 1, 1, 0.0])
    members = np.array([6, 5, 5, 4, 0.0])
    point = tpr_at_fpr(members, nonmembers, 0.25)
    assert (point.realised_fpr, point.tpr) == (0.0, 0.2)
    point = tpr_at_fpr(members, nonmembers, 0.3)
    assert (point.realised_fpr, point.tpr) == (0.3, 0.6)
    assert (point.true_positives, point.false_positives) == (3, 3)
    exact = clopper_pearson(3, 5)
    assert (point.low, point.high) == (exact.low, exact.high)
    assert tpr_at_fpr(members, nonmembers, 1.0).tpr == 1.0


def test_at_rate_zero_members_above_every_nonmember_are_found():
    assert tpr_at_fpr([3.0, 2.0, 0.5], [1.0, 0.0], 0.0).true_positives == 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.0, 0.01, 0.07, 0.1, 0.5])
def test_no_threshold_beats_the_operating_point(seed, target):
    members, nonmembers = tied_scores(seed, 40, 100)
    point = tpr_at_fpr(members, nonmembers, target)
    best = max(
        (members >= t).sum()
        for t in [*np.unique(nonmembers), *np.unique(members), np.inf]
        if (nonmembers >= t).sum() <= round(100 * target)
    )
    assert point.true_positives == best
    assert point.realised_fpr <= target


@pytest.mark.parametrize("allowed", [7, 14, 29, 57])
def test_rounding_of_the_target_loses_no_false_positive(allowed):
    point = tpr_at_fpr(np.arange(100.0), np.arange(100.0), allowed / 100)
    assert point.false_positives == allowed


def test_fewer_than_ten_allowed_false_positives_is_below_resolution():
    scores = np.arange(1000.0)
    assert not tpr_at_fpr(scores, scores, 0.01).below_resolution
    assert tpr_at_fpr(scores, scores[:-1], 0.01).below_resolution


def test_the_roc_of_scores_without_ties_has_no_point_on_a_straight_line():
    fpr, tpr = roc([4.0, 3.0, 1.0], [2.0, 0.5, 0.1])
    np.testing.assert_allclose(fpr, [0, 0, 1 / 3, 1 / 3, 1])
    np.testing.assert_allclose(tpr, [0, 2 / 3, 2 / 3, 1, 1])
    fpr, tpr = roc([1.0, 1.0], [1.0])
    assert (fpr.tolist(), tpr.tolist()) == ([0, 1], [0, 1])


def test_infinite_scores_are_scores():
    assert auc([np.inf, 1.0], [-np.inf, 0.0]).value == 1.0


# ------------------------------------------------------------------------- refusals


def test_an_estimate_prints_in_percent_and_turns_into_json():
    estimate = clopper_pearson(np.int64(352), np.int64(360))
    assert str(estimate) == "97.8 % [95.7, 99.0]"
    back = json.loads(json.dumps(estimate.as_dict(), allow_nan=False))
    assert Estimate(**back) == estimate
    point = tpr_at_fpr([1.0], [0.0], 0.5).as_dict()
    assert set(json.loads(json.dumps(point))) == {
        *("target_fpr", "realised_fpr", "tpr", "low", "high"),
        *("true_positives", "false_positives", "below_resolution"),
    }


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: clopper_pearson(1, 0), "trials"),
        (lambda: clopper_pearson(4, 3), "successes"),
        (lambda: clopper_pearson(-1, 3), "successes"),
        (lambda: clopper_pearson(1, 3, 1.0), "confidence"),
        (lambda: difference_of_proportions(1, 2, 3, 2), "second_successes"),
        (lambda: balanced_accuracy(1, 2, 3, 2), "true_negatives"),
        (lambda: auc([], [1.0]), "member_scores"),
        (lambda: auc([1.0], [1.0, math.nan]), "nonmember_scores"),
        (lambda: roc([math.nan], [1.0]), "member_scores"),
        (lambda: tpr_at_fpr([1.0], [[1.0]], 0.1), "nonmember_scores"),
        (lambda: tpr_at_fpr([1.0], [1.0], 1.5), "fpr"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_the_field(call, field):
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    assert message.startswith(field)
    assert "\n" not in message


# ------------------------------------------------------------------------ precision


def test_precision_is_bayes_theorem_at_each_prior():
    for prior in (0.5, 0.1, 0.01):
        found = precision(40, 100, 5, 1000, prior)
        said = prior * 0.4 + (1 - prior) * 0.005
        assert found.value == pytest.approx(prior * 0.4 / said)
        assert found.low < found.value < found.high
    # equal rates say nothing: the prior is left
    assert precision(30, 100, 300, 1000, 0.1).value == pytest.approx(0.1)


def test_precision_without_false_positives_is_no_certainty():
    """One in 1,000 could be missed: at a prior of 1 % four in ten may be wrong."""
    found = precision(20, 100, 0, 1000, 0.01)
    assert found.value == found.high == 1
    assert 0.1 < found.low < 0.3
    assert precision(0, 100, 0, 1000, 0.01) is None
    assert precision(0, 100, 3, 1000, 0.01).value == 0


def test_the_interval_of_precision_covers_as_often_as_it_says():
    # at least 0.95 by construction: below 0.92 in 400 trials with probability 7e-3
    rng = np.random.default_rng(3)
    tpr, fpr, prior = 0.3, 0.01, 0.1
    truth = prior * tpr / (prior * tpr + (1 - prior) * fpr)
    hits, wrong = rng.binomial(200, tpr, 400), rng.binomial(1000, fpr, 400)
    covered = 0
    for a, b in zip(hits, wrong, strict=True):
        found = precision(int(a), 200, int(b), 1000, prior)
        covered += found.low <= truth <= found.high
    assert covered / 400 > 0.92


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, float("nan")])
def test_precision_refuses_a_prior_that_is_none(prior):
    with pytest.raises(InputError, match="prior = "):
        precision(20, 100, 2, 1000, prior)
