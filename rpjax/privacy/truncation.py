"""Batches of fixed capacity: how often Poisson batches are cut, and what that costs.

A batch with room for `capacity` records takes a uniformly random subset of what was
sampled, should that be more. Two accounts of it are valid:

*Folded into delta.* The run can be coupled with one whose batches are never cut, so
that the two differ with the probability of an overflow at most. Epsilon is that of the
Poisson run at a smaller delta. It holds for every accountant and every neighbour, rests
on nothing but the coupling, and is as good as free where overflow is next to impossible
(`capacity` with 1e-20); it costs steps (1 + e^epsilon) P[overflow] of delta, which no
delta can pay where batches are cut every now and then.

*Exact.* A cut batch either leaves out the record in question or has it in the place of
another, which is a Gaussian mechanism of twice the sensitivity, with the probability of
both together. Source: arXiv 2508.15089, as dp-accounting's
`TruncatedSubsampledGaussianDpEvent`; by privacy loss distributions alone. Never above
the folded figure, and finite for any capacity.

So the fold is used while it takes less than a thousandth of delta, which moves epsilon
by less than the accountants' own rounding, and for the Renyi accountant, which knows no
other; beyond that, privacy loss distributions take the exact event.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks

Account = Literal["folded", "exact"]

# share of delta that the fold may take
NEGLIGIBLE = 1e-3


class OverflowTooLikely(InputError):
    """Batches exceed the capacity so often that no epsilon holds at this delta."""


class Truncation(NamedTuple):
    """Batches cut to a fixed number of places, uniformly at random.

    records: in the data set, before one is added or removed.
    capacity: places in a batch.
    account: how it is paid for, see the module; "auto" is folded while that is as good
        as free, and exact beyond.
    """

    records: int
    capacity: int
    account: Literal["auto", "folded", "exact"] = "auto"

    def overflow(self, sampling_probability: float) -> float:
        """Chance that a batch is cut; of the larger neighbour, one record more."""
        return overflow_probability(
            self.records + 1, sampling_probability, self.capacity
        )


def overflow_probability(
    records: int, sampling_probability: float, capacity: int
) -> float:
    """Chance that one Poisson batch holds more than `capacity` of the records.

    P[Binomial(records, q) > capacity]. A guarantee for adding or removing a record
    needs it for the larger neighbour: pass the number of training records plus one.

    >>> f"{overflow_probability(50_000, 0.08192, 4352):.1e}"
    '1.7e-05'
    """
    checks.whole("records", records)
    checks.rate("sampling_probability", sampling_probability)
    checks.whole("capacity", capacity)
    return float(scipy.stats.binom.sf(capacity, records, sampling_probability))


def capacity(records: int, sampling_probability: float, probability: float) -> int:
    """Smallest capacity that a Poisson batch exceeds with at most `probability`.

    Going from 1e-12 to 1e-20 costs few places in the batch, and makes the overflow as
    good as free for every epsilon that means something.

    >>> capacity(50_000, 0.08192, 1e-12), capacity(50_000, 0.08192, 1e-20)
    (4534, 4676)
    """
    checks.fraction("probability", probability)
    low, high = 1, records
    while low < high:
        middle = (low + high) // 2
        if overflow_probability(records, sampling_probability, middle) <= probability:
            high = middle
        else:
            low = middle + 1
    return low


def folded(
    epsilon_at: Callable[[float], float], delta: float, overflow: float
) -> float:
    """Epsilon of the run whose batches are cut, from that of the run without a limit.

    The two runs can be coupled so that they differ only if some batch overflows, with a
    probability of at most `overflow` for either neighbour. Changing both sides of
    P[S] <= e^eps Q[S] + delta' by that much gives (eps, delta' + (1 + e^eps) overflow).
    So eps is valid once epsilon_at(delta - (1 + e^eps) overflow) <= eps. The left side
    grows with eps; iterating it from below climbs to the least solution, and the small
    step added each time makes the loop end just above it, where the inequality holds.
    """
    if overflow == 0:
        return float(epsilon_at(delta))

    def demanded(candidate: float) -> float:
        left = delta - allowance(candidate, overflow)
        if left <= 0:
            raise OverflowTooLikely(
                f"overflow_probability: {overflow:.1e} over all steps is too much for "
                f"delta = {delta:g}; enlarge the batch capacity"
            )
        return float(epsilon_at(left))

    candidate = demanded(0.0)
    while (needed := demanded(candidate)) > candidate:
        candidate = needed + 1e-5
    return candidate


def allowance(epsilon: float, overflow: float) -> float:
    """What of delta pays for an overflow of that probability over all steps."""
    return (1 + math.exp(min(epsilon, 700.0))) * overflow
