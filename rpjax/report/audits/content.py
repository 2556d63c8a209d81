"""Reading and checking attacks.json, and the few questions that every view asks it.

A view looks at nothing but this dictionary, and works out nothing that would need an
interval: it selects, and it prints.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rpjax.errors import InputError
from rpjax.neighbours import SAME_NEIGHBOURS
from rpjax.report import schema
from rpjax.report.results import (
    ESTIMATE,
    GUARANTEE,
    SHAPE,
    Results,
    check_by_class,
)
from rpjax.report.schema import MAYBE, NUMBER, Nullable

SCHEMA = "rpjax.attacks/1"
HEADLINE_FPR, LOW_FPR = 0.01, 0.001

POINT = {
    "target_fpr": NUMBER,
    "realised_fpr": NUMBER,
    "tpr": NUMBER,
    "low": MAYBE,
    "high": MAYBE,
    "true_positives": int,
    "false_positives": int,
    "below_resolution": bool,
}
ATTACK = {
    "name": str,
    "label": str,
    "threat": str,
    "auc": ESTIMATE,
    "balanced_accuracy": ESTIMATE,
    "tpr_at": [POINT],
    "ppv": [{"prior": NUMBER, "value": MAYBE, "low": MAYBE, "high": MAYBE}],
    "roc": {"fpr": [NUMBER], "tpr": [NUMBER], "low": [MAYBE], "high": [MAYBE]},
}
EXPOSURE = {
    "kind": str,
    "members": int,
    "non_members": int,
    "attacks": [ATTACK],
    "strongest": str,
    "by_threat": {},
    "histogram": {"edges": [NUMBER], "members": [int], "non_members": [int]},
    "by_draws": [{"draws": int, "point": POINT}],
    "mismatched": Nullable({"with": str, "attack": ATTACK}),
    "effects": [MAYBE],
    "most_exposed": [
        {
            "record": int,
            "label": int,
            "tpr": {**ESTIMATE, "n": int},
            "fpr": {**ESTIMATE, "n": int},
            "effect": MAYBE,
        }
    ],
}
AUDIT = {
    "epsilon": NUMBER,
    "delta": NUMBER,
    "confidence": NUMBER,
    "tests": int,
    "adjacency": str,
    "threat": str,
    "canaries": str,
    "models_a": int,
    "models_b": int,
    "coins": int,
    "guesses": int,
    "correct": int,
    "claims": [{"name": str, "claimed": NUMBER, "p_value": NUMBER, "refuted": bool}],
    "figures": [
        {
            "name": str,
            "value": MAYBE,
            "kind": str,
            "method": str,
            "condition": str,
            "upper": MAYBE,
        }
    ],
    "warnings": [str],
    "kind": str,
    "method": str,
    "attack": str,
    "attack_label": str,
    "at": POINT,
}
METHOD = {
    "name": str,
    "label": str,
    "description": str,
    "model": {"name": str, "parameters": int, "members": int},
    "training": {
        "steps": int,
        "epochs": NUMBER,
        "batch_size": int,
        "noise_multiplier": MAYBE,
        "clip_norm": MAYBE,
        "seconds": MAYBE,
    },
    "utility": {"test_accuracy": ESTIMATE, "train_accuracy": ESTIMATE},
    "guarantee": GUARANTEE,
    "exposure": [EXPOSURE],
    "audits": [AUDIT],
    "ceiling": Nullable({"fpr": [NUMBER], "tpr": [NUMBER], "statement": str}),
    "negative": {"repetitions": int, "share_zero": NUMBER},
}
AUDITED_SHAPE = {
    **{key: SHAPE[key] for key in ("schema", "created", "command", "seed")},
    **{key: SHAPE[key] for key in ("device", "config", "config_hash", "wall_seconds")},
    "versions": {},
    "data": {
        "name": str,
        "source": str,
        "classes": int,
        "shape": [int],
        "data_hash": str,
        "fixed": int,
        "expected_records": NUMBER,
        "test_records": int,
    },
    "protocol": {
        "models_a": int,
        "models_b": int,
        "coin_seed_a": int,
        "coin_seed_b": int,
        "kinds": [{"kind": str, "count": int, "share": NUMBER, "adjacency": str}],
        "draws": int,
        "views": int,
        "confidence": NUMBER,
        "delta": NUMBER,
    },
    "methods": [METHOD],
    "controls": {
        "positive": {"passed": Nullable(bool), "text": str},
        "negative": {"passed": bool, "text": str},
    },
    "warnings": [{"method": Nullable(str), "text": str}],
}


def load(path: str | Path) -> Results:
    """The checked contents of an attacks.json.

    Args:
        path: the file, or the folder that holds an ``attacks.json``.

    Raises:
        InputError: the file cannot be read, is not JSON, or is not of this schema.
    """
    path = Path(path)
    path = path / "attacks.json" if path.is_dir() else path
    return check(schema.read(path), source=str(path))


def check(results: Any, source: str = "attacks") -> Results:
    """The same dictionary, once it is known to hold everything that a view needs.

    Raises:
        InputError: naming the first key that is missing or of the wrong kind.
    """
    schema.expect_schema(results, SCHEMA, source)
    schema.expect(results, AUDITED_SHAPE, source)
    kinds = [kind["kind"] for kind in results["protocol"]["kinds"]]
    _unlike(kinds, f"{source}.protocol.kinds")
    _unlike([m["name"] for m in results["methods"]], f"{source}.methods")
    for index, method in enumerate(results["methods"]):
        _check_method(method, kinds, f"{source}.methods[{index}]")
    return dict(results)


def _unlike(names: list[str], where: str) -> None:
    if not names:
        raise InputError(f"{where}: empty; at least one is needed")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: {name!r} is there twice")


def _check_method(method: dict, kinds: list[str], where: str) -> None:
    schema.expect_guarantee(method["guarantee"], f"{where}.guarantee")
    if method["ceiling"]:
        schema.same_length(f"{where}.ceiling", method["ceiling"], ("fpr", "tpr"))
    _unlike([e["kind"] for e in method["exposure"]], f"{where}.exposure")
    for index, entry in enumerate(method["exposure"]):
        _check_exposure(entry, kinds, f"{where}.exposure[{index}]")


def _check_exposure(entry: dict, kinds: list[str], where: str) -> None:
    """What a type cannot say: names lead somewhere, and curves have pairs."""
    if entry["kind"] not in kinds:
        known = ", ".join(kinds)
        raise InputError(f"{where}.kind: {entry['kind']!r} is not among {known}")
    names = [attack["name"] for attack in entry["attacks"]]
    _unlike(names, f"{where}.attacks")
    pointers = {"strongest": entry["strongest"]}
    pointers |= {f"by_threat.{t}": name for t, name in entry["by_threat"].items()}
    for field, name in pointers.items():
        if name not in names:
            raise InputError(f"{where}.{field}: {name!r} is none of its attacks")
    _check_histogram(entry["histogram"], f"{where}.histogram")
    check_by_class(entry, where)
    for index, attack in enumerate(entry["attacks"]):
        _check_attack(attack, f"{where}.attacks[{index}]")
    if entry["mismatched"]:
        _check_attack(entry["mismatched"]["attack"], f"{where}.mismatched.attack")


def _check_histogram(histogram: dict, where: str) -> None:
    schema.same_length(where, histogram, ("members", "non_members"))
    edges, bars = histogram["edges"], len(histogram["members"])
    if len(edges) != bars + 1:
        raise InputError(f"{where}.edges: {len(edges)} for {bars} bars")
    if edges != sorted(edges):
        raise InputError(f"{where}.edges: not in ascending order")


def _check_attack(attack: dict, where: str) -> None:
    curve = attack["roc"]
    banded = ("low", "high") if curve["low"] or curve["high"] else ()
    schema.same_length(f"{where}.roc", curve, ("fpr", "tpr", *banded))
    for target in (HEADLINE_FPR, LOW_FPR):
        if not any(_is_at(found, target) for found in attack["tpr_at"]):
            raise InputError(f"{where}.tpr_at: nothing at a target FPR of {target:g}")


def _is_at(found: dict, target: float) -> bool:
    return math.isclose(found["target_fpr"], target)


# Questions ---------------------------------------------------------------------------


def point(attack: dict, target: float = HEADLINE_FPR) -> dict:
    """The true-positive rate of an attack at a target false-positive rate."""
    return next(found for found in attack["tpr_at"] if _is_at(found, target))


def strongest(entry: dict) -> dict:
    """The attack that is marked as the strongest on one kind of canaries."""
    return next(a for a in entry["attacks"] if a["name"] == entry["strongest"])


def headline(method: dict) -> dict:
    """The kind of canaries of which most are found at 1 % FPR; first where several."""
    return max(method["exposure"], key=lambda e: point(strongest(e))["tpr"])


def audited(method: dict) -> dict | None:
    """The audit with the largest lower bound; the first where several."""
    return max(method["audits"], key=lambda audit: audit["epsilon"], default=None)


def noisy(results: Results) -> list[dict]:
    """The methods whose answers were also averaged over draws of their noise."""
    return [m for m in results["methods"] if headline(m)["by_draws"]]


# The neighbours of an audit, and the proofs that speak of them: those for more general
# neighbours hold for the special ones too.


def proofs(method: dict) -> Iterator[dict]:
    """What is proved as an epsilon, the chosen account first."""
    if method["guarantee"]["epsilon"] is not None:
        yield method["guarantee"]
    yield from method["guarantee"]["alternatives"]


def comparable(audit: dict, method: dict) -> list[dict]:
    """The proofs that speak of the neighbours that were audited."""
    same = SAME_NEIGHBOURS.get(audit["adjacency"], (audit["adjacency"],))
    return [proof for proof in proofs(method) if proof["adjacency"] in same]


def contradicted(audit: dict, method: dict) -> list[dict]:
    """The proofs that the audit refutes: one of the two must be wrong.

    A proof at a smaller delta holds at the delta of the audit too.
    """
    return [
        proof
        for proof in comparable(audit, method)
        if proof["delta"] <= audit["delta"] and proof["epsilon"] < audit["epsilon"]
    ]
