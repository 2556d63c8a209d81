"""DP-SGD in words: what was done, what that means and what it rests on."""

from typing import Any, Literal, NamedTuple

from rpjax.counts import Release
from rpjax.privacy.accountants import Adjacency
from rpjax.privacy.private_run import (
    Accountant,
    Sampling,
    participations,
    release_curve,
)
from rpjax.privacy.truncation import Account
from rpjax.privacy.wording import (
    LOGS,
    OTHER_RUNS,
    OWN_FIGURES,
    VALIDATION,
    NoiseSeed,
    bank,
    figure,
    frozen_assumption,
    power,
    public_start,
    seed_assumption,
    seed_note,
    start_assumption,
    told_apart,
)

NoiseSource = Literal["threefry", "secure"]

NEIGHBOURS: dict[Adjacency, str] = {
    "add_remove": "add or remove one record",
    "replace_one": "replace one record by another",
    "zero_out": "replace one record by nothing",
}
CHANGES: dict[Adjacency, str] = {
    "add_remove": "Adding or removing any one training record, features and label,",
    "replace_one": "Exchanging any one training record for any other",
    "zero_out": "Emptying any one training record, so that it has no gradient,",
}
ACCOUNTANTS: dict[tuple[Sampling, Accountant], str] = {
    ("poisson", "pld"): "PLD",
    ("poisson", "rdp"): "RDP",
    ("shuffled", "pld"): "closed form (Gaussian differential privacy)",
    ("shuffled", "rdp"): "RDP",
}
CLIPPING = {
    "flat": "each record's gradient is clipped to one norm before the sum",
    "normalised": (
        "each record's gradient is clipped to one norm and divided by it before the "
        "sum, so that its norm is at most 1"
    ),
    "automatic": (
        "each record's gradient is scaled to just below one norm, whatever its own "
        "(automatic clipping), before the sum"
    ),
    "per_layer": (
        "each layer's part of each record's gradient is clipped to a norm of its own "
        "before the sum, and the noise is for the root of the sum of their squares"
    ),
    "adaptive": (
        "each record's gradient is clipped before the sum, to a norm that follows a "
        "quantile of the norms; the noisy count that says where it lies is released "
        "too, and gradient and count together are one Gaussian mechanism of noise "
        "multiplier σ, the gradient's own noise being the larger for it"
    ),
    "global": (
        "each record's gradient is scaled by one factor, and left out where it would "
        "exceed the clip norm after that"
    ),
    "global_adaptive": (
        "each record's gradient is scaled by one factor, and cut where it would exceed "
        "the clip norm after that; the factor follows a noisy count, which is released "
        "too, and gradient and count together are one Gaussian mechanism of noise "
        "multiplier σ, the gradient's own noise being the larger for it"
    ),
    "per_group": (
        "each record's gradient is clipped before the sum, to a norm of its class that "
        "follows from noisy counts of the same batch, and the noise is for the largest "
        "of all classes' norms; the counts are released too, and gradient and counts "
        "together are one Gaussian mechanism of noise multiplier σ, the gradient's own "
        "noise being the larger for it"
    ),
}
RELEASED_COUNTS = (
    "the class counts or class losses in the loss were released beforehand by a "
    "mechanism of their own, whose cost is not in this figure and has to be composed "
    "with it"
)
PUBLIC_COUNTS = (
    "the class counts in the loss are known to everyone, and not from these records"
)
COUNT_NOISE = {
    "gaussian": "Gaussian noise of standard deviation {scale:.4g}",
    "geometric": "two-sided geometric noise of scale {scale:.4g}",
}
FLOATS: dict[NoiseSource, str] = {
    "threefry": (
        "float32 noise from a pseudo-random generator approximates the theorem's "
        "Gaussian"
    ),
    "secure": (
        "float32 noise, from a cryptographic generator on the host, approximates the "
        "theorem's Gaussian"
    ),
}


class Facts(NamedTuple):
    """What a guarantee of DP-SGD is about; see `rpjax.privacy.dpsgd_guarantee`."""

    noise_multiplier: float
    sampling_probability: float
    steps: int
    delta: float
    records: int
    capacity: int
    members: int
    sampling: Sampling
    clipping: str
    noise_source: NoiseSource
    trained: str | None
    noise_seed: NoiseSeed
    models: int = 1
    released_counts: bool = False
    pretrained: str | None = None
    public_counts: bool = False
    releases: tuple[Release, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """The facts as names and plain values; some where there are any alone."""
        left_out = {"delta", "releases"}
        left_out |= {
            n
            for n in ("released_counts", "pretrained", "public_counts")
            if not getattr(self, n)
        }
        found = {k: v for k, v in self._asdict().items() if k not in left_out}
        for number, release in enumerate(self.releases):
            name = "count" if number == 0 else f"count_{number + 1}"
            found |= {
                f"{name}_noise": release.noise,
                f"{name}_scale": release.scale,
                f"{name}_epsilon": self.cost(release),
            }
        return found

    def cost(self, release: Release) -> float:
        """Epsilon of a release by itself, for the guarantee's own neighbours."""
        adjacency: Adjacency = (
            "add_remove" if self.sampling == "poisson" else "zero_out"
        )
        return release_curve(release, adjacency).epsilon(self.delta)

    @property
    def participations(self) -> int:
        """Most often that a record enters one member's shuffled epochs."""
        return participations(self.sampling_probability, self.steps)


def mechanism(facts: Facts) -> str:
    """What was done."""
    how = {
        "poisson": f"sampling probability q = {facts.sampling_probability:.4g}, "
        f"{facts.steps} steps",
        "shuffled": f"shuffled batches of {facts.capacity} of {facts.records} records, "
        f"{facts.steps} steps in {facts.participations} epochs",
    }[facts.sampling]
    parts = [f"DP-SGD: noise multiplier σ = {facts.noise_multiplier:.4g}, {how}"]
    if facts.clipping != "flat":
        parts += [f"{facts.clipping.replace('_', '-')} clipping"]
    if facts.trained is not None:
        parts += [f"trained: {facts.trained}"]
    if facts.pretrained is not None:
        parts += [f"pre-trained on public data: {facts.pretrained}"]
    if facts.members > 1:
        parts += [f"an ensemble of {facts.members}"]
    counted = [
        f"; class counts, released once with {count_noise(release)} on each (by itself "
        f"{figure(facts.cost(release), facts.delta)})"
        for release in facts.releases
    ]
    return ", ".join(parts) + "".join(counted)


def count_noise(release: Release) -> str:
    """The noise of a release of class counts."""
    return COUNT_NOISE[release.noise].format(scale=release.scale)


def public(facts: Facts) -> tuple[str, ...]:
    """What everyone may know."""
    return (
        "all settings: noise, clip norm, sampling, batch size and steps"
        + (", and the order of each epoch" if facts.sampling == "shuffled" else ""),
        "initial weights and augmentation",
        *([] if facts.trained is None else ["the parameters that stay as they are"]),
        *(["the class counts that the loss uses"] if facts.public_counts else []),
        *public_start(facts.pretrained),
    )


def statement(
    facts: Facts, adjacency: Adjacency, epsilon: float, found: float, mu: float | None
) -> str:
    """The guarantee in prose; found: what a test with 1 % false alarms finds."""
    counted = bool(facts.releases)
    outcome = "the release of class counts and of training" if counted else "training"
    what = (
        f"changes the probability of any outcome of {outcome} by at most a factor e^ε "
        f"up to δ: {figure(epsilon, facts.delta)}. "
    )
    if mu is not None:
        changed = "the trained weights" + (" and class counts" if counted else "")
        what = (
            f"changes the distribution of {changed} by no more than the shift "
            f"of a Gaussian by μ = {mu:.4g} standard deviations, which is "
            f"{figure(epsilon, facts.delta)}. Shuffling is not counted as a help. "
        )
    large = (
        f" δ is not below 1/{facts.records}, one over the number of records: it would "
        "allow a procedure that publishes a record."
    )
    return (
        f"{CHANGES[adjacency]} {what}A membership test with 1 % false alarms finds at "
        f"most {power(found)}"
        + (large if facts.delta >= 1 / facts.records else "")
        + seed_note(facts.noise_seed)
    )


def assumptions(
    facts: Facts, overflow: float, paid: dict[str, Account | None]
) -> tuple[str, ...]:
    """What the figures rest on; paid: how each accountant paid for cut batches."""
    enforced = [
        *_sampling(facts, overflow, paid),
        *([CLIPPING[facts.clipping]] if facts.clipping in CLIPPING else []),
        "the noisy sum is divided by the expected batch size, a constant",
        "no layer mixes records (no batch normalisation)",
        *_counted(facts),
    ]
    left = [
        *_other_rule(facts.clipping),
        *frozen_assumption(facts.trained),
        *start_assumption(facts.pretrained),
        *([RELEASED_COUNTS] if facts.released_counts else []),
        *([PUBLIC_COUNTS] if facts.public_counts else []),
        "hyper-parameters and stopping time do not depend on the private records",
        "only the trained weights"
        + (" and the noisy class counts" if facts.releases else "")
        + " are released",
        *seed_assumption(facts.noise_seed),
        FLOATS[facts.noise_source]
        + (
            ", and float32 uniforms approximate the sampling probability"
            if facts.sampling == "poisson"
            else ""
        ),
    ]
    return told_apart(enforced, left)


def _sampling(
    facts: Facts, overflow: float, paid: dict[str, Account | None]
) -> list[str]:
    if facts.sampling == "shuffled":
        times = facts.participations * facts.members
        return [
            "each epoch takes the records in a fresh order that does not depend on "
            "them, cut into batches of equal size, so that a record meets the noise "
            f"{times} {'time' if times == 1 else 'times'}; the figure holds even for "
            "someone who knows the orders"
        ]
    lines = [
        "each step draws its records by Poisson sampling, independently of the noise"
    ]
    ways = set(paid.values()) - {None}
    cut = (
        f"batches have {facts.capacity} places; a larger Poisson batch is cut at "
        f"random, and its probability ({overflow:.1e} per step) is "
    )
    folded = ", ".join(name for name, way in paid.items() if way == "folded")
    if ways == {"folded"}:
        lines += [f"{cut}paid for out of δ"]
    elif ways == {"exact"}:
        lines += [f"{cut}accounted for by the law of cut batches (arXiv 2508.15089)"]
    elif ways:
        lines += [
            f"{cut}accounted for by the law of cut batches (arXiv 2508.15089), and by "
            f"{folded} paid for out of δ"
        ]
    return lines


def _counted(facts: Facts) -> list[str]:
    """How counts in the loss were released, and that they are paid for."""
    return [
        "the class counts in the loss were released once, with "
        f"{count_noise(release)} on each count, which one record changes by one (two "
        "counts, where it is replaced); the figures compose that with the training"
        for release in facts.releases
    ]


def _other_rule(clipping: str) -> list[str]:
    if clipping in CLIPPING:
        return []
    return [
        f"the clipping rule {clipping} bounds what one record changes the sum by to "
        "the norm that the noise is calibrated to"
    ]


def not_covered(facts: Facts, missing: tuple[str, ...]) -> tuple[str, ...]:
    """What the guarantee says nothing about; missing: figures that do not exist."""
    shuffled = (
        "adding or removing a record, which shifts all later batches of an epoch; and "
        "no figure for Poisson sampling holds here, since records do not enter by "
        "coins of their own"
    )
    number = "the number of records" + (
        ", which scales the average gradient" if facts.sampling == "poisson" else ""
    )
    return (
        *((shuffled,) if facts.sampling == "shuffled" else ()),
        "several records of one person together: every figure is for one record",
        *bank(facts.models),
        OTHER_RUNS,
        VALIDATION,
        OWN_FIGURES,
        LOGS,
        number,
        *missing,
    )
