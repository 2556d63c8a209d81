"""Why coins cannot be audited: what the bounds assume, checked as far as it shows.

Fair and independent coins look suspicious to each check with probability below 1e-6.
Not all dependence shows in the coins: where they come from, and which of them a score
has seen, is for the user to answer for.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.audits.designs import Coins, table
from rpjax.errors import InputError

IMPLAUSIBLE = 1e-6

Inside = npt.NDArray[np.bool_]


def auditable(
    coins_a: Coins | npt.ArrayLike, coins_b: Coins | npt.ArrayLike
) -> tuple[Inside, Inside]:
    """The coins of both sets as arrays, where those of B may be audited.

    Raises:
        InputError: B is balanced, unfair, or repeats coins; or A and B share some.
    """
    if coins_a is coins_b:
        raise InputError("coins_b: the same as coins_a; B needs models of its own")
    inside_a, inside_b = table(coins_a, "coins_a"), table(coins_b, "coins_b")
    if inside_a.shape[1] != inside_b.shape[1]:
        told = f"{inside_b.shape[1]} canaries, but coins_a has {inside_a.shape[1]}"
        raise InputError(f"coins_b: {told}; both sets need the same canaries")
    if isinstance(coins_b, Coins):
        _refuse_recorded(coins_a, coins_b)
    for along, inside in (("canary", inside_b), ("model", inside_b.T)):
        _refuse_balanced(inside, along)
        _refuse_unfair(inside.sum(axis=0), len(inside), f"a {along} is")
    _refuse_unfair(inside_b.sum(keepdims=True), inside_b.size, "canaries are")
    _refuse_repeated(inside_a, inside_b)
    return inside_a, inside_b


def independent_training(training_keys: Any, models: int) -> None:
    """Refuse models that were trained with the same key.

    Args:
        training_keys: one id for each model of A and then of B, (models,), or key data,
            (models, words).
        models: how many there are in both sets.

    Raises:
        InputError: another number of them, or two that are equal.
    """
    keys: list[Hashable] = [
        tuple(np.ravel(key).tolist()) for key in np.atleast_1d(training_keys)
    ]
    if len(keys) != models:
        raise InputError(f"training_keys: {len(keys)} for {models} models, A and B")
    if len(set(keys)) < models:
        raise InputError(
            "training_keys: two models share one; pooled runs need independent "
            "training randomness, since one run reveals the noise of the other"
        )


def _refuse_recorded(coins_a: Coins | npt.ArrayLike, coins_b: Coins) -> None:
    if coins_b.kind != "independent":
        raise InputError(
            "coins_b: balanced coins cannot be audited, since a model's coin follows "
            "from those of the others; use audits.independent"
        )
    if isinstance(coins_a, Coins) and (coins_a.kind, coins_a.seed) == (
        coins_b.kind,
        coins_b.seed,
    ):
        raise InputError(f"coins_b: drawn from the seed of coins_a, {coins_b.seed}")


def _refuse_balanced(inside: Inside, along: str) -> None:
    """Refuse counts along axis 0 that are more equal than those of fair coins."""
    tosses, columns = inside.shape
    counts = inside.sum(axis=0)
    if (counts == counts[0]).all():
        possible = np.arange(tosses + 1)
        if 2 * counts[0] == tosses:
            possible = counts[:1]
        log_chance = scipy.stats.binom.logpmf(possible, tosses, 0.5)
        chance = np.exp(scipy.special.logsumexp(columns * log_chance))
    else:
        # the mean of these squares is 1, their variance 2 - 2/tosses
        squares = (counts - tosses / 2) ** 2 / (tosses / 4)
        width = np.sqrt(columns * (2 - 2 / tosses))
        chance = scipy.special.ndtr((squares.sum() - columns) / max(width, 1.0))
    if chance < IMPLAUSIBLE:
        raise InputError(
            f"coins_b: each {along} is inside (nearly) as often as the others, so they "
            "are not independent coins; draw them with audits.independent"
        )


def _refuse_unfair(counts: npt.NDArray[np.int64], tosses: int, what: str) -> None:
    rarer = np.minimum(counts, tosses - counts).min()
    if 2 * counts.size * scipy.stats.binom.cdf(rarer, tosses, 0.5) < IMPLAUSIBLE:
        raise InputError(
            f"coins_b: {what} inside too often or too seldom for fair coins; draw "
            "them with audits.independent"
        )


def _refuse_repeated(inside_a: Inside, inside_b: Inside) -> None:
    """Refuse coins of A, and two models or two canaries with the same coins."""
    # one canary's coins recur from row to row, but not all of them
    if np.array_equal(inside_a, inside_b) and 0.5**inside_b.size < IMPLAUSIBLE:
        raise InputError("coins_b: the same as coins_a; B needs models of its own")
    shared = len(_distinct(inside_a)) + len(_distinct(inside_b))
    shared -= len(_distinct(np.concatenate([inside_a, inside_b])))
    models, canaries = inside_b.shape
    if shared and len(inside_a) * models * 0.5**canaries < IMPLAUSIBLE:
        raise InputError("coins_b: holds rows of coins_a; B needs models of its own")
    for rows, what in ((inside_b, "models"), (inside_b.T, "canaries")):
        pairs = len(rows) * (len(rows) - 1) / 2
        twice = len(_distinct(rows)) < len(rows)
        if twice and pairs * 0.5 ** rows.shape[1] < IMPLAUSIBLE:
            raise InputError(f"coins_b: two {what} have the same coins")


def _distinct(rows: Inside) -> set[bytes]:
    return {row.tobytes() for row in np.packbits(rows, axis=1)}
