"""Guarantees: a privacy figure together with what it means and what it rests on.

A privacy number never travels alone. Where a premise of a theorem does not hold, the
guarantee is of kind "none" and names the premise; there is no figure "under the
assumption that".
"""

import dataclasses
import importlib.metadata
import math
import textwrap
from typing import Any, Literal, NamedTuple

from rpjax.privacy import checks, dpsgd, gdp, residual

NoiseSeed = Literal["secret", "fixed"]
Strategy = Literal["none", "additive", "multiplicative"]
Augmentation = Literal["none", "before_noise", "after_noise"]

_ADD_REMOVE = "add or remove one record"
_REPLACE_ONE = "replace one record by another"
_REPLACE_FEATURES = "replace one record's features, labels equal"

_LABELS = (
    "labels: the gradient of the last layer's bias shows them whatever the noise is"
)
_PRESENCE = (
    "whether a record is present at all, so a membership-inference attack may succeed "
    "without contradicting this statement"
)
_OWN_FIGURES = (
    "figures computed from the training records themselves, such as training accuracy "
    "and attack scores; those of a report are for its owner"
)
_TUNING = (
    "the search for hyper-parameters, and any other training run on the same records: "
    "each one composes with this one"
)
_FLOATS = (
    "float32 noise from a pseudo-random generator approximates the theorem's Gaussian"
)


@dataclasses.dataclass(frozen=True)
class Alternative:
    """The same run by another accountant or for other neighbours."""

    accountant: str
    adjacency: str
    epsilon: float
    delta: float


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What is proved about the released weights of one training run.

    Attributes:
        kind: "none", "gdp" (Gaussian differential privacy) or "dp".
        mechanism: what was done, in prose.
        unit: what is protected; None where nothing is.
        adjacency: which data sets count as neighbours; None where nothing is proved.
        epsilon: upper bound at `delta`, or None.
        delta: the probability of failure that goes with `epsilon`, or None.
        mu: of Gaussian differential privacy, where the proof gives one.
        accountant: how the figures were computed.
        alternatives: the same run under other accountants or neighbours.
        statement: the guarantee in plain language.
        assumptions: what it rests on, each one beginning with who sees to it.
        not_covered: what it says nothing about.
    """

    kind: Literal["none", "gdp", "dp"]
    mechanism: str
    unit: str | None
    adjacency: str | None
    epsilon: float | None
    delta: float | None
    mu: float | None
    accountant: str | None
    alternatives: tuple[Alternative, ...]
    statement: str
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, tuples as lists."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    def __str__(self) -> str:
        lines = [_headline(self), *_wrapped(self.statement)]
        lines += _wrapped(f"mechanism: {self.mechanism}")
        if self.unit is not None:
            lines += [f"  protects: {self.unit}", f"  neighbours: {self.adjacency}"]
            lines += [f"  computed by: {self.accountant}"]
        for other in self.alternatives:
            figure = _figure(other.epsilon, other.delta)
            lines += [f"  also: {figure}, {other.adjacency}, {other.accountant}"]
        for title, entries in [
            ("It rests on:", self.assumptions),
            ("It does not cover:", self.not_covered),
        ]:
            if entries:
                lines += [title, *(line for e in entries for line in _wrapped(e, "- "))]
        return "\n".join(lines)


def no_guarantee(mechanism: str, *reasons: str) -> Guarantee:
    """The honest answer where nothing is proved, with the reasons.

    >>> print(no_guarantee("plain training", "nothing random hides a record"))
    No privacy guarantee
      Nothing is proved about this run: nothing random hides a record.
      mechanism: plain training
    It does not cover:
      - anything: attacks can show a leak, and their failure does not show its absence
    """
    return Guarantee(
        kind="none",
        mechanism=mechanism,
        unit=None,
        adjacency=None,
        epsilon=None,
        delta=None,
        mu=None,
        accountant=None,
        alternatives=(),
        statement=f"Nothing is proved about this run: {'; '.join(reasons)}.",
        assumptions=(),
        not_covered=(
            "anything: attacks can show a leak, and their failure does not show its "
            "absence",
        ),
    )


# --------------------------------------------------------------- residual perturbation


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
    failed = _failed_premises(
        bound_enforced, constants_public, releases_clean_statistics, draw, augmentation
    )
    if failed:
        return no_guarantee(mechanism, *failed)
    epsilon = gdp.epsilon(delta, mu)
    copies = _copies(participations, draw, members, noise_per_member)
    span = residual.input_diameter(bound, diameter)
    return Guarantee(
        kind="gdp",
        mechanism=mechanism,
        unit="one record's features",
        adjacency=_REPLACE_FEATURES,
        epsilon=epsilon,
        delta=delta,
        mu=mu,
        accountant="closed form of Gaussian differential privacy",
        alternatives=(),
        statement=_feature_statement(epsilon, delta, mu, noise_seed),
        assumptions=_feature_assumptions(
            input_noise, bound, span, copies, batch_norm, noise_seed
        ),
        not_covered=(_LABELS, _PRESENCE, "the number of records", _OWN_FIGURES),
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
    return tuple(
        f"a premise fails, {name}" for name, fails in premises.items() if fails
    )


def _feature_statement(
    epsilon: float, delta: float, mu: float, noise_seed: NoiseSeed
) -> str:
    return (
        "Exchanging one training record's features for any others, its label kept, "
        "changes the distribution of the trained weights by no more than the shift of "
        f"a Gaussian by μ = {mu:.4g} standard deviations, which is "
        f"{_figure(epsilon, delta)}. "
        + "A test of which of the two features a record had, with 1 % false alarms, "
        "finds at most " + _power(float(gdp.tpr(0.01, mu))) + _seed_note(noise_seed)
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
        *_seed_assumption(noise_seed),
        _FLOATS,
    ]
    return _told_apart(enforced, left)


def _copies(
    participations: int,
    draw: residual.Draw,
    members: int,
    noise_per_member: residual.Sharing,
) -> int:
    per_member = participations if draw == "step" else 1
    return per_member * (members if noise_per_member == "own" else 1)


# ------------------------------------------------------------------------------ DP-SGD


def dpsgd_guarantee(
    *,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    records: int,
    capacity: int,
    members: int = 1,
    poisson_sampling: bool = True,
    batch_norm: bool = False,
    noise_seed: NoiseSeed = "secret",
) -> Guarantee:
    """What DP-SGD proves, by privacy loss distributions, with the overflow paid for.

    The chance that a batch exceeds its capacity is taken for one record more than there
    are, so that it holds for either neighbour. Members of an ensemble, each with its
    own sampling and noise, count as that many runs one after another.

    Args:
        noise_multiplier: sigma; 0 gives no guarantee.
        sampling_probability: q, chance that a record enters a step.
        steps: noisy updates of one member.
        delta: at which epsilon is stated.
        records: number of training records N.
        capacity: places in the batch; a larger Poisson batch is cut to it at random.
        members: networks trained on the same records.
        poisson_sampling: whether records enter each step independently; no figure here
            holds for shuffled or fixed-size batches.
        batch_norm: whether batch statistics are used, which mix records and void the
            per-record clipping.
        noise_seed: "secret", or "fixed" where the run can be reproduced by a reader.

    Raises:
        InputError: a field outside its range.
    """
    checks.not_negative("noise_multiplier", noise_multiplier)
    checks.whole("steps", steps)
    checks.whole("records", records)
    checks.whole("members", members)
    checks.fraction("delta", delta)
    checks.one_of("noise_seed", noise_seed, ("secret", "fixed"))
    overflow = dpsgd.overflow_probability(records + 1, sampling_probability, capacity)
    mechanism = (
        f"DP-SGD: noise multiplier σ = {noise_multiplier:.4g}, sampling probability "
        f"q = {sampling_probability:.4g}, {steps} steps"
    ) + (f", an ensemble of {members}" if members > 1 else "")
    failed = _failed_dpsgd_premises(noise_multiplier, poisson_sampling, batch_norm)
    if failed:
        return no_guarantee(mechanism, *failed)

    run = _PrivateRun(
        noise_multiplier, sampling_probability, steps * members, delta, overflow
    )
    main = run.epsilon("pld", "add_remove")
    if main is None:
        return no_guarantee(
            mechanism,
            f"batches exceed their capacity of {capacity} too often, or the noise is "
            f"too small, for a finite epsilon at delta = {delta:g}",
        )
    others = {
        ("RDP", _ADD_REMOVE): run.epsilon("rdp", "add_remove"),
        ("PLD", _REPLACE_ONE): run.epsilon("pld", "replace_one"),
    }
    return Guarantee(
        kind="dp",
        mechanism=mechanism,
        unit="one record, features and label",
        adjacency=_ADD_REMOVE,
        epsilon=main,
        delta=delta,
        mu=None,
        accountant=_with_version("PLD"),
        alternatives=tuple(
            Alternative(_with_version(name), relation, value, delta)
            for (name, relation), value in others.items()
            if value is not None
        ),
        statement=_dpsgd_statement(main, delta, run.power(), records, noise_seed),
        assumptions=_dpsgd_assumptions(capacity, overflow, noise_seed),
        not_covered=(
            _TUNING,
            _OWN_FIGURES,
            "logs and timings of the run",
            "the number of records, which scales the average gradient",
            *(
                f"{relation} ({name}): batches overflow too often for a finite figure"
                for (name, relation), value in others.items()
                if value is None
            ),
        ),
    )


class _PrivateRun(NamedTuple):
    noise_multiplier: float
    sampling_probability: float
    steps: int
    delta: float
    overflow: float

    def epsilon(
        self, accountant: dpsgd.Accountant, adjacency: dpsgd.Adjacency
    ) -> float | None:
        """Epsilon, or None where no finite one holds."""
        try:
            found = dpsgd.epsilon(
                self.noise_multiplier,
                self.sampling_probability,
                self.steps,
                self.delta,
                accountant,
                adjacency,
                self.overflow,
            )
        except dpsgd.OverflowTooLikely:
            return None
        return found if math.isfinite(found) else None

    def power(self) -> float:
        """What share of members a test with one false alarm in a hundred can find."""
        return float(
            dpsgd.tpr(
                0.01,
                self.noise_multiplier,
                self.sampling_probability,
                self.steps,
                overflow_probability=self.overflow,
            )
        )


def _with_version(accountant: str) -> str:
    return f"{accountant} (dp-accounting {importlib.metadata.version('dp-accounting')})"


def _failed_dpsgd_premises(
    noise_multiplier: float, poisson_sampling: bool, batch_norm: bool
) -> tuple[str, ...]:
    premises = {
        "the noise multiplier is zero": noise_multiplier == 0,
        "records do not enter each step independently (Poisson sampling)": (
            not poisson_sampling
        ),
        "batch normalisation makes a record's gradient depend on its companions": (
            batch_norm
        ),
    }
    return tuple(
        f"a premise fails, {name}" for name, fails in premises.items() if fails
    )


def _dpsgd_statement(
    epsilon: float, delta: float, power: float, records: int, noise_seed: NoiseSeed
) -> str:
    return (
        "Adding or removing any one training record, features and label, changes the "
        "probability of any outcome of training by at most a factor e^ε up to δ: "
        f"{_figure(epsilon, delta)}. "
        + "A membership test with 1 % false alarms finds at most "
        + _power(power)
        + (
            f" δ is not below 1/{records}, one over the number of records: it would "
            "allow a procedure that publishes a record."
            if delta >= 1 / records
            else ""
        )
        + _seed_note(noise_seed)
    )


def _dpsgd_assumptions(
    capacity: int, overflow: float, noise_seed: NoiseSeed
) -> tuple[str, ...]:
    enforced = [
        "each step draws its records by Poisson sampling, independently of the noise",
        f"batches have {capacity} places; a larger Poisson batch is cut at random, and "
        f"its probability ({overflow:.1e} per step) is paid for out of δ",
        "each record's gradient is clipped before the sum, and the sum is divided by "
        "the expected batch size, a constant",
        "no layer mixes records (no batch normalisation)",
    ]
    left = [
        "hyper-parameters and stopping time do not depend on the private records",
        "only the trained weights are released",
        *_seed_assumption(noise_seed),
        f"{_FLOATS}, and float32 uniforms approximate the sampling probability",
    ]
    return _told_apart(enforced, left)


# ------------------------------------------------------------------------------- words


def _figure(epsilon: float, delta: float) -> str:
    size = f"{epsilon:.4g}" if epsilon < 1e4 else f"{epsilon:.0f}"
    return f"(ε = {size}, δ = {delta:g})"


def _headline(guarantee: Guarantee) -> str:
    if guarantee.epsilon is None or guarantee.delta is None:
        return "No privacy guarantee"
    figure = _figure(guarantee.epsilon, guarantee.delta)
    return f"{figure} for {guarantee.unit}: {guarantee.adjacency}"


def _power(power: float) -> str:
    """The most that a test with one false alarm in a hundred can find."""
    text = f"{100 * power:.3g} %."
    if power > 0.99:
        text += " That excludes next to nothing: the figure is of no practical use."
    return text


def _seed_note(noise_seed: NoiseSeed) -> str:
    if noise_seed == "secret":
        return ""
    return (
        " This run is a reproduction with a fixed noise seed: the figure does not hold "
        "against anyone who knows the seed."
    )


def _seed_assumption(noise_seed: NoiseSeed) -> tuple[str, ...]:
    if noise_seed == "secret":
        return (
            "the secret seed, of the noise and of who is sampled, stays secret and "
            "serves for this run alone",
        )
    return (
        "the noise seed, fixed here for reproduction, is unknown to the attacker; "
        "release weights only from a run with a secret seed",
    )


def _told_apart(enforced: list[str], left: list[str]) -> tuple[str, ...]:
    by_code = (f"Enforced by the library: {text}" for text in enforced)
    return (*by_code, *(f"Left to the user: {text}" for text in left))


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width=88,
        initial_indent="  " + bullet,
        subsequent_indent="  " + " " * len(bullet),
    )
