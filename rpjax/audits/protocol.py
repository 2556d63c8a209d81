"""The audit: everything is chosen on set A, and set B is looked at once.

A and B are models of the same procedure. A's coins are known and serve to tune; B's are
fair, independent and secret until the guesses are made. Then the one-run bound on the
coins of B holds with its stated confidence, whatever was tried on A.

The numbers beside it say of themselves what they are: "bound", "estimate" (an
assumption is missing) or "credible interval" (no error rate is promised). Each holds on
its own; the largest of several does not.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from rpjax.audits import bayesian, f_dp, one_run, rates, refusals
from rpjax.audits.designs import Coins, table
from rpjax.errors import InputError
from rpjax.privacy import checks, gdp

Adjacency = Literal[
    "add or remove one canary", "replace a canary by its pair, label equal"
]
Threat = Literal["T1", "T2", "T3", "T4", "T5"]
Sides = Literal["in", "out", "both"]
Kind = Literal["bound", "estimate", "credible interval"]
Scores = npt.NDArray[np.float64]

# shares of all coins that are guessed on a side: the grid that set A chooses from
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SIDES: tuple[Sides, ...] = ("in", "out", "both")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of an audit.

    name: "epsilon" or "mu".
    value: the lower limit.
    kind: what it is.
    method: where it comes from.
    condition: what it rests on, or lacks.
    upper: the upper end, of a credible interval.
    """

    name: Literal["epsilon", "mu"]
    value: float
    kind: Kind
    method: str
    condition: str
    upper: float | None = None


@dataclasses.dataclass(frozen=True)
class Tested:
    """A claim about the procedure, and whether the guesses refute it.

    name, claimed: what is claimed, of the adjacency and delta of the audit.
    p_value: corrected for the number of tests.
    refuted: it is below one minus the confidence. Several claims of one kind are nested
        and need no further correction.
    """

    name: Literal["epsilon", "mu"]
    claimed: float
    p_value: float
    refuted: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was chosen on set A, before the coins of B were looked at.

    guess_in, guess_out: how many of B's scores are guessed "in" (the highest) and "out"
        (the lowest).
    threshold: the score from which on a canary counts as found, for the rates.
    """

    guess_in: int
    guess_out: int
    threshold: float


@dataclasses.dataclass(frozen=True)
class Audit:
    """A lower bound on epsilon with all that it rests on.

    epsilon: the bound; 0 where nothing is refuted, which proves nothing.
    delta, confidence, tests: what it holds at, after division of the error by `tests`.
    adjacency, threat, canaries: the mechanism and the neighbours it speaks of.
    models_a, models_b: models of each set.
    coins, guesses, correct: m, r and v of the bound.
    plan: what was chosen on set A.
    claims: the claims that were tested.
    figures: further numbers, each with its kind.
    seeds: of the coins of A and of B, where known, and of ties.
    warnings: what was not told or not checked.
    """

    epsilon: float
    delta: float
    confidence: float
    tests: int
    adjacency: Adjacency
    threat: Threat
    canaries: str
    models_a: int
    models_b: int
    coins: int
    guesses: int
    correct: int
    plan: Plan
    claims: tuple[Tested, ...]
    figures: tuple[Figure, ...]
    seeds: dict[str, int | None]
    warnings: tuple[str, ...]
    kind: Literal["bound"] = "bound"
    method: str = "one run, Steinke, Nasr, Jagielski 2023"

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; an infinite threshold becomes None."""
        found = dataclasses.asdict(self)
        if not math.isfinite(self.plan.threshold):
            found["plan"]["threshold"] = None
        for field in ("claims", "figures", "warnings"):
            found[field] = list(found[field])
        return found

    def __str__(self) -> str:
        per_model = self.coins // self.models_b
        return (
            f"{self.threat}, canaries {self.canaries}: epsilon >= {self.epsilon:.2f} "
            f"({100 * self.confidence:g} %, delta = {self.delta:g}, one-run bound, "
            f"{self.models_b} x {per_model} coins, {self.correct} of {self.guesses} "
            f"guesses right; {self.adjacency})"
        )


def audit(
    scores_a: npt.ArrayLike,
    coins_a: Coins | npt.ArrayLike,
    scores_b: npt.ArrayLike,
    coins_b: Coins | npt.ArrayLike,
    *,
    delta: float,
    adjacency: Adjacency,
    threat: Threat,
    canaries: str,
    confidence: float = 0.95,
    tests: int = 1,
    claims: Sequence[float] = (),
    mu_claims: Sequence[float] = (),
    training_keys: Any = None,
    seed: int = 0,
) -> Audit:
    """Audit the models of set B with an attack that was tuned on those of set A.

    The bound holds for "training and release of one model, on these data" if B's coins
    are fair and independent, no score of B has seen a coin of B (leave-one-out scores
    within B have), and all models were trained with independent randomness. Source:
    Theorem 5.2 of arXiv 2305.08846, on the coins of all models of B together.

    Args:
        scores_a: membership scores, (models, canaries), large means member. They may be
            leave-one-out scores within A, which only tunes.
        coins_a: who is in, `Coins` of either kind or bool (models, canaries).
        scores_b: the same score of B's models, calibrated on A alone.
        coins_b: who is in, as `independent` draws it.
        delta: of the (epsilon, delta)-DP that is refuted; in [0, 1).
        adjacency: which neighbours the coins stand for.
        threat: what the attacker gets: "T1" one noisy answer, "T2" several, "T3" the
            deployed system's, "T4" the weights, "T5" these and the choice of canaries.
        canaries: their kind, such as "label_noise"; chosen before B was looked at.
        confidence: of the bound, and of each other figure.
        tests: how many attacks, scores and kinds of canaries are audited on B in all,
            this one included; the error is divided by it.
        claims: epsilons that are claimed at `delta`.
        mu_claims: mus for which mu-GDP is claimed.
        training_keys: an id of the training key of each model, A's and then B's.
        seed: breaks ties between scores.

    Raises:
        InputError: the coins of B cannot be audited, A and B share models, training
            keys are shared, or an argument is out of its range; with the reason.
    """
    checks.probability("delta", delta)
    checks.fraction("confidence", confidence)
    checks.whole("tests", tests)
    checks.one_of("adjacency", adjacency, get_args(Adjacency))
    checks.one_of("threat", threat, get_args(Threat))
    inside_a, inside_b = refusals.auditable(coins_a, coins_b)
    a = _scores(scores_a, inside_a, "scores_a")
    b = _scores(scores_b, inside_b, "scores_b")
    if training_keys is not None:
        refusals.independent_training(training_keys, len(a) + len(b))

    alpha = (1 - confidence) / tests
    plan = choose(a, inside_a, b.size, delta, 1 - alpha, seed)
    correct = one_run.correct_guesses(b, inside_b, plan.guess_in, plan.guess_out, seed)
    counts = (b.size, plan.guess_in + plan.guess_out, correct)
    return Audit(
        epsilon=one_run.epsilon_lower_bound(*counts, delta, 1 - alpha),
        delta=float(delta),
        confidence=float(confidence),
        tests=int(tests),
        adjacency=adjacency,
        threat=threat,
        canaries=canaries,
        models_a=len(a),
        models_b=len(b),
        coins=b.size,
        guesses=counts[1],
        correct=correct,
        plan=plan,
        claims=_tested(counts, claims, mu_claims, delta, 1 - confidence, tests),
        figures=(
            *_f_dp_figures(counts, delta, 1 - alpha),
            *_rate_figures(b, inside_b, plan.threshold, delta, 1 - alpha),
        ),
        seeds={"coins_a": _seed(coins_a), "coins_b": _seed(coins_b), "ties": seed},
        warnings=_warnings(coins_b, training_keys),
    )


def shuffled(
    scores_a: npt.ArrayLike,
    coins_a: Coins | npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    delta: float,
    confidence: float = 0.95,
    repetitions: int = 500,
    seed: int = 0,
) -> Scores:
    """The negative control: bounds on epsilon where B's coins are drawn afresh.

    The scores then know nothing of the coins, and at least a share `confidence` of the
    bounds must be 0. A smaller share means that the audit itself is at fault.

    Returns:
        One lower bound for each repetition.

    >>> import numpy as np
    >>> scores = np.random.default_rng(0).random((8, 50))
    >>> coins = np.random.default_rng(1).random((4, 50)) < 0.5
    >>> bounds = shuffled(scores[:4] + coins, coins, scores[4:], delta=1e-5)
    >>> bool((bounds == 0).mean() >= 0.95)
    True
    """
    checks.probability("delta", delta)
    checks.fraction("confidence", confidence)
    checks.whole("repetitions", repetitions)
    inside_a = table(coins_a, "coins_a")
    a = _scores(scores_a, inside_a, "scores_a")
    order = one_run.ranking(scores_b, seed)
    plan = choose(a, inside_a, order.size, delta, confidence, seed)
    rng = np.random.default_rng([seed, 0x5F])
    drawn = rng.integers(0, 2, (repetitions, order.size), dtype=np.bool_)
    right = one_run.count_right(drawn, order, plan.guess_in, plan.guess_out)
    guesses = plan.guess_in + plan.guess_out
    bounds = {
        v: one_run.epsilon_lower_bound(order.size, guesses, v, delta, confidence)
        for v in set(right.tolist())
    }
    return np.array([bounds[v] for v in right.tolist()])


# ------------------------------------------------------------------- choosing on set A


def choose(
    scores: Scores,
    inside: npt.NDArray[np.bool_],
    coins: int,
    delta: float,
    confidence: float,
    seed: int,
) -> Plan:
    """The number of guesses that would give the best bound on as many coins as B has.

    Of each share and side of the grid, the bound is foretold from the share of right
    guesses on A, drawn towards one half where there are few.
    """
    if coins < 2:
        raise InputError(f"scores_b: {coins} coin; at least two are needed")
    ranked = inside.ravel()[one_run.ranking(scores, seed)]
    found = np.concatenate([[0], np.cumsum(ranked)])
    absent = np.concatenate([[0], np.cumsum(~ranked[::-1])])

    options = []
    for fraction in FRACTIONS:
        on_a, on_b = max(1, int(fraction * ranked.size)), int(fraction * coins)
        for sides in SIDES if on_b else ():
            up, down = int(sides != "out"), int(sides != "in")
            right = up * found[on_a] + down * absent[on_a]
            share = (right + 0.5) / ((up + down) * on_a + 1)
            guesses = (up + down) * on_b
            correct = int(share * guesses)
            ceiling = one_run.without_delta(guesses, correct, 1 - confidence)
            options.append((ceiling, share, guesses, correct, up * on_b, down * on_b))

    # by the bound at delta 0, a ceiling in closed form: few need the exact one
    best, chosen = -1.0, (0, 0)
    for ceiling, _, guesses, correct, guess_in, guess_out in sorted(options)[::-1]:
        if ceiling <= best:
            break
        bound = one_run.epsilon_lower_bound(coins, guesses, correct, delta, confidence)
        if bound > best:
            best, chosen = bound, (guess_in, guess_out)
    return Plan(*chosen, _threshold(scores, inside, delta, confidence))


def _threshold(
    scores: Scores, inside: npt.NDArray[np.bool_], delta: float, confidence: float
) -> float:
    """The score of the grid's shares that gives the best Clopper-Pearson bound on A."""
    ranked = np.sort(scores, axis=None)[::-1]
    levels = {float(ranked[int(f * ranked.size)]) for f in FRACTIONS}

    def bound(level: float) -> float:
        return rates.epsilon_lower_bound(
            *_rate_counts(scores, inside, level), delta, confidence
        )

    return max(sorted(levels), key=bound)


# ------------------------------------------------------------------ figures beside it


def _tested(
    counts: tuple[int, int, int],
    claims: Sequence[float],
    mu_claims: Sequence[float],
    delta: float,
    alpha: float,
    tests: int,
) -> tuple[Tested, ...]:
    found: list[tuple[Literal["epsilon", "mu"], float, float]] = [
        ("epsilon", e, one_run.p_value(*counts, e, delta)) for e in claims
    ]
    found += [("mu", mu, f_dp.p_value(*counts, mu)) for mu in mu_claims]
    return tuple(
        Tested(name, float(claimed), min(1.0, tests * p), tests * p < alpha)
        for name, claimed, p in found
    )


def _f_dp_figures(
    counts: tuple[int, int, int], delta: float, confidence: float
) -> list[Figure]:
    mu = f_dp.mu_lower_bound(*counts, confidence)
    method = "one run, f-DP, Mahloujifar et al. 2024"
    refutes = "refutes claims of mu-GDP below it"
    return [
        Figure("mu", mu, "bound", method, refutes),
        *_gaussian(mu, delta, method),
    ]


def _rate_figures(
    scores: Scores,
    inside: npt.NDArray[np.bool_],
    threshold: float,
    delta: float,
    confidence: float,
) -> list[Figure]:
    counts = _rate_counts(scores, inside, threshold)
    if not (counts[1] and counts[3]):  # all in or all out: there are no two rates
        return []
    # the canaries of one model share its randomness, and are no independent trials
    kind: Kind = "bound" if scores.shape[1] == 1 else "estimate"
    trials = "one canary in independent models"
    if kind == "estimate":
        trials = "not a bound: canaries of one model are not independent trials"
    epsilon = rates.epsilon_lower_bound(*counts, delta, confidence)
    mu = rates.mu_lower_bound(*counts, confidence)
    low, high = bayesian.credible_interval(*counts, delta, confidence)
    bayes = "Bayesian, Zanella-Béguelin et al. 2023"
    return [
        Figure("epsilon", epsilon, kind, "Clopper-Pearson", trials),
        Figure("mu", mu, kind, "Clopper-Pearson", trials),
        *_gaussian(mu, delta, "Clopper-Pearson"),
        Figure("epsilon", low, "credible interval", bayes, "Jeffreys priors", high),
    ]


def _gaussian(mu: float, delta: float, method: str) -> list[Figure]:
    if delta == 0:  # no finite epsilon
        return []
    condition = "a bound only if the trade-off curve is Gaussian"
    value = gdp.epsilon(delta, mu)
    return [Figure("epsilon", value, "estimate", f"{method}, from mu", condition)]


def _rate_counts(
    scores: Scores, inside: npt.NDArray[np.bool_], threshold: float
) -> tuple[int, int, int, int]:
    """False negatives, positives, false positives, negatives."""
    guessed = scores >= threshold
    missed, wrong = (inside & ~guessed).sum(), (~inside & guessed).sum()
    return int(missed), int(inside.sum()), int(wrong), int((~inside).sum())


def _warnings(coins_b: Coins | npt.ArrayLike, training_keys: Any) -> tuple[str, ...]:
    told = []
    if not isinstance(coins_b, Coins):
        told.append("coins_b: not known how they were drawn; taken for independent")
    if training_keys is None:
        told.append("training_keys: not given; training taken for independent")
    return tuple(told)


def _seed(coins: Coins | npt.ArrayLike) -> int | None:
    return coins.seed if isinstance(coins, Coins) else None


def _scores(scores: npt.ArrayLike, inside: npt.NDArray[np.bool_], field: str) -> Scores:
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != inside.shape:
        raise InputError(f"{field}: shape {array.shape}, but its coins {inside.shape}")
    if np.isnan(array).any():
        raise InputError(f"{field}: {np.isnan(array).sum()} scores are not numbers")
    return array
