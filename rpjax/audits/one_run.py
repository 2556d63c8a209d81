"""A lower bound on epsilon from guesses of many coins in one run, or in a few.

An attacker sees what one training with m canaries released and guesses r of the m
coins, v of them rightly. If the procedure is (epsilon, delta)-DP, so many right guesses
are unlikely. Source: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training
Run", arXiv 2305.08846, Theorem 5.2.

Conditions, without which nothing here is a bound:

* the m coins are fair and independent, also given everything the guesser saw and knew
  before; guesses may depend on all outputs, on public data, and on coins of *other*
  models trained with other randomness, never on coins that are audited;
* the number of guesses is fixed before the coins are looked at, or the confidence is
  corrected for every number tried;
* runs may be pooled, m counting the coins of all of them, if their training randomness
  is independent: a run that shares its noise reveals that of the others.

Then it holds for every (epsilon, delta)-DP procedure, with no assumption on its form or
on interference between canaries. A small bound proves nothing about privacy.
"""

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks


def p_value(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """Largest chance of so many right guesses if the procedure is (epsilon, delta)-DP.

    With f(j) = P[Bin(r, e^epsilon / (1 + e^epsilon)) >= j] it is f(v) + 2 m delta max_i
    (f(v - i) - f(v)) / i over i = 1..v, at most 1: Theorem 5.2 of the source.

    Args:
        canaries: m, all coins, of all pooled runs, guessed or not.
        guesses: r, those guessed "in" and those guessed "out" together.
        correct: v, the right ones among them.
        epsilon: the claim, zero or more.
        delta: the claim's, in [0, 1).

    >>> f"{p_value(1000, 100, 95, 2.0, 1e-5):.7f}"
    '0.0178246'
    """
    check_counts(canaries, guesses, correct)
    checks.not_negative("epsilon", epsilon)
    checks.probability("delta", delta)
    if correct == 0:
        return 1.0
    right = scipy.special.expit(epsilon)
    chance = scipy.special.betainc(correct, guesses - correct + 1, right)
    if delta > 0:
        # (f(v - i) - f(v)) / i is the mean of the i probabilities just below v
        below = _probabilities_below(guesses, correct, epsilon)
        steepest = (np.cumsum(below) / np.arange(1, correct + 1)).max()
        chance += 2 * canaries * delta * steepest
    return float(min(chance, 1.0))


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """Largest epsilon that the guesses refute at this delta: a bound, see the module.

    With the stated confidence the procedure is not (e, delta)-DP for any e below it; 0
    where nothing is refuted. At most logit((1 - confidence)^(1/guesses)), whatever the
    attack.

    >>> f"{epsilon_lower_bound(1000, 100, 95, 1e-5):.6f}"
    '2.165176'
    >>> epsilon_lower_bound(1000, 1000, 500, 1e-5)
    0.0
    """
    check_counts(canaries, guesses, correct)
    checks.fraction("confidence", confidence)
    alpha = 1 - confidence
    # Where 2 m delta > 1 the p-value might have several roots. Each is a bound: the
    # concave envelope that the theorem's line lies above is monotone in epsilon.
    excess = lambda e: p_value(canaries, guesses, correct, e, delta) - alpha
    if excess(0.0) >= 0:
        return 0.0
    highest = without_delta(guesses, correct, alpha)
    if excess(highest) <= 0:  # equal, but for rounding, where delta has no part
        return highest
    return float(scipy.optimize.brentq(excess, 0.0, highest, xtol=1e-12))


def without_delta(guesses: int, correct: int, alpha: float) -> float:
    """The bound at delta 0, where f(v) = alpha has a closed form; delta lowers it."""
    if correct == 0:
        return 0.0
    right = scipy.special.betaincinv(correct, guesses - correct + 1, alpha)
    return max(0.0, float(scipy.special.logit(right)))


def correct_guesses(
    scores: npt.ArrayLike,
    inside: npt.ArrayLike,
    guess_in: int,
    guess_out: int,
    seed: int,
) -> int:
    """Right guesses if the highest scores are guessed "in" and the lowest "out".

    Scores of all pooled runs are ranked together. Ties are broken at random from
    `seed`, never by position, since positions may know the coins.

    Args:
        scores: of any shape, such as (models, canaries); large means member.
        inside: the coins, of the same shape.
        guess_in: how many are guessed "in".
        guess_out: how many are guessed "out"; no more than are left.
        seed: of the ties.

    >>> correct_guesses([0.9, 0.8, 0.2, 0.1], [1, 0, 0, 0], 2, 1, seed=0)
    2
    """
    coins = np.asarray(inside, dtype=np.bool_).ravel()
    order = ranking(scores, seed)
    if order.size != coins.size:
        raise InputError(f"scores: {order.size} of them for {coins.size} coins")
    checks.whole("guess_in", guess_in, 0)
    checks.whole("guess_out", guess_out, 0)
    if guess_in + guess_out > coins.size:
        raise InputError(f"guess_in + guess_out: more than the {coins.size} coins")
    return int(count_right(coins[None], order, guess_in, guess_out)[0])


def count_right(
    coins: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    guess_in: int,
    guess_out: int,
) -> npt.NDArray[np.int64]:
    """Right guesses in each row of coins, from positions in order of their scores."""
    found = coins[:, order[:guess_in]].sum(axis=1)
    mistaken = coins[:, order[order.size - guess_out :]].sum(axis=1)
    right: npt.NDArray[np.int64] = found + guess_out - mistaken
    return right


def ranking(scores: npt.ArrayLike, seed: int) -> npt.NDArray[np.int64]:
    """Positions from the highest score to the lowest, ties in random order."""
    flat = np.asarray(scores, dtype=np.float64).ravel()
    if np.isnan(flat).any():
        raise InputError(f"scores: {np.isnan(flat).sum()} of them are not numbers")
    shuffled = np.random.default_rng([seed, 0x71E5]).random(flat.size)
    return np.lexsort((shuffled, -flat)).astype(np.int64)


def check_counts(canaries: int, guesses: int, correct: int) -> None:
    """Refuse more guesses than coins, or more right ones than guesses."""
    checks.whole("canaries", canaries)
    if not 0 <= guesses <= canaries:
        raise InputError(f"guesses = {guesses}: must lie in 0..{canaries}")
    if not 0 <= correct <= guesses:
        raise InputError(f"correct = {correct}: must lie in 0..{guesses}")


def _probabilities_below(
    guesses: int, correct: int, epsilon: float
) -> npt.NDArray[np.float64]:
    """P[Bin(guesses, expit(epsilon)) = j] for j = correct - 1 down to 0."""
    log_factorial = scipy.special.gammaln
    j = np.arange(correct - 1, -1, -1, dtype=np.float64)
    ways = log_factorial(guesses + 1) - log_factorial(j + 1)
    ways -= log_factorial(guesses - j + 1)
    right, wrong = scipy.special.log_expit(np.array([epsilon, -epsilon]))
    found: npt.NDArray[np.float64] = np.exp(ways + j * right + (guesses - j) * wrong)
    return found
