"""A training by DP-SGD as its accountants see it: all but the noise multiplier."""

import math
from typing import Any, Literal, NamedTuple

import numpy.typing as npt

from rpjax.counts import Release
from rpjax.errors import InputError
from rpjax.privacy import accountants, checks, gdp, truncation
from rpjax.privacy.accountants import Adjacency, Step
from rpjax.privacy.algebra import compose
from rpjax.privacy.couplings import Coupled, Worst
from rpjax.privacy.curves import Curve, Gaussian, Numerical, Point, Renyi
from rpjax.privacy.histogram import Histogram
from rpjax.privacy.truncation import Account, Truncation

Accountant = Literal["pld", "rdp"]
Sampling = Literal["poisson", "shuffled"]

# beyond these the accountants' arithmetic overflows, and nothing is promised anyway
LEAST_NOISE, LARGEST_EPSILON = 1e-4, 1e8


class Accounted(NamedTuple):
    """Epsilon, and how cut batches were paid for (None where none are)."""

    epsilon: float
    truncation: Account | None


class PrivateRun(NamedTuple):
    """See `rpjax.privacy.dpsgd.epsilon` for the fields.

    Poisson sampling is accounted with its amplification, shuffled epochs never: of
    them holds, for every order and hence for a random one, that a record enters one
    batch an epoch. Given the order, the other batches have the same law for both
    neighbours, and each epoch is one Gaussian mechanism on the record.
    """

    sampling_probability: float
    steps: int
    delta: float
    accountant: Accountant = "pld"
    adjacency: Adjacency = "add_remove"
    overflow_probability: float = 0.0
    sampling: Sampling = "poisson"
    truncation: Truncation | None = None
    members: int = 1
    releases: tuple[Release, ...] = ()

    def check(self) -> None:
        """Refuse what no accountant can answer."""
        checks.rate("sampling_probability", self.sampling_probability)
        checks.whole("steps", self.steps)
        checks.whole("members", self.members)
        checks.fraction("delta", self.delta)
        checks.one_of("accountant", self.accountant, ("pld", "rdp"))
        checks.one_of(
            "adjacency", self.adjacency, ("add_remove", "replace_one", "zero_out")
        )
        checks.one_of("sampling", self.sampling, ("poisson", "shuffled"))
        checks.probability("overflow_probability", self.overflow_probability)
        if self.sampling == "shuffled":
            self._check_shuffled()
        else:
            self._check_poisson()

    def _check_poisson(self) -> None:
        if (self.accountant, self.adjacency) == ("rdp", "replace_one"):
            raise InputError("accountant = 'rdp': replace_one needs accountant='pld'")
        if self.truncation is None:
            return
        if self.overflow_probability > 0:
            raise InputError(
                f"overflow_probability = {self.overflow_probability!r}: truncation "
                "says it already; give one of the two"
            )
        if (self.accountant, self.truncation.account) == ("rdp", "exact"):
            raise InputError(
                "accountant = 'rdp': the exact account of truncation needs "
                "accountant='pld'"
            )

    def _check_shuffled(self) -> None:
        if self.adjacency == "add_remove":
            raise InputError(
                "adjacency = 'add_remove': one record more or less shifts all later "
                "batches of a shuffled epoch; ask for 'zero_out' or 'replace_one'"
            )
        if self.truncation is not None or self.overflow_probability > 0:
            raise InputError("sampling = 'shuffled': such batches are never truncated")

    def epsilon(self, noise_multiplier: float) -> float:
        """Upper bound on epsilon at this noise."""
        return self.accounted(noise_multiplier).epsilon

    def accounted(self, noise_multiplier: float) -> Accounted:
        """Epsilon, and how truncation was paid for."""
        if self.releases:
            alone = self._replace(releases=()).accounted(noise_multiplier)
            if not math.isfinite(alone.epsilon):
                return alone
            total = self.curve(noise_multiplier).epsilon(self.delta)
            return Accounted(total, alone.truncation)
        self.check()
        checks.not_negative("noise_multiplier", noise_multiplier)
        if not self._answerable(noise_multiplier):
            return Accounted(math.inf, None)
        if self.sampling == "shuffled":
            return Accounted(self._shuffled(noise_multiplier), None)
        cut = self.truncation
        if cut is None:
            overflow = self.overflow_probability
            paid: Account | None = "folded" if overflow > 0 else None
            return Accounted(self._folded(noise_multiplier, overflow), paid)
        if cut.account == "exact":
            return Accounted(self._exact(noise_multiplier), "exact")
        return self._cheapest(noise_multiplier, cut)

    def _answerable(self, noise_multiplier: float) -> bool:
        if noise_multiplier < LEAST_NOISE:
            return False
        q = 1.0 if self.sampling == "shuffled" else self.sampling_probability
        rough = accountants.rough(Step(noise_multiplier, q), self.uses, self.delta)
        return rough < LARGEST_EPSILON

    def _cheapest(self, noise_multiplier: float, cut: Truncation) -> Accounted:
        """Folded where that is as good as free, or where nothing else is allowed."""
        overflow = cut.overflow(self.sampling_probability)
        only_fold = self.accountant == "rdp" or cut.account == "folded"
        try:
            found = self._folded(noise_multiplier, overflow)
        except truncation.OverflowTooLikely:
            if only_fold:
                raise
            return Accounted(self._exact(noise_multiplier), "exact")
        spent = truncation.allowance(found, self.uses * overflow)
        if only_fold or spent <= truncation.NEGLIGIBLE * self.delta:
            return Accounted(found, "folded" if overflow > 0 else None)
        return Accounted(self._exact(noise_multiplier), "exact")

    @property
    def uses(self) -> int:
        """Gaussian mechanisms that one record meets, by its coin or for certain."""
        steps = self.steps
        if self.sampling == "shuffled":
            steps = participations(self.sampling_probability, steps)
        return steps * self.members

    @property
    def sensitivity(self) -> int:
        """Of the sum of clipped gradients, where a record is in for certain."""
        return 2 if self.adjacency == "replace_one" else 1

    def mu(self, noise_multiplier: float) -> float:
        """Of Gaussian differential privacy, for shuffled epochs."""
        return self.sensitivity * math.sqrt(self.uses) / noise_multiplier

    def _shuffled(self, noise_multiplier: float) -> float:
        if self.accountant == "pld":
            # what a privacy loss distribution approximates has a closed form here
            return gdp.epsilon(self.delta, self.mu(noise_multiplier))
        step = Step(noise_multiplier / self.sensitivity, 1.0)
        return accountants.renyi(step, self.uses)(self.delta)

    def _folded(self, noise_multiplier: float, overflow: float) -> float:
        step = Step(noise_multiplier, self.sampling_probability)
        if self.accountant == "rdp":
            by_delta = accountants.renyi(step, self.uses)
        else:
            by_delta = self._losses(step).get_epsilon_for_delta
        return truncation.folded(by_delta, self.delta, self.uses * overflow)

    def _exact(self, noise_multiplier: float) -> float:
        return max(
            float(self._losses(step).get_epsilon_for_delta(self.delta))
            for step in self.cut_steps(noise_multiplier)
        )

    def cut_steps(self, noise_multiplier: float) -> list[Step]:
        """The exact step, for each size that the larger neighbour can have.

        Adding a record makes it one more than the records, and neither size bounds the
        other: more records make a cut likelier, and a record's part in one smaller.
        """
        assert self.truncation is not None
        size, places = self.truncation.records, self.truncation.capacity
        q = self.sampling_probability
        if truncation.overflow_probability(size + 1, q, places) == 0:
            return [Step(noise_multiplier, q)]
        sizes = (size, size + 1) if self.adjacency == "add_remove" else (size,)
        return [Step(noise_multiplier, q, each, places) for each in sizes]

    def _losses(self, step: Step) -> Any:
        return accountants.losses(step, self.uses, self.delta, self.adjacency)

    def curve(self, noise_multiplier: float) -> Curve:
        """See `rpjax.privacy.dpsgd.curve`."""
        self.check()
        checks.not_negative("noise_multiplier", noise_multiplier)
        if not self._answerable(noise_multiplier):
            return Point(0.0, 1.0)
        beside = [release_curve(each, self.adjacency) for each in self.releases]
        if self.sampling == "shuffled" and self.accountant == "pld":
            return compose(Gaussian(self.mu(noise_multiplier)), *beside)
        steps, overflow = self._accounted_steps(noise_multiplier)
        curves = [self._step_curve(step) for step in steps]
        if beside:
            curves = [compose(curve, *beside) for curve in curves]
        worst = curves[0] if len(curves) == 1 else Worst(curves)
        if overflow == 0:
            return worst
        return Coupled(worst, overflow) if overflow < 1 else Point(0.0, 1.0)

    def tpr(self, fpr: npt.ArrayLike, noise_multiplier: float) -> gdp.Floats:
        """See `rpjax.privacy.dpsgd.tpr`; never by Renyi divergences."""
        checks.positive("noise_multiplier", noise_multiplier)
        return self._replace(accountant="pld").curve(noise_multiplier).tpr(fpr)

    def _accounted_steps(self, noise_multiplier: float) -> tuple[list[Step], float]:
        """The steps of which the worst counts, and the overflow folded into delta."""
        if self.sampling == "shuffled":
            return [Step(noise_multiplier / self.sensitivity, 1.0)], 0.0
        overflow = self.overflow_probability
        if self.truncation is not None:
            alone = self._replace(releases=())
            if alone.accounted(noise_multiplier).truncation == "exact":
                return self.cut_steps(noise_multiplier), 0.0
            overflow = self.truncation.overflow(self.sampling_probability)
        step = Step(noise_multiplier, self.sampling_probability)
        return [step], self.uses * overflow

    def _step_curve(self, step: Step) -> Curve:
        if self.accountant == "rdp":
            return Renyi(*accountants.divergences(step, self.uses))
        return Numerical(self._losses(step))


def release_curve(release: Release, adjacency: Adjacency) -> Curve:
    """What a release of class counts cost, for these neighbours.

    A record that is emptied has no class, and is counted nowhere: one count moves by
    one, as where it is removed.
    """
    return Histogram(*release).curve(
        "replace_one" if adjacency == "replace_one" else "add_remove"
    )


def participations(sampling_probability: float, steps: int) -> int:
    """Most often that a record enters so many steps of shuffled epochs.

    sampling_probability: size of a batch over the number of records. An epoch is the
    full batches that a fresh order gives, floor(1 / q) of them, each record in one at
    most.

    >>> participations(0.25, 8), participations(0.25, 9), participations(0.3, 9)
    (2, 3, 3)
    """
    checks.rate("sampling_probability", sampling_probability)
    # 1 / q of a whole number of batches may come out a rounding error too small
    epoch = math.floor(1 / sampling_probability * (1 + 1e-12))
    return -(-steps // epoch)
