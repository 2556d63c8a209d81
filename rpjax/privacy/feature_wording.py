"""Residual perturbation in words: what was done, what that means, what it rests on."""

from typing import Any, Literal, NamedTuple

from rpjax.privacy import residual
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

Strategy = Literal["none", "additive", "multiplicative"]
Augmentation = Literal["none", "before_noise", "after_noise"]

FEATURES = "replace one record's features, labels equal"
LABEL = "replace one record's label, features equal"
WHOLE = "replace one record by another"
FLOATS = (
    "float32 noise from a pseudo-random generator approximates the theorem's Gaussian"
)
LABELS = (
    "labels: the gradient of the last layer's bias shows them whatever the noise is"
)
SELECTION = (
    "which records are trained on, where they were picked or split by their labels"
)
PRESENCE = (
    "whether a record is present at all, so a membership-inference attack may succeed "
    "without contradicting this statement"
)


class Facts(NamedTuple):
    """What a guarantee is about; see `rpjax.privacy.feature_guarantee`.

    diameter: largest distance of two inputs, by the bound or given; None without noise.
    """

    input_noise: float
    delta: float
    participations: int
    bound: float | None
    diameter: float | None
    draw: residual.Draw
    members: int
    noise_per_member: residual.Sharing
    augmentation: Augmentation
    batch_norm: bool
    strategy: Strategy
    gamma: float
    floor: float
    residual_bound: float | None
    label_epsilon: float | None
    classes: int | None
    models: int
    noise_seed: NoiseSeed
    trained: str | None = None
    pretrained: str | None = None

    @property
    def name(self) -> str:
        """Of the mechanism."""
        return "residual perturbation" if self.noisy else "plain training"

    @property
    def noisy(self) -> bool:
        """Whether anything random is added at all."""
        return self.input_noise > 0 or (self.strategy != "none" and self.gamma > 0)

    @property
    def copies(self) -> int:
        """Independent noisy copies of one record that are ever used."""
        per_member = self.participations if self.draw == "step" else 1
        return per_member * (self.members if self.noise_per_member == "own" else 1)

    @property
    def label_draws(self) -> int:
        """Independent draws of one record's label, where it is drawn at random."""
        return self.members if self.noise_per_member == "own" else 1

    def parameters(self) -> dict[str, Any]:
        """The facts as names and plain values."""
        left_out = {"delta"}
        left_out |= {n for n in ("trained", "pretrained") if getattr(self, n) is None}
        return {k: v for k, v in self._asdict().items() if k not in left_out}


def mechanism(facts: Facts) -> str:
    """What was done."""
    parts = []
    if facts.strategy == "additive" and facts.gamma > 0:
        parts += [
            f"Strategy I: noise of standard deviation γ = {facts.gamma:g} on each block"
        ]
    if facts.strategy == "multiplicative" and facts.gamma > 0:
        limit = f"at least {facts.floor:g}" if facts.floor > 0 else "without a floor"
        parts += [
            f"Strategy II: noise of γ = {facts.gamma:g} times the activation ({limit}) "
            "on each block"
        ]
    if facts.residual_bound is not None:
        parts += [f"residual branches clipped to norm G = {facts.residual_bound:g}"]
    if facts.input_noise > 0:
        parts += [f"noise of standard deviation π = {facts.input_noise:g} on the input"]
    if facts.label_epsilon is not None:
        parts += [f"labels by randomised response, ε = {facts.label_epsilon:g} each"]
    if facts.trained is not None:
        parts += [f"trained: {facts.trained}"]
    if facts.pretrained is not None:
        parts += [f"pre-trained on public data: {facts.pretrained}"]
    if facts.members > 1:
        parts += [f"an ensemble of {facts.members}"]
    return "; ".join(parts) if facts.noisy else "plain training"


def without_input_noise(facts: Facts) -> tuple[str, ...]:
    """Why nothing is proved of a training that sees clean inputs."""
    if not facts.noisy:
        return ("training adds no noise at all",)
    reasons = [
        f"there is no noise on the input, and γ = {facts.gamma:g} on the blocks "
        "guarantees nothing by itself: blocks are trained on what comes before their "
        "noise, and the gradient of the first block reveals the clean input for every γ"
    ]
    if facts.strategy == "multiplicative" and facts.floor == 0:
        reasons += [
            "noise in proportion to an activation vanishes where that is zero, and "
            "there it hides nothing (Strategy II without a floor is singular)"
        ]
    if facts.residual_bound is not None:
        reasons += [
            "clipping the residual branches changes none of this, since the skip "
            "carries each block's input past the clip"
        ]
    if facts.label_epsilon is not None:
        reasons += [
            "labels by randomised response hide the label alone, from those who may "
            "know all features"
        ]
    return (
        *reasons,
        "labels and the presence of a record would stay uncovered even with input "
        "noise, so membership inference may succeed",
    )


def statement(facts: Facts, mu: float, epsilon: float, found: float) -> str:
    """The guarantee in prose; found: what a test with 1 % false alarms finds."""
    return (
        "Exchanging one training record's features for any others, its label kept, "
        "changes the distribution of the trained weights by no more than the shift of "
        f"a Gaussian by μ = {mu:.4g} standard deviations, which is "
        f"{figure(epsilon, facts.delta)}. "
        "A test of which of the two features a record had, with 1 % false alarms, "
        "finds at most "
        + power(found)
        + _residual_note(facts)
        + seed_note(facts.noise_seed)
    )


def whole_statement(facts: Facts, epsilon: float, found: float) -> str:
    """The same with labels by randomised response; found: as above."""
    return (
        "Exchanging any one training record, features and label, for any other changes "
        "the probability of any outcome of training by at most a factor e^ε up to δ: "
        f"{figure(epsilon, facts.delta)}. A test of which of two records was there, "
        "with 1 % false alarms, finds at most "
        + power(found)
        + _residual_note(facts)
        + seed_note(facts.noise_seed)
    )


def _residual_note(facts: Facts) -> str:
    if facts.residual_bound is None:
        return ""
    return (
        f" Clipping the residual branches to norm {facts.residual_bound:g} adds "
        "nothing to the proof by itself: the skip carries each block's input past it."
    )


def public(facts: Facts) -> tuple[str, ...]:
    """What everyone may know."""
    labels = ", and all labels" if facts.label_epsilon is None else ""
    return (
        "the number and order of the records" + labels,
        "centring, scale and bound of the inputs, and all settings, those of the "
        "noise among them",
        "initial weights, batch order and augmentation",
        *public_start(facts.pretrained),
    )


def assumptions(facts: Facts) -> tuple[str, ...]:
    """What the figures rest on, each one beginning with who sees to it."""
    limit = (
        f"every input is clipped to norm {facts.bound:g}"
        if facts.bound is not None
        else f"any two inputs are at most {facts.diameter:g} apart"
    )
    before = facts.augmentation == "before_noise"
    after = "centring and augmentation" if before else "centring"
    enforced = [
        f"{limit}, after {after} and before the noise",
        f"the noise on the input has the fixed standard deviation "
        f"{facts.input_noise:g} per coordinate, scaled by no statistic of the data",
        "every layer, gradient and optimiser state sees noisy inputs only",
        f"no record enters training in more than {facts.copies} independent noisy "
        "copies",
    ]
    if facts.members > 1:
        enforced += [f"the figure is for all {facts.members} members together"]
    if facts.label_epsilon is not None:
        enforced += [
            f"each label is drawn once by randomised response among {facts.classes} "
            "classes, and training sees what was drawn"
        ]
    if facts.batch_norm:
        enforced += [
            "batch statistics are taken of noisy inputs and never re-estimated"
        ]
    left = [
        "centring, scale and bound were fixed without looking at the private records",
        "batch order, augmentation, stopping time and hyper-parameters do not depend "
        f"on the private {'features' if facts.label_epsilon is None else 'records'}",
        "no other run on the same records is released (restarts, tuning and "
        "fine-tuning compose)",
        "nothing computed from un-noised training records is released with the weights",
        *frozen_assumption(facts.trained),
        *start_assumption(facts.pretrained),
        *seed_assumption(facts.noise_seed),
        FLOATS,
    ]
    return told_apart(enforced, left)


def not_covered(facts: Facts) -> tuple[str, ...]:
    """What the guarantee says nothing about."""
    labels = (LABELS,) if facts.label_epsilon is None else (SELECTION,)
    return (
        *labels,
        PRESENCE,
        "the number of records",
        *bank(facts.models),
        OTHER_RUNS,
        VALIDATION,
        OWN_FIGURES,
        LOGS,
    )
