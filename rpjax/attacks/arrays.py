"""Scores and coins of many models, checked: what the attacks on arrays take.

Scores ``S[r, i]`` or ``S[r, i, q]``: model r, record i, query q (an augmentation, a
draw of the noise); large = member. Coins ``C[r, i]``: whether record i was in the
training set of model r. A is the set of models whose coins are known (shadow models),
B are the targets. Any framework's scores do, as NumPy arrays.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

from rpjax.errors import InputError

Scores = Float[np.ndarray, "models records queries"]
Coins = Bool[np.ndarray, "models records"]

# beyond it squares overflow; it is no score of a net but a stand-in for infinity
LARGEST = 1e100


class Known(NamedTuple):
    """The models whose coins are known: scores (models, records, queries), coins."""

    scores: Scores
    coins: Coins


def known(scores: npt.ArrayLike, coins: npt.ArrayLike, suffix: str = "") -> Known:
    """Scores with one coin for each model and record; suffix: of the fields' names.

    Raises:
        InputError: a score that is not a number or infinite, a coin that is none,
            shapes that do not agree.
    """
    checked = checked_scores(scores, "scores" + suffix)
    return Known(checked, checked_coins(coins, checked.shape[:2], "coins" + suffix))


def known_and_asked(
    scores_a: npt.ArrayLike, coins_a: npt.ArrayLike, scores_b: npt.ArrayLike
) -> tuple[Known, Scores]:
    """The models of A, and the scores of B on the same records and queries."""
    a = known(scores_a, coins_a, "_a")
    b = checked_scores(scores_b, "scores_b")
    if b.shape[1:] != a.scores.shape[1:]:
        raise InputError(
            f"scores_b: {_counts(b)}, but scores_a: {_counts(a.scores)}; "
            "shadow models and targets answer the same queries on the same records"
        )
    return a, b


def checked_scores(scores: npt.ArrayLike, field: str) -> Scores:
    """Scores in float64 with an axis of queries, added where there is none."""
    array = np.asarray(scores, np.float64)
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            f"{field}: shape {array.shape}; it is (models, records) or "
            "(models, records, queries), none of them 0"
        )
    usable = np.abs(array) <= LARGEST  # NaN is not
    if not usable.all():
        model, record = np.argwhere(~usable)[0][:2]
        raise InputError(
            f"{field}: {(~usable).sum()} scores are NaN, infinite or beyond "
            f"{LARGEST:.0e}, the first of model {model} on record {record}; "
            "leave out models that diverged, and clip the scores of the others"
        )
    return array if array.ndim == 3 else array[:, :, None]


def checked_coins(coins: npt.ArrayLike, shape: tuple[int, ...], field: str) -> Coins:
    """Coins as booleans, (models, records)."""
    array = np.asarray(coins)
    if array.shape != shape:
        raise InputError(f"{field}: shape {array.shape}; the scores ask for {shape}")
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{field}: a coin is True or False, 1 or 0")
    return array.astype(bool)


def check_worlds(coins: Coins, least_in: int, least_out: int) -> None:
    """Refuse records that too few models were trained with, or without."""
    inside = coins.sum(0)
    for name, counts, least in (
        ("in", inside, least_in),
        ("out of", len(coins) - inside, least_out),
    ):
        if (counts < least).any():
            record = int(np.argmax(counts < least))
            raise InputError(
                f"coins: record {record} is {name} the training set of "
                f"{counts[record]} models, at least {least} are needed; "
                "train more shadow models or leave the record out"
            )


def _counts(scores: Scores) -> str:
    _, records, queries = scores.shape
    return f"{records} records, {queries} queries"
