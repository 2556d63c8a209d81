"""Who gets into batches, counted over many of them."""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Bool, Int

from rpjax import keys as rp_keys
from rpjax.data.sampling import Sampler
from rpjax.learners import State
from rpjax.training.programs import plan_keys
from rpjax.verification.verdict import LEVEL, Finding, Why

CELLS = 40_000_000
FEWEST, MOST = 1_024, 4_096
PAIRS = 4_000  # of records, expected in two steps in a row

NOT_POISSON = Why(
    "batches are shuffled or of fixed size, and accounted as if each record entered "
    "by its own coin",
    "draw batches by rpjax.data.sampling.poisson; or say sampling='shuffled', whose "
    "epsilon has no amplification by sampling",
)


class Law(NamedTuple):
    """Poisson batches, cut at random where they outgrow their slots.

    rate: of each record. pair: of both of two records in one batch.
    mean, variance, excess: of the batch size, excess kurtosis.
    """

    rate: float
    pair: float
    mean: float
    variance: float
    excess: float

    @classmethod
    def of(cls, sampler: Sampler) -> "Law":
        """What the sampler claims."""
        n, q = sampler.records, sampler.batch_size / sampler.records
        chances = scipy.stats.binom.pmf(np.arange(n + 1), n, q)
        slots = sampler.capacity if sampler.kind == "poisson" else n
        sizes = np.minimum(np.arange(n + 1), slots)
        mean = float(chances @ sizes)
        second, fourth = (float(chances @ (sizes - mean) ** k) for k in (2, 4))
        pair = float(chances @ (sizes * (sizes - 1.0))) / max(n * (n - 1), 1)
        excess = fourth / second**2 - 3 if second > 0 else 0.0
        return cls(mean / n, pair, mean, second, excess)


class Drawn(NamedTuple):
    """The batches of some steps.

    slots: in each. included: (steps, records).
    twice: whether a batch held a record twice.
    repeats: whether the same draw comes out again.
    keyed: whether another key draws other batches.
    """

    slots: int
    included: Bool[np.ndarray, "t n"]
    twice: bool
    repeats: bool
    keyed: bool


def drawn(sampler: Sampler, state: State, seed: int) -> Drawn:
    """The batches that a training with this state would see."""
    draw = jax.jit(sampler.draw)
    key = plan_keys(sampler, (), rp_keys.root(seed), np.asarray(state.secret))
    blocks = -(-_steps(sampler) // sampler.block)
    plans = [jax.device_get(draw(key, jnp.int32(b))) for b in range(blocks)]
    positions, valid = (np.concatenate(leaves) for leaves in zip(*plans, strict=True))
    included = np.zeros((len(valid), sampler.records), bool)
    step = np.broadcast_to(np.arange(len(valid))[:, None], valid.shape)
    included[step[valid], positions[valid]] = True
    again = jax.device_get(draw(key, jnp.int32(blocks - 1)))
    other = jax.device_get(draw(rp_keys.domain(key, "query"), jnp.int32(0)))
    return Drawn(
        valid.shape[1],
        included,
        bool((included.sum(1) < valid.sum(1)).any()),
        all(np.array_equal(a, b) for a, b in zip(again, plans[-1], strict=True)),
        not all(np.array_equal(a, b) for a, b in zip(other, plans[0], strict=True)),
    )


def _steps(sampler: Sampler) -> int:
    """So many that a record which never comes would be missed, and pairs be seen."""
    records, rate = sampler.records, sampler.batch_size / sampler.records
    wanted = math.ceil(max(24 / rate, PAIRS / (records * rate**2)))
    room = max(CELLS // records, 32)
    return min(max(FEWEST, min(wanted, MOST)), room)


def sampling(sampler: Sampler, claimed: str, state: State, seed: int) -> list[Finding]:
    """Whether batches are drawn as the accountant is told.

    claimed: the mechanism's `sampling`. state: of a training, seed: of its root key.
    """
    found = drawn(sampler, state, seed)
    rows = [_once(found), _slots(sampler, found), _keys(found)]
    if claimed != "poisson":
        return [*rows, _epochs(sampler, found.included)]
    return [*rows, *_poisson(sampler, found.included)]


def _poisson(sampler: Sampler, included: Bool[np.ndarray, "t n"]) -> list[Finding]:
    law = Law.of(sampler)
    rows = [
        _mean(included, law.rate),
        _spread(included, law),
        _rates(included, law.rate),
        _steps_apart(included, law.rate),
        _together(included, law.pair, False),
        _together(included, law.pair, True),
    ]
    if np.ptp(included.sum(1)) > 0:
        return rows
    # all of one size: whatever else is off comes from that
    cause, mend = NOT_POISSON
    return [row if row.ok else replace(row, cause=cause, mend=mend) for row in rows]


def _once(found: Drawn) -> Finding:
    return Finding.judged(
        "sampling",
        "a record twice in one batch",
        "it happens" if found.twice else "never",
        "never",
        not found.twice,
        Why(
            "batches are drawn with replacement, so that a record can count twice",
            "draw each record once at most: rpjax.data.sampling",
        ),
    )


def _slots(sampler: Sampler, found: Drawn) -> Finding:
    return Finding.judged(
        "sampling",
        "slots of a batch",
        str(found.slots),
        str(sampler.capacity),
        found.slots == sampler.capacity,
        Why(
            "batches are cut to another size than the accountant is told",
            "draw as many slots as the sampler's capacity says",
        ),
    )


def _keys(found: Drawn) -> Finding:
    words = "the key" if found.keyed else "not the key"
    if not found.repeats:
        words += ", and not that alone"
    return Finding.judged(
        "sampling",
        "what batches depend on",
        words,
        "the key",
        found.keyed and found.repeats,
        Why(
            "batches are not a function of the key and the block's number",
            "draw them from these alone, or they cannot be secret and resumed",
        ),
    )


# ------------------------------------------------------- each record by its own coin


def _mean(included: Bool[np.ndarray, "t n"], rate: float) -> Finding:
    steps, records = included.shape
    hits, trials = int(included.sum()), included.size
    spread = math.sqrt(rate * (1 - rate) / trials)
    return _binomial(
        "the mean batch size",
        f"{hits / steps:.4g}",
        f"{rate * records:.4g}",
        (hits, trials, rate),
        Why(
            f"records enter with a mean probability of {hits / trials:.4g} and not "
            f"{rate:.4g}",
            "use batch_size / records for the coins and for the accountant",
        ),
        f"{100 * (_reach() * spread / rate):.2g} % more or fewer would be seen",
    )


def _spread(included: Bool[np.ndarray, "t n"], law: Law) -> Finding:
    """The batch size's variance; 0 for batches of fixed size.

    The sum of squared deviations is compared with a multiple of chi-squared that has
    its mean and variance (Satterthwaite).
    """
    sizes = included.sum(1)
    found = float(np.mean((sizes - law.mean) ** 2))
    freedom = 2 * len(sizes) / (2 + law.excess)
    chance = float(found == 0)
    if law.variance > 0:
        null, scaled = scipy.stats.chi2(freedom), found / law.variance * freedom
        chance = 2 * min(float(null.cdf(scaled)), float(null.sf(scaled)))
    return Finding.judged(
        "sampling",
        "the batch size's standard deviation",
        f"{round(math.sqrt(found), 3):.3g}",
        f"{math.sqrt(law.variance):.3g}",
        chance >= LEVEL,
        NOT_POISSON,
        f"{100 * _reach() / math.sqrt(2 * freedom):.2g} % more or less would be seen",
    )


def _rates(included: Bool[np.ndarray, "t n"], rate: float) -> Finding:
    """Every record's own rate."""
    steps, records = included.shape
    hits = included.sum(0)
    law = scipy.stats.binom(steps, rate)
    chances = np.minimum(law.cdf(hits), law.sf(hits - 1))
    level = LEVEL / (2 * records)
    off = np.flatnonzero(chances < level)
    worst = int(np.argmin(chances))
    spread = math.sqrt(rate * (1 - rate) / steps)
    reach = scipy.stats.norm.isf(level) + scipy.stats.norm.isf(1e-3)
    return Finding.judged(
        "sampling",
        "each record's own rate",
        f"{records - len(off)} of {records} as claimed"
        + (f"; record {worst} has {hits[worst] / steps:.3g}" if off.size else ""),
        f"all {rate:.4g}",
        off.size == 0,
        Why(
            f"{len(off)} records enter more or less often than accounted for, such as "
            f"that at position {worst}: {hits[worst] / steps:.3g} and not {rate:.3g}",
            "toss one coin of the same bias for each record, and cut batches that are "
            "too large at random, not from one end",
        ),
        f"{100 * min(1.0, reach * spread / rate):.2g} % more would be seen",
    )


def _steps_apart(included: Bool[np.ndarray, "t n"], rate: float) -> Finding:
    """Records that come in two steps in a row: none in a shuffled epoch."""
    steps = len(included)
    first, second = included[0 : steps - 1 : 2], included[1:steps:2]
    hits, trials = int((first & second).sum()), second.size
    repeated = hits == int(first.sum()) and hits > 0
    return _binomial(
        "records in two steps in a row",
        str(hits),
        f"{trials * rate**2:.4g}",
        (hits, trials, rate**2),
        Why(
            "steps see the same batches: the seed of their coins is used again",
            "fold the step's number into the key of the coins",
        )
        if repeated
        else NOT_POISSON,
    )


def _together(
    included: Bool[np.ndarray, "t n"], pair: float, neighbours: bool
) -> Finding:
    """Pairs of records in one batch."""
    order = np.arange(included.shape[1])
    if not neighbours:
        order = np.random.default_rng(0).permutation(order)
    half = len(order) // 2
    one, other = (
        included[:, order[: 2 * half : 2]],
        included[:, order[1 : 2 * half : 2]],
    )
    hits, trials = int((one & other).sum()), one.size
    return _binomial(
        f"{'neighbours' if neighbours else 'random pairs'} in one batch",
        str(hits),
        f"{trials * pair:.4g}",
        (hits, trials, pair),
        Why(
            "records enter together or avoid each other: their coins are not "
            "independent",
            NOT_POISSON.mend,
        ),
    )


def _binomial(
    question: str,
    found: str,
    expected: str,
    law: tuple[int, int, float],
    why: Why,
    power: str = "",
) -> Finding:
    hits, trials, rate = law
    chance = 1.0
    if trials:
        # twice the smaller tail
        null = scipy.stats.binom(trials, rate)
        chance = 2 * min(float(null.cdf(hits)), float(null.sf(hits - 1)))
    if not power and trials:
        spread = math.sqrt(max((1 - rate) / max(rate * trials, 1e-30), 0))
        power = f"{100 * _reach() * spread:.2g} % more or fewer would be seen"
    return Finding.judged(
        "sampling", question, found, expected, chance >= LEVEL, why, power
    )


def _reach() -> float:
    """Standard errors that are seen with probability 0.999."""
    return float(scipy.stats.norm.isf(LEVEL / 2) + scipy.stats.norm.isf(1e-3))


# ------------------------------------------------------------------ shuffled epochs


def _epochs(sampler: Sampler, included: Bool[np.ndarray, "t n"]) -> Finding:
    """Every record once an epoch at most, in full batches."""
    epochs = len(included) // sampler.block
    parts = included[: epochs * sampler.block].reshape(epochs, sampler.block, -1)
    most: Int[np.ndarray, ""] = parts.sum(1).max()
    full = bool((included.sum(1) == sampler.batch_size).all())
    words = f"full batches, {most} times" if full else f"uneven batches, {most} times"
    return Finding.judged(
        "sampling",
        "how often a record comes in an epoch",
        words,
        "full batches, once",
        full and int(most) <= 1,
        Why(
            "epochs are not shuffled orders cut into full batches",
            "use rpjax.data.sampling.shuffled",
        ),
    )
