"""Attacks' scores in figures: what is written down of each, as plain JSON values.

All models of one set and all their canaries are pooled. Counts are of that pool;
intervals are those of resampled models and canaries, which the counts' own would not
cover (`rpjax.resampling`). None of it is a bound on epsilon: see `rpjax.audits`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rpjax import intervals, resampling
from rpjax.attacks.attack import thinned
from rpjax.attacks.suite import Found
from rpjax.attacks.vulnerability import effect_sizes, most_exposed

Scores = Float[np.ndarray, "models m"]
CoinTable = Bool[np.ndarray, "models m"]
Point = dict[str, Any]

RATES = (0.1, 0.01, 0.001)
HEADLINE = 0.01
PRIORS = (0.5, 0.1, 0.01)
REPLICATES = 400
BAND = 40
BINS = 40


def attack(found: Found, coins: CoinTable, seed: int = 0) -> dict[str, Any]:
    """An attack of set A: AUC, balanced accuracy, rates, precision, the ROC curve."""
    entry, scores = found.entry, found.scores_a
    area, points = rates(scores, coins, seed)
    headline = points[RATES.index(HEADLINE)]
    return {
        "name": entry.name,
        "label": entry.label,
        "threat": found.threat,
        "auc": area.as_dict(),
        "balanced_accuracy": balanced_accuracy(scores, coins, seed).as_dict(),
        "tpr_at": points,
        "ppv": [precision(headline, coins, prior) for prior in PRIORS],
        "roc": curve(scores, coins),
    }


def rates(
    scores: Scores, coins: CoinTable, seed: int = 0
) -> tuple[intervals.Estimate, list[Point]]:
    """The AUC, and the share of members found at each of `RATES`, with its counts."""
    area, estimates = resampling.auc_and_rates(
        scores, coins, RATES, replicates=REPLICATES, seed=seed
    )
    points = []
    for rate, estimate in zip(RATES, estimates, strict=True):
        point = intervals.tpr_at_fpr(scores[coins], scores[~coins], rate).as_dict()
        points.append(point | {"low": estimate.low, "high": estimate.high})
    return area, points


def at(scores: Scores, coins: CoinTable, threshold: float) -> Point:
    """The share found by a threshold that was fixed elsewhere, on other models."""
    members, others = scores[coins], scores[~coins]
    found, wrong = int((members >= threshold).sum()), int((others >= threshold).sum())
    share = intervals.clopper_pearson(found, members.size)
    return {
        "target_fpr": HEADLINE,
        "realised_fpr": wrong / others.size,
        "tpr": share.value,
        "low": share.low,
        "high": share.high,
        "true_positives": found,
        "false_positives": wrong,
        "below_resolution": bool(others.size * HEADLINE < 10),
    }


def balanced_accuracy(
    scores: Scores, coins: CoinTable, seed: int = 0
) -> intervals.Estimate:
    """Of each half of the models at the threshold that is best on the other half.

    It is the AUC of the verdicts, and has its interval.
    """
    half = np.arange(len(scores)) < len(scores) // 2
    verdicts = np.zeros(scores.shape)
    for own in (half, ~half):
        threshold = best_threshold(scores[~own], coins[~own])
        verdicts[own] = scores[own] >= threshold
    return resampling.auc(verdicts, coins, replicates=REPLICATES, seed=seed)


def best_threshold(scores: Scores, coins: CoinTable) -> float:
    """Where the share of right verdicts, both groups weighing the same, is largest."""
    order = np.argsort(-scores, axis=None)
    falling, member = scores.ravel()[order], coins.ravel()[order]
    gain = np.cumsum(member) / coins.sum() - np.cumsum(~member) / (~coins).sum()
    last = np.append(falling[1:] != falling[:-1], True)
    return float(falling[np.argmax(np.where(last, gain, -np.inf))])


def threshold_at(scores: Scores, coins: CoinTable, fpr: float = HEADLINE) -> float:
    """The lowest score at which no more than that share of non-members stand."""
    others = np.sort(scores[~coins])[::-1]
    allowed = int(fpr * others.size * (1 + 1e-12))
    above = scores[scores > others[allowed]] if allowed < others.size else scores
    return float(above.min()) if above.size else float(np.inf)


def precision(point: Point, coins: CoinTable, prior: float) -> dict[str, Any]:
    """What a verdict at this point is worth where a share `prior` are members."""
    counts = (point["true_positives"], int(coins.sum()))
    wrong = (point["false_positives"], int((~coins).sum()))
    found = intervals.precision(*counts, *wrong, prior)
    values = (
        (None, None, None) if found is None else (found.value, found.low, found.high)
    )
    return {"prior": prior, **dict(zip(("value", "low", "high"), values, strict=True))}


def curve(scores: Scores, coins: CoinTable) -> dict[str, list[float]]:
    """The pooled ROC curve, thinned; without a band."""
    fpr, tpr = thinned(*intervals.roc(scores[coins], scores[~coins]))
    rounded = (x.round(6).tolist() for x in (fpr, tpr))
    return {**dict(zip(("fpr", "tpr"), rounded, strict=True)), "low": [], "high": []}


def band(scores: Scores, coins: CoinTable, seed: int = 0) -> dict[str, list[float]]:
    """The ROC curve at some rates on a logarithmic grid, with its interval at each."""
    grid = np.geomspace(1 / (~coins).sum(), 1, BAND)
    tpr = [intervals.tpr_at_fpr(scores[coins], scores[~coins], x).tpr for x in grid]
    low, high = resampling.roc_band(
        scores, coins, grid, replicates=REPLICATES, seed=seed
    )
    names = ("fpr", "tpr", "low", "high")
    columns = (grid, np.array(tpr), low, high)
    return {n: x.round(6).tolist() for n, x in zip(names, columns, strict=True)}


def rank(attack: dict[str, Any], non_members: int) -> tuple[float, float]:
    """By what the strongest is chosen: the headline rate, if it can be seen at all."""
    point = attack["tpr_at"][RATES.index(HEADLINE)]
    area = attack["auc"]["value"]
    seen = non_members * HEADLINE >= 10
    return (point["tpr"] if seen else area, area)


def histogram(scores: Scores, coins: CoinTable) -> dict[str, list[float]]:
    """Counts of the scores of members and of others; outliers in the outer bins."""
    low, high = np.quantile(scores, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    inner = np.clip(scores, edges[0], edges[-1])
    return {
        "edges": edges.tolist(),
        "members": np.histogram(inner[coins], edges)[0].tolist(),
        "non_members": np.histogram(inner[~coins], edges)[0].tolist(),
    }


def exposed(
    scores: Scores, coins: CoinTable, labels: Sequence[int], count: int = 25
) -> tuple[list[float | None], list[dict[str, Any]]]:
    """Effect size of each canary, and those that are found in most models."""
    effects = effect_sizes(scores, coins)
    worst = most_exposed(scores, coins, threshold_at(scores, coins), count)
    listed = [each.as_dict() | {"label": int(labels[each.record])} for each in worst]
    return [float(e) if np.isfinite(e) else None for e in effects], listed
