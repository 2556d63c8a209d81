"""DP-SGD in words: what was done, what that means and what it rests on."""

from typing import Any, Literal, NamedTuple

from rpjax.privacy.accountants import Adjacency
from rpjax.privacy.private_run import Accountant, Sampling, participations
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
}
RELEASED_COUNTS = (
    "the class counts or class losses in the loss were released beforehand by a "
    "mechanism of their own, whose cost is not in this figure and has to be composed "
    "with it"
)
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

    def parameters(self) -> dict[str, Any]:
        """The facts as names and plain values; the last two where there are any."""
        left_out = {"delta"}
        left_out |= {
            n for n in ("released_counts", "pretrained") if not getattr(self, n)
        }
        return {k: v for k, v in self._asdict().items() if k not in left_out}

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
    return ", ".join(parts)


def public(facts: Facts) -> tuple[str, ...]:
    """What everyone may know."""
    return (
        "all settings: noise, clip norm, sampling, batch size and steps"
        + (", and the order of each epoch" if facts.sampling == "shuffled" else ""),
        "initial weights and augmentation",
        *([] if facts.trained is None else ["the parameters that stay as they are"]),
        *public_start(facts.pretrained),
    )


def statement(
    facts: Facts, adjacency: Adjacency, epsilon: float, found: float, mu: float | None
) -> str:
    """The guarantee in prose; found: what a test with 1 % false alarms finds."""
    what = (
        "changes the probability of any outcome of training by at most a factor e^ε up "
        f"to δ: {figure(epsilon, facts.delta)}. "
    )
    if mu is not None:
        what = (
            "changes the distribution of the trained weights by no more than the shift "
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
    ]
    left = [
        *_other_rule(facts.clipping),
        *frozen_assumption(facts.trained),
        *start_assumption(facts.pretrained),
        *([RELEASED_COUNTS] if facts.released_counts else []),
        "hyper-parameters and stopping time do not depend on the private records",
        "only the trained weights are released",
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
