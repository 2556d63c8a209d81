"""Results for the tests of the report. Every number here is invented."""

import copy
import math
from statistics import NormalDist

NORMAL = NormalDist()
MEMBERS, NON_MEMBERS, TEST = 718, 719, 360


def estimate(value, half, n=TEST, method="Clopper-Pearson", low=0.0):
    """An estimate with a symmetric interval, cut to the range of the quantity."""
    return {
        "value": round(value, 6),
        "low": round(max(low, value - half), 6),
        "high": round(min(1.0, value + half), 6),
        "n": n,
        "confidence": 0.95,
        "method": method,
    }


def roc(separation, non_members=NON_MEMBERS):
    """The curve of two normal populations that lie `separation` apart."""
    fpr = [k / non_members for k in range(non_members + 1)]
    inner = [NORMAL.cdf(NORMAL.inv_cdf(p) + separation) for p in fpr[1:-1]]
    return {"fpr": fpr, "tpr": [0.0, *inner, 1.0]}


def attack(name, label, separation, threshold_from="none needed", n=NON_MEMBERS):
    """An attack whose scores are normal, `separation` standard deviations apart."""
    curve = roc(separation, n)
    found = [_tpr(curve, target, n) for target in (0.1, 0.01, 0.001)]
    return {
        "name": name,
        "label": label,
        "auc": estimate(
            NORMAL.cdf(separation / math.sqrt(2)), 0.0293, 2 * n, "DeLong, logit scale"
        ),
        "balanced_accuracy": estimate(NORMAL.cdf(separation / 2), 0.026, 2 * n),
        "tpr_at": found,
        "roc": curve,
        "threshold_from": threshold_from,
    }


def _tpr(curve, target, n):
    false_positives = math.floor(target * n)
    tpr = curve["tpr"][false_positives]
    half = 1.96 * math.sqrt(tpr * (1 - tpr) / MEMBERS) + 0.002
    return {
        "target_fpr": target,
        "realised_fpr": false_positives / n,
        "tpr": tpr,
        "low": max(0.0, tpr - half),
        "high": tpr + half,
        "true_positives": round(tpr * MEMBERS),
        "false_positives": false_positives,
        "below_resolution": false_positives < 3,
    }


def by_class(attack_name, separation, sizes=(90, 80, 75, 70, 60, 40, 30, 20, 3, 0)):
    """Rarer classes are found out more; the rarest two are too few to say so."""
    classes = []
    for label, size in enumerate(sizes):
        found = {"label": label, "records": 2 * size}
        found |= {"members": size, "non_members": size}
        apart = separation * (1 + 0.12 * label)
        area = NORMAL.cdf(apart / math.sqrt(2))
        missing = [f"{size} members; 6 are needed"] if 0 < size < 6 else []
        if size == 0:
            missing = ["no record of this class"]
        elif size < 50 and not missing:
            missing = [f"{size} non-members: fewer than 10 false positives"]
        tpr = NORMAL.cdf(NORMAL.inv_cdf(0.2) + apart)
        point = {"target_fpr": 0.2, "realised_fpr": 0.2, "tpr": tpr}
        point |= {"low": max(0, tpr - 0.15), "high": min(1, tpr + 0.15)}
        half = 1.1 / math.sqrt(max(size, 1))
        known = size >= 6
        found["auc"] = estimate(area, half, 2 * size, "DeLong") if known else None
        found["tpr_at"] = point if known and size >= 50 else None
        classes.append(found | {"missing": missing})
    measured = [found for found in classes if found["auc"]]
    rise = lambda found: found["auc"]["value"] - measured[0]["auc"]["value"]
    worst = max(measured, key=rise)
    gap = 0.9 * rise(worst)
    return {
        "attack": attack_name,
        "confidence": 0.95,
        "confidence_each": 1 - 0.05 / len(measured),
        "intervals": len(measured),
        "correction": "Bonferroni over the classes with an interval",
        "classes": classes,
        "most_exposed": {
            "label": worst["label"],
            "auc": worst["auc"]["value"],
            "others": worst["auc"]["value"] - gap,
            "gap": gap,
            "p_value": 0.004 if separation > 0.5 else 0.31,
            "permutations": 999,
            "method": "labels exchanged among records, largest standardised gap",
        },
    }


def exposure(separation, threat="T1", query="one answer per record"):
    """Four attacks, of which the one with shadow models is the strongest."""
    return {
        "threat": threat,
        "query": query,
        "members": MEMBERS,
        "non_members": NON_MEMBERS,
        "attacks": [
            attack("loss", "Loss threshold (Yeom et al.)", 0.72 * separation),
            attack("confidence", "Confidence threshold", 0.64 * separation),
            attack(
                "modified_entropy",
                "Modified entropy (Song and Mittal)",
                0.75 * separation,
                "shadow models",
            ),
            attack(
                "salem",
                "Shadow models (Salem et al., top-3 MLP)",
                separation,
                "shadow models",
            ),
        ],
        "by_class": by_class("salem", separation),
    }


def history(start, end, rate, top):
    """A training history that settles at loss `end` and accuracy `top`."""
    epochs = list(range(1, 41))
    wobble = [0.02 * math.sin(1.7 * e) / math.sqrt(e) for e in epochs]
    fall = [math.exp(-rate * e) for e in epochs]
    return {
        "step": [22 * e for e in epochs],
        "epoch": [float(e) for e in epochs],
        "loss": [
            end + (start - end) * f + w for f, w in zip(fall, wobble, strict=True)
        ],
        "accuracy": [
            min(1.0, top - (top - 0.1) * f - w)
            for f, w in zip(fall, wobble, strict=True)
        ],
    }


NO_GUARANTEE = {
    "kind": "none",
    "mechanism": "stochastic gradient descent",
    "unit": None,
    "adjacency": None,
    "epsilon": None,
    "delta": None,
    "mu": None,
    "accountant": None,
    "alternatives": [],
    "statement": "Nothing is proved about what this model reveals.",
    "assumptions": [],
    "not_covered": ["everything"],
}

RESIDUAL = {
    **NO_GUARANTEE,
    "mechanism": "Gaussian noise after each residual block",
    "unit": "one record's features",
    "statement": "Without noise on the input, no bound follows for this network.",
    "assumptions": ["the input noise is zero"],
    "not_covered": ["labels", "the features of every record", "the weights"],
}

DPSGD = {
    "kind": "dp",
    "mechanism": "DP-SGD: clipped gradients, Gaussian noise, Poisson batches",
    "unit": "one record, features and label",
    "adjacency": "add or remove one record",
    "epsilon": 7.9831,
    "delta": 1e-5,
    "mu": None,
    "accountant": "PLD (dp-accounting 0.6.0)",
    "alternatives": [
        {
            "accountant": "RDP",
            "adjacency": "add or remove one record",
            "epsilon": 8.6,
            "delta": 1e-5,
        },
        {
            "accountant": "PLD",
            "adjacency": "replace one record",
            "epsilon": 15.42,
            "delta": 1e-5,
        },
    ],
    "statement": "The trained weights are (ε, δ)-differentially private with ε = 7.99"
    " at δ = 1e-5 for adding or removing one record: the weights hardly tell whether a"
    " given record was used.",
    "assumptions": [
        "each batch is a Poisson sample",
        "the noise seed is secret and never used again",
        "the settings were not tuned on these records",
    ],
    "not_covered": ["choices made by looking at the data", "groups of records"],
}


def method(name, label, description, accuracy, train, separation, **changes):
    """One method; `changes` replaces whole entries."""
    made = {
        "name": name,
        "label": label,
        "description": description,
        "model": {"name": "resnet8", "parameters": 77_610, "members": 1},
        "training": {
            "steps": 900,
            "epochs": 40.0,
            "batch_size": 64,
            "seconds": 12.3,
            "compile_seconds": 5.1,
            "history": history(2.3, 0.02, 0.35, train),
        },
        "utility": {
            "test_accuracy": estimate(accuracy, 0.0135),
            "train_accuracy": estimate(train, 0.004, MEMBERS),
            "generalization_gap": estimate(
                train - accuracy, 0.0148, MEMBERS + TEST, "Newcombe", low=-1.0
            ),
            "noise_off_test_accuracy": None,
        },
        "cost": {
            "step_seconds": 0.0137,
            "epoch_seconds": 0.31,
            "relative_time": 1.0,
            "memory_bytes": 61_300_000,
            "memory_kind": "compiled: arguments + temporaries",
            "relative_memory": 1.0,
            "timing_note": "median of 50 steps, compile time apart",
        },
        "guarantee": NO_GUARANTEE,
        "exposure": [exposure(separation)],
    }
    return made | changes


def cost(time, memory):
    """Cost relative to plain training."""
    return {
        "step_seconds": 0.0137 * time,
        "epoch_seconds": 0.31 * time,
        "relative_time": time,
        "memory_bytes": round(61_300_000 * memory),
        "memory_kind": "compiled: arguments + temporaries",
        "relative_memory": memory,
        "timing_note": "median of 50 steps, compile time apart",
    }


def training(settled, top, rate, seconds):
    """Training that ends at loss `settled` and accuracy `top`."""
    return {
        "steps": 900,
        "epochs": 40.0,
        "batch_size": 64,
        "seconds": seconds,
        "compile_seconds": 5.1,
        "history": history(2.3, settled, rate, top),
    }


def residual(name, label, description, figures, **changes):
    """A noisy network: its deployed query, and the noise switched off."""
    accuracy, train, deployed, off = figures
    made = method(name, label, description, accuracy, train, deployed, **changes)
    made["utility"]["noise_off_test_accuracy"] = estimate(accuracy + 0.004, 0.013)
    made["guarantee"] = RESIDUAL
    threat, query = changes.get("asked", ("T1", "one noisy answer per record"))
    made["exposure"] = [
        exposure(deployed, threat, query),
        exposure(off, "T4", "noise switched off (weights known)"),
    ]
    made.pop("asked", None)
    return made


def sample():
    """Five methods on a small data set, with plausible and invented numbers."""
    methods = [
        method(
            "plain",
            "Plain",
            "The same network without any noise.",
            0.9722,
            1.0,
            0.79,
        ),
        residual(
            "strategy1",
            "Strategy I (γ = 0.5)",
            "Additive Gaussian noise after every residual block.",
            (0.9639, 0.9889, 0.31, 0.66),
            cost=cost(1.16, 1.04),
            training=training(0.11, 0.978, 0.21, 14.2),
        ),
        residual(
            "strategy2",
            "Strategy II (γ = 0.5)",
            "Multiplicative Gaussian noise after every residual block.",
            (0.9667, 0.9944, 0.42, 0.71),
            cost=cost(1.19, 1.06),
            training=training(0.07, 0.986, 0.25, 14.4),
        ),
        residual(
            "ensemble",
            "Ensemble of 5, Strategy I (γ = 0.5)",
            "Five networks of Strategy I, whose probabilities are averaged.",
            (0.9750, 0.9958, 0.47, 0.75),
            asked=("T3", "average of five noisy members"),
            cost=cost(4.83, 4.91),
            training=training(0.10, 0.980, 0.22, 60.3),
        ),
        method(
            "dpsgd",
            "DP-SGD",
            "Per-record gradients, clipped, summed and noised.",
            0.8889,
            0.8954,
            0.05,
            guarantee=DPSGD,
            cost=cost(2.41, 6.35),
            training=training(0.48, 0.886, 0.14, 30.9),
        ),
    ]
    methods[3]["model"] = {"name": "resnet8", "parameters": 388_050, "members": 5}
    return copy.deepcopy(
        {
            "schema": "rpjax.results/1",
            "created": "2026-11-23T10:00:00+00:00",
            "command": "rpjax compare --out out",
            "seed": 0,
            "noise_seed": "fixed",
            "versions": {"rpjax": "0.1.0", "python": "3.11.7", "jax": "0.10.2"},
            "device": {"platform": "cpu", "kind": "cpu", "count": 1, "host_cores": 2},
            "config": {
                "data": {"name": "digits", "test_fraction": 0.2},
                "model": {"depth": 8, "width": 16},
                "train": {"steps": 900, "batch_size": 64, "learning_rate": 0.1},
            },
            "config_hash": "sha256:5f1d0c3a9e",
            "data": {
                "name": "digits",
                "source": "1797 handwritten digits; the results are invented",
                "classes": 10,
                "shape": [8, 8, 1],
                "pool_records": 1437,
                "members": MEMBERS,
                "non_members": NON_MEMBERS,
                "test_records": TEST,
                "data_hash": "sha256:77aa",
            },
            "wall_seconds": 300.1,
            "methods": methods,
        }
    )


def crowded(count=12):
    """Many methods of unknown names and long labels, close together."""
    results = sample()
    results["methods"] = [
        method(
            f"variant{k}",
            f"Variant {k} with a label that is longer than anyone would like",
            "One of many.",
            0.93 + 0.004 * (k % 5),
            0.99,
            0.3 + 0.06 * (k % 4),
            cost=cost(1 + 0.3 * k, 1 + 0.1 * k),
        )
        for k in range(count)
    ]
    return results


def extreme():
    """Tiny sets, AUC of 0.5 and 1, no true positive, a method nobody attacked."""
    results = sample()
    plain, first, second, several, dpsgd = results["methods"]
    plain["exposure"] = [exposure_of(5, [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], 1.0)]
    first["exposure"] = [exposure_of(5, [0, 0.5, 1], [0, 0, 1], 0.5)]
    second["exposure"] = []
    several["cost"] |= {"relative_time": None, "relative_memory": None}
    several["exposure"] = [exposure_of(5, [0, 1], [0, 1], 0.5)]
    dpsgd["exposure"] = [exposure_of(5, [0, 0.2, 1], [0, 0.1, 1], 0.45)]
    results["data"] |= {"members": 5, "non_members": 5, "test_records": 4}
    return results


def exposure_of(non_members, fpr, tpr, auc):
    """One attack with a curve and an AUC given by hand."""
    entry = exposure(0.3)
    entry |= {"members": 5, "non_members": non_members}
    entry["attacks"] = entry["attacks"][:1]
    entry["by_class"] = by_class(entry["attacks"][0]["name"], 0.3, (8, 5))
    entry["by_class"]["most_exposed"] = None
    found = entry["attacks"][0]
    found["roc"] = {"fpr": [float(x) for x in fpr], "tpr": [float(y) for y in tpr]}
    found["auc"] = estimate(auc, 0.3, 10)
    found["tpr_at"] = [_tpr({"tpr": [0.0]}, 0.01, non_members)]
    return entry
