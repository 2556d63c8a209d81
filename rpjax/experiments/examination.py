"""What all attacks make of one method's models: figures of set A, bounds from set B."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from rpjax import audits
from rpjax.attacks import findings
from rpjax.attacks.by_class import by_class
from rpjax.attacks.canaries import Planted
from rpjax.attacks.contrasts import by_draws, mismatched, unusual
from rpjax.attacks.mixture import Mixture
from rpjax.attacks.shadow_models import ShadowModels
from rpjax.attacks.suite import SUITE, Found, run_suite
from rpjax.audits import Coins
from rpjax.audits.protocol import Adjacency, Threat
from rpjax.learners.base import Mechanism
from rpjax.neighbours import SAME_NEIGHBOURS
from rpjax.privacy import Guarantee

CURVE = 60
REPETITIONS = 500
LEAST_FPR = 1e-4


class Options(NamedTuple):
    """At which delta and confidence; and the seed of resampling and of ties."""

    delta: float
    confidence: float
    seed: int


class Examined(NamedTuple):
    """A method's exposure, audits and controls as JSON values; all scores."""

    part: dict[str, Any]
    arrays: dict[str, np.ndarray]


class OfKind(NamedTuple):
    """One kind of canary: its coins, what models answered, what attacks made of it."""

    planted: Planted
    coins: dict[str, Coins]
    models: dict[str, ShadowModels]
    found: list[Found]


def examined(
    mechanism: Mechanism,
    mixture: Mixture,
    coins: Mapping[str, Coins],
    models: Mapping[str, ShadowModels],
    about: Sequence[str],
    *,
    shadows: Mapping[str, ShadowModels] | None,
    proved: Guarantee,
    options: Options,
    classes: int,
) -> Examined:
    """Attack set A, choose, and audit set B once.

    models: of the method, "A" and "B". about: the questions that are about canaries.
    shadows: undefended models with the coins of A, for a contrast.
    proved: the method's guarantee, whose claims are tested.
    classes: of the data, some perhaps without a canary.
    """
    kinds: list[OfKind] = []
    exposure: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for planted in mixture.planted:
        own = OfKind(
            planted,
            {name: mixture.coins(planted.kind, each) for name, each in coins.items()},
            {n: mixture.only(planted.kind, m, about) for n, m in models.items()},
            [],
        )
        own.found.extend(run_suite(own.models["A"], own.models["B"], planted))
        undefended = None
        if shadows is not None:
            deployed = ("deployed",)
            undefended = mixture.only(planted.kind, shadows["A"], deployed)
        kinds.append(own)
        exposure.append(_exposure(mechanism, own, undefended, classes, options.seed))
        for found in own.found:
            name = f"{planted.kind}.{found.entry.name}"
            arrays |= {f"{name}.A": found.scores_a, f"{name}.B": found.scores_b}
    worst = _worst(exposure)
    part = {
        "exposure": exposure,
        "audits": _audits(kinds[worst], exposure[worst], proved, options),
        "ceiling": _ceiling(proved, models["A"].membership.adjacency),
        "negative": _negative(kinds[worst], exposure[worst], options),
    }
    return Examined(part, arrays)


def _exposure(
    mechanism: Mechanism,
    own: OfKind,
    undefended: ShadowModels | None,
    classes: int,
    seed: int,
) -> dict[str, Any]:
    """All figures of one kind of canary, from set A."""
    a, inside = own.models["A"], own.coins["A"].inside
    outside = int((~inside).sum())
    attacks = [findings.attack(found, inside, seed) for found in own.found]
    ranked = sorted(attacks, key=lambda each: findings.rank(each, outside))
    strongest = ranked[-1]
    by_threat = {each["threat"]: each["name"] for each in ranked}  # the last one stays
    scores = _named(own.found, strongest["name"]).scores_a
    strongest["roc"] = findings.band(scores, inside, seed)
    # the two of a pair share one label
    first = own.planted.canaries.reshape(len(own.planted.canaries), -1)[:, 0]
    labels = own.planted.pool.labels[first]
    effects, worst = findings.exposed(scores, inside, labels.tolist())
    table = by_class(scores, inside, labels, classes, seed=seed)
    contrast = None
    if undefended is not None:
        contrast = _mismatched(own, undefended, seed)
    return {
        "kind": own.planted.kind,
        "members": int(inside.sum()),
        "non_members": outside,
        "attacks": attacks,
        "strongest": strongest["name"],
        "by_threat": {level: by_threat[level] for level in sorted(by_threat)},
        "histogram": findings.histogram(scores, inside),
        "by_draws": _by_draws(own, seed) if mechanism.noisy else [],
        "mismatched": contrast,
        "effects": effects,
        "most_exposed": worst,
        "by_class": {"attack": strongest["name"], **table},
        "not_normal": max(unusual(a, own.planted)),
    }


def _by_draws(own: OfKind, seed: int) -> list[dict[str, Any]]:
    """The headline rate against the number of draws: 1, 2, 4, and so on."""
    a, inside = own.models["A"], own.coins["A"].inside
    most = a.answers["draws"].shape[1]
    counts = [2**power for power in range(most.bit_length()) if 2**power <= most]
    place = findings.RATES.index(findings.HEADLINE)
    tables = by_draws(a, own.planted, counts)
    points = [findings.rates(scores, inside, seed)[1][place] for scores in tables]
    return [
        {"draws": count, "point": point}
        for count, point in zip(counts, points, strict=True)
    ]


def _mismatched(own: OfKind, undefended: ShadowModels, seed: int) -> dict[str, Any]:
    lira = next(entry for entry in SUITE if entry.name == "lira")
    scores = mismatched(undefended, own.models["A"], own.planted)
    found = Found(lira, "T1", scores, scores)
    figures = findings.attack(found, own.coins["A"].inside, seed)
    return {"with": "Plain", "attack": figures}


def _worst(exposure: list[dict[str, Any]]) -> int:
    """The kind of canary that shows most, on set A."""
    ranks = [
        max(findings.rank(each, kind["non_members"]) for each in kind["attacks"])
        for kind in exposure
    ]
    return ranks.index(max(ranks))


def _audits(
    own: OfKind, exposure: dict[str, Any], proved: Guarantee, options: Options
) -> list[dict[str, Any]]:
    """One audit for each threat level, by the attack that was strongest on set A.

    What is proved for the audit's own neighbours is tested as a claim.
    """
    a, b = own.coins["A"], own.coins["B"]
    adjacency = own.models["A"].membership.adjacency
    seeds = [*own.models["A"].seeds, *own.models["B"].seeds]
    same = proved.adjacency in SAME_NEIGHBOURS[adjacency]
    claims = [proved.epsilon] if same and proved.epsilon is not None else []
    claimed_mu = [proved.mu] if same and proved.mu is not None else []
    parts = []
    for threat, name in exposure["by_threat"].items():
        found = _named(own.found, name)
        result = audits.audit(
            *(found.scores_a, a, found.scores_b, b),
            delta=options.delta,
            adjacency=adjacency,
            threat=cast(Threat, threat),
            canaries=own.planted.kind,
            confidence=options.confidence,
            tests=len(exposure["by_threat"]),
            claims=claims,
            mu_claims=claimed_mu,
            training_keys=seeds,
            seed=options.seed,
        )
        threshold = findings.threshold_at(found.scores_a, a.inside)
        parts.append(
            {
                **result.as_dict(),
                "attack": name,
                "attack_label": found.entry.label,
                "at": findings.at(found.scores_b, b.inside, threshold),
            }
        )
    return parts


def _ceiling(proved: Guarantee, adjacency: Adjacency) -> dict[str, Any] | None:
    """The highest ROC curve that the proof allows, if it is of the same neighbours."""
    same = proved.adjacency in SAME_NEIGHBOURS[adjacency]
    if proved.curve is None or not same:
        return None
    fpr = np.geomspace(LEAST_FPR, 1, CURVE)
    return {
        "fpr": fpr.tolist(),
        "tpr": np.asarray(proved.curve.tpr(fpr), np.float64).tolist(),
        "statement": "No attack on the released model can rise above it in expectation",
    }


def _negative(
    own: OfKind, exposure: dict[str, Any], options: Options
) -> dict[str, Any]:
    """The strongest attack's audit of set B where coins are drawn afresh."""
    found = _named(own.found, exposure["strongest"])
    bounds = audits.shuffled(
        *(found.scores_a, own.coins["A"], found.scores_b),
        delta=options.delta,
        confidence=options.confidence,
        repetitions=REPETITIONS,
        seed=options.seed,
    )
    return {"repetitions": REPETITIONS, "share_zero": float((bounds == 0).mean())}


def _named(found: list[Found], name: str) -> Found:
    return next(each for each in found if each.entry.name == name)
