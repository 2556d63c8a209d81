"""What DP-SGD proves, under each way of sampling: guarantees for whole records."""

import importlib.metadata
import math
from typing import NamedTuple

from rpjax.counts import Release
from rpjax.privacy import checks, dpsgd_wording, truncation
from rpjax.privacy.accountants import Adjacency
from rpjax.privacy.certificate import Alternative, Guarantee, no_guarantee
from rpjax.privacy.curves import Gaussian
from rpjax.privacy.dpsgd_wording import ACCOUNTANTS, NEIGHBOURS, Facts, NoiseSource
from rpjax.privacy.private_run import Accountant, PrivateRun, Sampling
from rpjax.privacy.stored import storable
from rpjax.privacy.truncation import Account, Truncation
from rpjax.privacy.wording import NoiseSeed, failed

# the first is the guarantee's own, the others stand beside it
FIGURES: dict[Sampling, tuple[tuple[Accountant, Adjacency], ...]] = {
    "poisson": (
        ("pld", "add_remove"),
        ("rdp", "add_remove"),
        ("pld", "replace_one"),
    ),
    "shuffled": (
        ("pld", "zero_out"),
        ("rdp", "zero_out"),
        ("pld", "replace_one"),
        ("rdp", "replace_one"),
    ),
}


def dpsgd_guarantee(
    *,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    records: int,
    capacity: int,
    members: int = 1,
    sampling: Sampling = "poisson",
    clipping: str = "flat",
    noise_source: NoiseSource = "threefry",
    trained: str | None = None,
    batch_norm: bool = False,
    releases_clean_statistics: bool = False,
    models: int = 1,
    noise_seed: NoiseSeed = "secret",
    noise_reused: bool = False,
    released_counts: bool = False,
    pretrained: str | None = None,
    public_counts: bool = False,
    releases: tuple[Release, ...] = (),
) -> Guarantee:
    """What DP-SGD proves, with other accountants and neighbours beside it.

    Poisson sampling is stated for adding or removing a record, by privacy loss
    distributions, with batches that were cut paid for (`rpjax.privacy.truncation`).
    Shuffled epochs are stated for emptying a record, without any amplification
    (`rpjax.privacy.dpsgd.epsilon`). Members of an ensemble, each with its own sampling
    and noise, count as that many runs one after another.

    Args:
        noise_multiplier: sigma; 0 gives no guarantee.
        sampling_probability: q, chance that a record enters a step; with shuffled
            epochs the size of a batch over the number of records.
        steps: noisy updates of one member.
        delta: at which epsilon is stated.
        records: number of training records N.
        capacity: places in the batch; a larger Poisson batch is cut to it at random.
        members: networks trained on the same records.
        sampling: how records enter the steps; no figure for Poisson sampling holds for
            shuffled epochs.
        clipping: the rule that bounds a record's gradient; `noise_multiplier` is
            relative to that bound, so the figures do not depend on it. One that the
            library does not know is left to the user.
        noise_source: what draws the noise.
        trained: which parameters move, in words; None is all of them.
        batch_norm: whether batch statistics are used, which mix records and void the
            per-record clipping.
        releases_clean_statistics: whether anything computed from the training records
            is released with the weights but for what the noisy steps computed.
        models: trained side by side, of which the guarantee is for each by itself.
        noise_seed: "secret", or "fixed" where the run can be reproduced by a reader.
        noise_reused: whether the same noise served another training on these records.
        released_counts: whether the loss uses class counts or losses that a mechanism
            which is not known here released from these records; its cost is not in
            these figures.
        pretrained: public data that the initial weights come from, in words; None where
            they are drawn at random.
        public_counts: whether the loss uses class counts that are said to be public.
        releases: class counts that were released from these records for the loss, once
            each and for all members, with the noise that they have; all figures are for
            them and the training together.

    Raises:
        InputError: a field outside its range.
    """
    checks.not_negative("noise_multiplier", noise_multiplier)
    checks.whole("steps", steps)
    checks.whole("records", records)
    checks.whole("capacity", capacity)
    checks.whole("members", members)
    checks.fraction("delta", delta)
    checks.rate("sampling_probability", sampling_probability)
    checks.one_of("sampling", sampling, ("poisson", "shuffled"))
    checks.one_of("noise_source", noise_source, ("threefry", "secure"))
    checks.one_of("noise_seed", noise_seed, ("secret", "fixed"))
    facts = Facts(
        *(noise_multiplier, sampling_probability, steps, delta, records, capacity),
        *(members, sampling, clipping, noise_source, trained, noise_seed),
        models=models,
        released_counts=released_counts,
        pretrained=pretrained,
        public_counts=public_counts,
        releases=releases,
    )
    broken = failed(
        {
            "the noise multiplier is zero": noise_multiplier == 0,
            "batch normalisation makes a record's gradient depend on its companions": (
                batch_norm
            ),
            "something computed from un-noised training records reaches the release": (
                releases_clean_statistics
            ),
            "the noise was used before, in another training on the same records": (
                noise_reused
            ),
        }
    )
    if broken:
        return _nothing(facts, *broken)
    figures = [
        _figure(facts, accountant, adjacency)
        for accountant, adjacency in FIGURES[sampling]
    ]
    main = figures[0]
    if main.epsilon is None:
        return _nothing(
            facts, f"the noise is too small for a finite epsilon at δ = {delta:g}"
        )
    return _stated(facts, main, main.epsilon, figures[1:])


def _nothing(facts: Facts, *reasons: str) -> Guarantee:
    return no_guarantee(
        dpsgd_wording.mechanism(facts),
        *reasons,
        name="DP-SGD",
        parameters=facts.parameters(),
    )


def stated_epsilon(
    *,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    records: int,
    capacity: int,
    members: int = 1,
    sampling: Sampling = "poisson",
    releases: tuple[Release, ...] = (),
) -> float:
    """The epsilon of `dpsgd_guarantee` alone, without all that goes with it.

    For counting while a training goes on; arguments as there.
    """
    facts = Facts(
        *(noise_multiplier, sampling_probability, steps, delta, records, capacity),
        *(members, sampling, "flat", "threefry", None, "secret"),
        releases=releases,
    )
    accountant, adjacency = FIGURES[sampling][0]
    return private_run(facts, accountant, adjacency).epsilon(noise_multiplier)


class _Figure(NamedTuple):
    """Epsilon for one accountant and neighbours; None where no finite one holds."""

    run: PrivateRun
    epsilon: float | None
    truncation: Account | None

    @property
    def accountant(self) -> str:
        sampling = self.run.sampling
        if self.run.accountant == "pld" and not self.closed:
            sampling = "poisson"
        return ACCOUNTANTS[sampling, self.run.accountant]

    @property
    def neighbours(self) -> str:
        return NEIGHBOURS[self.run.adjacency]

    @property
    def closed(self) -> bool:
        """Whether it is a closed form, which needs no dp-accounting."""
        gaussian = all(each.noise == "gaussian" for each in self.run.releases)
        shuffled = self.run.sampling == "shuffled"
        return gaussian and shuffled and self.run.accountant == "pld"

    def computed_by(self) -> str:
        version = importlib.metadata.version("dp-accounting")
        suffix = "" if self.closed else f" (dp-accounting {version})"
        return self.accountant + suffix


def _figure(facts: Facts, accountant: Accountant, adjacency: Adjacency) -> _Figure:
    run = private_run(facts, accountant, adjacency)
    try:
        found, paid = run.accounted(facts.noise_multiplier)
    except truncation.OverflowTooLikely:
        return _Figure(run, None, None)
    return _Figure(run, found if math.isfinite(found) else None, paid)


def private_run(
    facts: Facts, accountant: Accountant, adjacency: Adjacency
) -> PrivateRun:
    """The run as its accountants see it."""
    poisson = facts.sampling == "poisson"
    return PrivateRun(
        sampling_probability=facts.sampling_probability,
        steps=facts.steps,
        delta=facts.delta,
        accountant=accountant,
        adjacency=adjacency,
        sampling=facts.sampling,
        truncation=Truncation(facts.records, facts.capacity) if poisson else None,
        members=facts.members,
        releases=facts.releases,
    )


def _stated(
    facts: Facts, main: _Figure, epsilon: float, others: list[_Figure]
) -> Guarantee:
    known = (epsilon, facts.delta)
    curve = storable(main.run.curve(facts.noise_multiplier), known)
    mu = curve.mu if main.closed and isinstance(curve, Gaussian) else None
    overflow = 0.0
    if main.run.truncation is not None:
        overflow = main.run.truncation.overflow(facts.sampling_probability)
    return Guarantee(
        kind="dp" if mu is None else "gdp",
        name="DP-SGD",
        mechanism=dpsgd_wording.mechanism(facts),
        parameters=facts.parameters(),
        unit="one record, features and label",
        adjacency=main.neighbours,
        public=dpsgd_wording.public(facts),
        epsilon=epsilon,
        delta=facts.delta,
        mu=mu,
        accountant=main.computed_by(),
        alternatives=tuple(
            Alternative(each.computed_by(), each.neighbours, each.epsilon, facts.delta)
            for each in others
            if each.epsilon is not None
        ),
        curve=curve,
        statement=dpsgd_wording.statement(
            facts, main.run.adjacency, epsilon, float(curve.tpr(0.01)), mu
        ),
        assumptions=dpsgd_wording.assumptions(
            facts,
            overflow,
            {each.accountant: each.truncation for each in (main, *others)},
        ),
        not_covered=dpsgd_wording.not_covered(
            facts,
            tuple(
                f"{each.neighbours} ({each.accountant}): batches overflow too often "
                "for a finite figure"
                for each in others
                if each.epsilon is None
            ),
        ),
    )
