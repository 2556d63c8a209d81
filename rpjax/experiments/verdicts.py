"""What an audit's figures say in a line: accuracy, controls, warnings."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.attacks import findings
from rpjax.intervals import Estimate
from rpjax.neighbours import SAME_NEIGHBOURS

# Shapiro-Wilk rejects 5 % of normal samples
MANY_UNUSUAL = 0.2
# undefended mislabelled canaries of which fewer are found mean that the attack is weak
FOUND_UNDEFENDED = 0.5


def accuracy(log_probs: npt.ArrayLike, labels: npt.ArrayLike) -> Estimate:
    """Mean accuracy of models on the same records, as an ensemble of trainings varies.

    log_probs: (models, queries, n, k). The interval is Student's over models: it covers
    training, not the choice of the records.
    """
    answers = np.asarray(log_probs)
    right = (answers.argmax(-1) == np.asarray(labels)).mean((1, 2))
    models, mean = len(right), float(right.mean())
    half = 0.0
    if models > 1:
        error = right.std(ddof=1) / np.sqrt(models)
        half = float(scipy.stats.t.ppf(0.975, models - 1) * error)
    method = "Student's t over models"
    return Estimate(
        mean, max(0.0, mean - half), min(1.0, mean + half), models, 0.95, method
    )


def strongest(kind: Mapping[str, Any]) -> dict[str, Any]:
    """The attack that is strongest on this kind of canary."""
    found: dict[str, Any] = next(
        each for each in kind["attacks"] if each["name"] == kind["strongest"]
    )
    return found


def headline(attack: Mapping[str, Any]) -> dict[str, Any]:
    """Its rate at the false-positive rate that everything is judged by."""
    point: dict[str, Any] = attack["tpr_at"][findings.RATES.index(findings.HEADLINE)]
    return point


def rounded(bound: float, towards: Callable[[float], int]) -> str:
    """A bound to two digits, on its safe side: a lower one down, an upper one up.

    >>> rounded(5.6687, math.floor), rounded(159.261, math.ceil)
    ('5.66', '159.27')
    """
    return f"{towards(100 * bound) / 100:.2f}"


def line(part: Mapping[str, Any]) -> str:
    """One line on a finished method."""
    audited = part["audits"][0]["canaries"]
    worst = next(kind for kind in part["exposure"] if kind["kind"] == audited)
    attack = strongest(worst)
    point, best = headline(attack), max(each["epsilon"] for each in part["audits"])
    return (
        f"test accuracy {part['utility']['test_accuracy']['value']:.1%}; "
        f"{attack['threat']}, {worst['kind']}: {attack['label']} finds "
        f"{point['tpr']:.1%} at {point['realised_fpr']:.2%} false positives; "
        f"epsilon >= {rounded(best, math.floor)}"
    )


def controls(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the audit finds what is there, and nothing where nothing is."""
    told = [*_undefended(parts), *_proved(parts)]
    positive: dict[str, Any] = {
        "passed": all(passed for passed, _ in told) if told else None,
        "text": " ".join(text for _, text in told)
        or "Neither plain training with mislabelled canaries nor a proof for the "
        "audit's neighbours is part of this audit, so nothing could be checked.",
    }
    return {"positive": positive, "negative": _shuffled(parts)}


def _undefended(parts: list[dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    for part in parts:
        for kind in part["exposure"]:
            if part["name"] == "plain" and kind["kind"] == "mislabelled":
                rate = headline(strongest(kind))["tpr"]
                yield (
                    rate > FOUND_UNDEFENDED,
                    f"Of mislabelled canaries in undefended nets, {100 * rate:.1f} % "
                    "are found at 1 % false positives (more than "
                    f"{100 * FOUND_UNDEFENDED:.0f} % are expected).",
                )


def _proved(parts: list[dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    for part in parts:
        proved = part["guarantee"]
        same = [
            each["epsilon"]
            for each in part["audits"]
            if proved["adjacency"] in SAME_NEIGHBOURS[each["adjacency"]]
        ]
        if same and proved["epsilon"] is not None:
            kept = max(same) <= proved["epsilon"]
            said = "not above" if kept else "ABOVE"
            text = (
                f"{part['label']}: the bound of {rounded(max(same), math.floor)} is "
                f"{said} the proved ε of {rounded(proved['epsilon'], math.ceil)}"
            )
            yield kept, text + ("." if kept else "; one of the two is wrong.")


def _shuffled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """With coins drawn afresh 95 % of the bounds must be 0, but for chance."""
    shares = [part["negative"]["share_zero"] for part in parts]
    repetitions = parts[0]["negative"]["repetitions"]
    # one of several methods falls below with a probability of one in a thousand
    least = scipy.stats.binom.ppf(0.001 / len(parts), repetitions, 0.95) / repetitions
    worst = min(shares)
    return {
        "passed": bool(worst >= least),
        "text": f"With coins drawn afresh {repetitions} times for each method, at "
        f"least {100 * worst:.1f} % of the bounds are 0 (95 % are expected, "
        f"{100 * least:.1f} % allowed).",
    }


def warnings(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is to be known of single methods."""
    told = []
    for part in parts:
        for kind in part["exposure"]:
            if kind["not_normal"] > MANY_UNUSUAL:
                told.append(
                    {
                        "method": part["label"],
                        "text": f"The scores of {kind['not_normal']:.0%} of the "
                        f"{kind['kind']} canaries are not normal over models (5 % "
                        "would be chance); LiRA takes them for normal, and may find "
                        "less than there is.",
                    }
                )
            if kind["non_members"] * findings.HEADLINE < 10:
                told.append(
                    {
                        "method": part["label"],
                        "text": f"Of {kind['non_members']} {kind['kind']} non-members, "
                        "1 % are fewer than ten: the rate is below resolution, and the "
                        "strongest attack is chosen by its AUC.",
                    }
                )
    return told
