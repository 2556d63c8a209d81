"""What residual perturbation proves: a guarantee for one record's features."""

import dataclasses
from typing import Literal

from rpjax.errors import InputError
from rpjax.privacy import checks, feature_wording, residual
from rpjax.privacy.algebra import compose, repeated
from rpjax.privacy.certificate import Alternative, Guarantee, no_guarantee
from rpjax.privacy.curves import Gaussian
from rpjax.privacy.feature_wording import (
    FEATURES,
    LABEL,
    WHOLE,
    Augmentation,
    Facts,
    Strategy,
)
from rpjax.privacy.labels import RandomisedResponse
from rpjax.privacy.stored import storable
from rpjax.privacy.theorem import RecalledTheorem
from rpjax.privacy.wording import NoiseSeed, failed

EXACT = "exact (closed form)"
COMPOSED = "composition (features and labels, by privacy loss distributions)"
RECALLED = (
    "recalled (the paper's theorem, as recalled: Rényi composition and Mironov's "
    "conversion)"
)
Statistics = Literal["training", "re-estimated"]


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
    batch_statistics: Statistics = "training",
    strategy: Strategy = "none",
    gamma: float = 0.0,
    floor: float = 0.0,
    residual_bound: float | None = None,
    label_epsilon: float | None = None,
    classes: int | None = None,
    models: int = 1,
    noise_seed: NoiseSeed = "secret",
    noise_reused: bool = False,
    trained: str | None = None,
    pretrained: str | None = None,
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
            records reaches the weights or is released with them: a checkpoint chosen by
            clean training loss, clean training accuracy, cached activations.
        draw: "step" or "record", as in `residual.mu`.
        members: number of networks trained on the same records.
        noise_per_member: "own" or "shared", as in `residual.mu`.
        augmentation: whether random views are taken before the noise, after it, or not
            at all. Before it they need fresh noise, hence draw="step".
        batch_norm: whether batch statistics are used; harmless behind noisy inputs.
        batch_statistics: "re-estimated" where they are not those that training left, so
            that un-noised records may have entered them.
        strategy: "additive" (Strategy I), "multiplicative" (II) or "none".
        gamma: scale of the residual noise.
        floor: smallest activation that scales the noise of Strategy II.
        residual_bound: l2 norm G to which each residual branch is clipped, if it is; it
            is of no consequence for the figure either.
        label_epsilon: of randomised response on the labels, once for each record (and
            member with noise of its own); the guarantee is then for whole records.
        classes: how many labels there are; needed with label_epsilon.
        models: trained side by side, of which the guarantee is for each by itself.
        noise_seed: "secret", or "fixed" where the run can be reproduced by a reader.
        noise_reused: whether the same noise served another training on these records.
        trained: which parameters move, in words; None is all of them.
        pretrained: public data that the initial weights come from, in words; None where
            they are drawn at random.

    Raises:
        InputError: a field outside its range.
    """
    checks.not_negative("input_noise", input_noise)
    checks.fraction("delta", delta)
    checks.not_negative("gamma", gamma)
    checks.not_negative("floor", floor)
    checks.one_of("strategy", strategy, ("none", "additive", "multiplicative"))
    checks.one_of("augmentation", augmentation, ("none", "before_noise", "after_noise"))
    checks.one_of("batch_statistics", batch_statistics, ("training", "re-estimated"))
    checks.one_of("noise_seed", noise_seed, ("secret", "fixed"))
    span = residual.input_diameter(bound, diameter) if input_noise > 0 else diameter
    facts = Facts(
        *(input_noise, delta, participations, bound, span, draw, members),
        *(noise_per_member, augmentation, batch_norm, strategy, gamma, floor),
        *(residual_bound, label_epsilon, classes, models, noise_seed),
        trained=trained,
        pretrained=pretrained,
    )
    if (label_epsilon is None) != (classes is None):
        raise InputError(
            f"label_epsilon = {label_epsilon!r}, classes = {classes!r}: give both or "
            "none"
        )
    if input_noise == 0:
        return _nothing(facts, feature_wording.without_input_noise(facts))
    mu = residual.mu(
        input_noise,
        diameter=span,
        participations=participations,
        draw=draw,
        members=members,
        noise_per_member=noise_per_member,
    )
    views_of_one_noise = draw == "record" and augmentation == "before_noise"
    broken = failed(
        {
            "the norm bound on the inputs is not enforced by clipping": (
                not bound_enforced
            ),
            "centring, scale or bound were computed from the private records": (
                not constants_public
            ),
            "something computed from un-noised training records reaches the release": (
                releases_clean_statistics
            ),
            "batch statistics were re-estimated after training, so that un-noised "
            "records may have entered them": batch_statistics == "re-estimated",
            "one noise per record meets several augmented views of it, whose "
            "difference shows the clean record": views_of_one_noise,
            "the noise was used before, in another training on the same records": (
                noise_reused
            ),
        }
    )
    if broken:
        return _nothing(facts, broken)
    return _stated(facts, mu) if label_epsilon is None else _whole(facts, mu)


def _nothing(facts: Facts, reasons: tuple[str, ...]) -> Guarantee:
    return no_guarantee(
        feature_wording.mechanism(facts),
        *reasons,
        name=facts.name,
        parameters=facts.parameters(),
    )


def _stated(facts: Facts, mu: float) -> Guarantee:
    curve, delta = Gaussian(mu), facts.delta
    epsilon, recalled = curve.epsilon(delta), RecalledTheorem(mu**2 / 2)
    return Guarantee(
        kind="gdp",
        name=facts.name,
        mechanism=feature_wording.mechanism(facts),
        parameters=facts.parameters(),
        unit="one record's features",
        adjacency=FEATURES,
        public=feature_wording.public(facts),
        epsilon=epsilon,
        delta=delta,
        mu=mu,
        accountant=EXACT,
        alternatives=(Alternative(RECALLED, FEATURES, recalled.epsilon(delta), delta),),
        curve=curve,
        statement=feature_wording.statement(facts, mu, epsilon, float(curve.tpr(0.01))),
        assumptions=feature_wording.assumptions(facts),
        not_covered=feature_wording.not_covered(facts),
    )


def _whole(facts: Facts, mu: float) -> Guarantee:
    """With the labels drawn at random too: one whole record replaced by another."""
    assert facts.label_epsilon is not None
    assert facts.classes is not None
    delta, features = facts.delta, _stated(facts, mu)
    labels = repeated(
        RandomisedResponse(facts.label_epsilon, facts.classes), facts.label_draws
    )
    # the two noises are independent: replacing both is the two replacements composed
    both = compose(Gaussian(mu), labels)
    epsilon = both.epsilon(delta)
    curve = storable(both, (epsilon, delta))
    assert features.epsilon is not None
    return dataclasses.replace(
        features,
        kind="dp",
        unit="one record, features and label",
        adjacency=WHOLE,
        public=feature_wording.public(facts),
        epsilon=epsilon,
        mu=None,
        accountant=COMPOSED,
        alternatives=(
            Alternative(EXACT, FEATURES, features.epsilon, delta),
            *features.alternatives,
            Alternative(EXACT, LABEL, labels.epsilon(delta), delta),
        ),
        curve=curve,
        statement=feature_wording.whole_statement(
            facts, epsilon, float(curve.tpr(0.01))
        ),
    )
