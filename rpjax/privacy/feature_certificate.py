"""What residual perturbation proves: a guarantee for one record's features."""

from typing import Literal

from rpjax.privacy import checks, gdp, residual
from rpjax.privacy.certificate import Guarantee, no_guarantee
from rpjax.privacy.wording import (
    OWN_FIGURES,
    NoiseSeed,
    failed,
    figure,
    power,
    seed_assumption,
    seed_note,
    told_apart,
)

Strategy = Literal["none", "additive", "multiplicative"]
Augmentation = Literal["none", "before_noise", "after_noise"]

_LABELS = (
    "labels: the gradient of the last layer's bias shows them whatever the noise is"
)
_PRESENCE = (
    "whether a record is present at all, so a membership-inference attack may succeed "
    "without contradicting this statement"
)
_FLOATS = (
    "float32 noise from a pseudo-random generator approximates the theorem's Gaussian"
)


def feature_guarantee(
    *,
    input_noise: float,
    delta: float,
    participations: int,
    bound: float | None = None,
    diameter: float | None = None,
    bound_enforced: bool,
    constants_public: bool,
    releases_clean_statistics: bool,
    draw: residual.Draw = "step",
    members: int = 1,
    noise_per_member: residual.Sharing = "own",
    augmentation: Augmentation = "none",
    batch_norm: bool = False,
    strategy: Strategy = "none",
    gamma: float = 0.0,
    floor: float = 0.0,
    noise_seed: NoiseSeed = "secret",
) -> Guarantee:
    """What residual perturbation proves: mu-GDP from the input noise, or nothing.

    The theorem is that of `rpjax.privacy.residual`. The residual noise of Strategy I or
    II is part of the mechanism's description and of no consequence for the figure.

    Args:
        input_noise: standard deviation pi of the noise on the input; 0 for none.
        delta: at which epsilon is stated.
        participations: largest number of times that one record enters training.
        bound: l2 norm R to which inputs are clipped (diameter 2R); or
        diameter: largest distance of two inputs. Exactly one of the two where there is
            input noise; neither is needed where there is none.
        bound_enforced: whether the code itself clips to that bound, after centring and
            augmentation and before the noise, rather than trusting the data.
        constants_public: whether the mean and scale used for centring, and the bound,
            were fixed without looking at the private records.
        releases_clean_statistics: whether anything computed from un-noised training
            records reaches the weights or is released with them: re-estimated batch
            statistics, checkpoints chosen by clean training loss, cached activations.
        draw: "step" or "record", as in `residual.mu`.
        members: number of networks trained on the same records.
        noise_per_member: "own" or "shared", as in `residual.mu`.
        augmentation: whether random views are taken before the noise, after it, or not
            at all. Before it they need fresh noise, hence draw="step".
        batch_norm: whether batch statistics are used; harmless behind noisy inputs.
        strategy: "additive" (Strategy I), "multiplicative" (II) or "none".
        gamma: scale of the residual noise.
        floor: smallest activation that scales the noise of Strategy II.
        noise_seed: "secret", or "fixed" where the run can be reproduced by a reader.

    Raises:
        InputError: a field outside its range.
    """
    checks.not_negative("input_noise", input_noise)
    checks.fraction("delta", delta)
    checks.not_negative("gamma", gamma)
    checks.not_negative("floor", floor)
    checks.one_of("strategy", strategy, ("none", "additive", "multiplicative"))
    checks.one_of("augmentation", augmentation, ("none", "before_noise", "after_noise"))
    checks.one_of("noise_seed", noise_seed, ("secret", "fixed"))
    mechanism = _residual_mechanism(input_noise, strategy, gamma, floor, members)
    if input_noise == 0:
        return no_guarantee(mechanism, *_without_input_noise(strategy, gamma, floor))
    mu = residual.mu(
        input_noise,
        bound=bound,
        diameter=diameter,
        participations=participations,
        draw=draw,
        members=members,
        noise_per_member=noise_per_member,
    )
    broken = _failed_premises(
        bound_enforced, constants_public, releases_clean_statistics, draw, augmentation
    )
    if broken:
        return no_guarantee(mechanism, *broken)
    epsilon = gdp.epsilon(delta, mu)
    copies = _copies(participations, draw, members, noise_per_member)
    span = residual.input_diameter(bound, diameter)
    return Guarantee(
        kind="gdp",
        mechanism=mechanism,
        unit="one record's features",
        adjacency="replace one record's features, labels equal",
        epsilon=epsilon,
        delta=delta,
        mu=mu,
        accountant="closed form of Gaussian differential privacy",
        alternatives=(),
        statement=_feature_statement(epsilon, delta, mu, noise_seed),
        assumptions=_feature_assumptions(
            input_noise, bound, span, copies, batch_norm, noise_seed
        ),
        not_covered=(_LABELS, _PRESENCE, "the number of records", OWN_FIGURES),
    )


def _residual_mechanism(
    input_noise: float, strategy: Strategy, gamma: float, floor: float, members: int
) -> str:
    parts = []
    if strategy == "additive" and gamma > 0:
        parts += [
            f"Strategy I: noise of standard deviation γ = {gamma:g} on each block"
        ]
    if strategy == "multiplicative" and gamma > 0:
        limit = f"at least {floor:g}" if floor > 0 else "without a floor"
        parts += [
            f"Strategy II: noise of γ = {gamma:g} times the activation ({limit}) on "
            "each block"
        ]
    if input_noise > 0:
        parts += [f"noise of standard deviation π = {input_noise:g} on the input"]
    if members > 1:
        parts += [f"an ensemble of {members}"]
    return "; ".join(parts) if input_noise > 0 or gamma > 0 else "plain training"


def _without_input_noise(
    strategy: Strategy, gamma: float, floor: float
) -> tuple[str, ...]:
    if strategy == "none" or gamma == 0:
        return ("training adds no noise at all",)
    reasons = [
        f"there is no noise on the input, and γ = {gamma:g} on the blocks guarantees "
        "nothing by itself: blocks are trained on what comes before their noise, and "
        "the gradient of the first block reveals the clean input for every γ"
    ]
    if strategy == "multiplicative" and floor == 0:
        reasons += [
            "noise in proportion to an activation vanishes where that is zero, and "
            "there it hides nothing (Strategy II without a floor is singular)"
        ]
    return (
        *reasons,
        "labels and the presence of a record would stay uncovered even with input "
        "noise, so membership inference may succeed",
    )


def _failed_premises(
    bound_enforced: bool,
    constants_public: bool,
    releases_clean_statistics: bool,
    draw: residual.Draw,
    augmentation: Augmentation,
) -> tuple[str, ...]:
    premises = {
        "the norm bound on the inputs is not enforced by clipping": not bound_enforced,
        "centring, scale or bound were computed from the private records": (
            not constants_public
        ),
        "something computed from un-noised training records reaches the release": (
            releases_clean_statistics
        ),
        "one noise per record meets several augmented views of it, whose difference "
        "shows the clean record": draw == "record" and augmentation == "before_noise",
    }
    return failed(premises)


def _feature_statement(
    epsilon: float, delta: float, mu: float, noise_seed: NoiseSeed
) -> str:
    return (
        "Exchanging one training record's features for any others, its label kept, "
        "changes the distribution of the trained weights by no more than the shift of "
        f"a Gaussian by μ = {mu:.4g} standard deviations, which is "
        f"{figure(epsilon, delta)}. "
        + "A test of which of the two features a record had, with 1 % false alarms, "
        "finds at most " + power(float(gdp.tpr(0.01, mu))) + seed_note(noise_seed)
    )


def _feature_assumptions(
    input_noise: float,
    bound: float | None,
    span: float,
    copies: int,
    batch_norm: bool,
    noise_seed: NoiseSeed,
) -> tuple[str, ...]:
    limit = (
        f"every input is clipped to norm {bound:g}"
        if bound is not None
        else f"any two inputs are at most {span:g} apart"
    )
    enforced = [
        f"{limit}, after centring and before the noise",
        f"the noise on the input has the fixed standard deviation {input_noise:g} per "
        "coordinate, scaled by no statistic of the data",
        "every layer, gradient and optimiser state sees noisy inputs only",
        f"no record enters training in more than {copies} independent noisy copies",
    ]
    if batch_norm:
        enforced += [
            "batch statistics are taken of noisy inputs and never re-estimated"
        ]
    left = [
        "centring, scale and bound were fixed without looking at the private records",
        "batch order, augmentation, stopping time and hyper-parameters do not depend "
        "on the private features",
        "no other run on the same records is released (restarts, tuning and "
        "fine-tuning compose)",
        "nothing computed from un-noised training records is released with the weights",
        *seed_assumption(noise_seed),
        _FLOATS,
    ]
    return told_apart(enforced, left)


def _copies(
    participations: int,
    draw: residual.Draw,
    members: int,
    noise_per_member: residual.Sharing,
) -> int:
    per_member = participations if draw == "step" else 1
    return per_member * (members if noise_per_member == "own" else 1)
