"""Reading and checking results.json, and the few questions that every view asks it.

A view never looks at anything but this dictionary, so that a report can be made again
years later, on another machine, without the models.
"""

import math
from pathlib import Path
from typing import Any

from rpjax.errors import InputError
from rpjax.report import schema
from rpjax.report.schema import MAYBE, NUMBER, Nullable

SCHEMA = "rpjax.results/1"

Results = dict[str, Any]

ESTIMATE = {"value": NUMBER, "low": MAYBE, "high": MAYBE, "confidence": NUMBER}
ATTACK = {
    "name": str,
    "label": str,
    "auc": ESTIMATE,
    "balanced_accuracy": ESTIMATE,
    "tpr_at": [
        {
            "target_fpr": NUMBER,
            "realised_fpr": NUMBER,
            "tpr": NUMBER,
            "low": MAYBE,
            "high": MAYBE,
            "false_positives": int,
        }
    ],
    "roc": {"fpr": [NUMBER], "tpr": [NUMBER]},
    "threshold_from": str,
}
# of an exposure; results of earlier versions are without it
BY_CLASS = {
    "attack": str,
    "confidence": NUMBER,
    "confidence_each": NUMBER,
    "intervals": int,
    "correction": str,
    "classes": [
        {
            "label": int,
            "records": int,
            "members": int,
            "non_members": int,
            "auc": Nullable(ESTIMATE),
            "tpr_at": Nullable(
                {"target_fpr": NUMBER, "tpr": NUMBER, "low": NUMBER, "high": NUMBER}
            ),
            "missing": [str],
        }
    ],
    "most_exposed": Nullable(
        {
            "label": int,
            "auc": NUMBER,
            "others": NUMBER,
            "gap": NUMBER,
            "p_value": NUMBER,
            "permutations": int,
            "method": str,
        }
    ),
}
EXPOSURE = {
    "threat": str,
    "query": str,
    "members": int,
    "non_members": int,
    "attacks": [ATTACK],
}
GUARANTEE = {
    "kind": str,
    "mechanism": str,
    "unit": Nullable(str),
    "adjacency": Nullable(str),
    "epsilon": MAYBE,
    "delta": MAYBE,
    "mu": MAYBE,
    "accountant": Nullable(str),
    "alternatives": [
        {"accountant": str, "adjacency": str, "epsilon": NUMBER, "delta": NUMBER}
    ],
    "statement": str,
    "assumptions": [str],
    "not_covered": [str],
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
        "seconds": MAYBE,
        "compile_seconds": MAYBE,
        "history": {"epoch": [NUMBER], "loss": [NUMBER], "accuracy": [NUMBER]},
    },
    "utility": {
        "test_accuracy": ESTIMATE,
        "train_accuracy": ESTIMATE,
        "generalization_gap": ESTIMATE,
        "noise_off_test_accuracy": Nullable(ESTIMATE),
    },
    "cost": {
        "epoch_seconds": MAYBE,
        "relative_time": MAYBE,
        "memory_bytes": MAYBE,
        "memory_kind": Nullable(str),
        "relative_memory": MAYBE,
        "timing_note": Nullable(str),
    },
    "guarantee": GUARANTEE,
    "exposure": [EXPOSURE],
}
SHAPE = {
    "schema": str,
    "created": str,
    "command": str,
    "seed": int,
    "noise_seed": str,
    "versions": {"rpjax": str},
    "device": {"platform": str, "kind": str, "count": int, "host_cores": Nullable(int)},
    "config": {},
    "config_hash": str,
    "data": {
        "name": str,
        "source": str,
        "classes": int,
        "shape": [int],
        "members": int,
        "non_members": int,
        "test_records": int,
    },
    "wall_seconds": NUMBER,
    "methods": [METHOD],
}


def load(path: str | Path) -> Results:
    """The checked contents of a results.json.

    Args:
        path: the file, or the folder that holds a ``results.json``.

    Raises:
        InputError: the file cannot be read, is not JSON, or is not of this schema.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    return check(schema.read(path), source=str(path))


def check(results: Any, source: str = "results") -> Results:
    """The same dictionary, once it is known to hold everything that a view needs.

    Raises:
        InputError: naming the first key that is missing or of the wrong kind.
    """
    schema.expect_schema(results, SCHEMA, source)
    schema.expect(results, SHAPE, source)
    if not results["methods"]:
        raise InputError(f"{source}.methods: empty; at least one method is needed")
    for index, method in enumerate(results["methods"]):
        _check_method(method, f"{source}.methods[{index}]")
    return dict(results)


def _check_method(method: dict, where: str) -> None:
    """What a type cannot say: a stated epsilon is complete, and curves have pairs."""
    schema.expect_guarantee(method["guarantee"], f"{where}.guarantee")
    history = method["training"]["history"]
    columns = ("epoch", "loss", "accuracy")
    schema.same_length(f"{where}.training.history", history, columns)
    for index, entry in enumerate(method["exposure"]):
        check_by_class(entry, f"{where}.exposure[{index}]")
        for attack in entry["attacks"]:
            curve = f"{where}.{attack['name']}.roc"
            schema.same_length(curve, attack["roc"], ("fpr", "tpr"))


def check_by_class(entry: dict, where: str) -> None:
    """The part on classes, where there is one, leads to attacks and classes."""
    table = by_class(entry)
    if table is None:
        return
    schema.expect(table, BY_CLASS, f"{where}.by_class")
    if table["attack"] not in [attack["name"] for attack in entry["attacks"]]:
        raise InputError(
            f"{where}.by_class.attack: {table['attack']!r} is none of its attacks"
        )
    worst = table["most_exposed"]
    labels = [found["label"] for found in table["classes"] if found["auc"]]
    if worst is not None and worst["label"] not in labels:
        raise InputError(
            f"{where}.by_class.most_exposed.label: {worst['label']} has no interval"
        )


def by_class(entry: dict) -> dict | None:
    """The exposure of single classes; None in results of earlier versions."""
    return entry.get("by_class")


def deployed(method: dict) -> dict | None:
    """The first way of querying that was attacked: what a user of the system sees."""
    return next((entry for entry in method["exposure"] if entry["attacks"]), None)


def noise_off(method: dict) -> dict | None:
    """The attacked T4 entry (weights known, noise switched off) beside the deployed."""
    later = [
        e for e in method["exposure"] if e["attacks"] and e is not deployed(method)
    ]
    return next((entry for entry in later if entry["threat"] == "T4"), None)


def strongest(exposure: dict) -> dict:
    """The attack with the largest AUC; the first listed where several tie."""
    return max(exposure["attacks"], key=lambda attack: float(attack["auc"]["value"]))


def largest_auc(exposure: dict | None) -> float:
    """The AUC of the strongest attack; nan where there was none."""
    return math.nan if exposure is None else float(strongest(exposure)["auc"]["value"])


def attacked(results: Results) -> bool:
    """Whether any method was attacked."""
    return any(deployed(method) for method in results["methods"])


def largest_tpr(exposure: dict, target_fpr: float) -> tuple[dict, dict] | None:
    """The attack with the largest TPR at a target FPR, and that entry of it.

    Where several tie, the attack with the larger AUC. None if no attack has the target.
    """
    found = [
        (attack, entry)
        for attack in exposure["attacks"]
        for entry in attack["tpr_at"]
        if math.isclose(entry["target_fpr"], target_fpr)
    ]
    rank = lambda pair: (pair[1]["tpr"], pair[0]["auc"]["value"])
    return max(found, key=rank, default=None)


def below_resolution(entry: dict) -> bool:
    """Whether too few false positives stand behind a TPR for it to be read closely."""
    return bool(entry.get("below_resolution", entry["false_positives"] < 10))


def confidence(results: Results) -> str:
    """The level of the intervals, such as ``95 %``; several levels are all named."""
    levels = {m["utility"]["test_accuracy"]["confidence"] for m in results["methods"]}
    for method in results["methods"]:
        for entry in method["exposure"]:
            levels |= {attack["auc"]["confidence"] for attack in entry["attacks"]}
    return " or ".join(f"{100 * level:g} %" for level in sorted(levels))
