"""Contents of attacks.json for the tests of the audit's report. All are invented."""

import copy
import functools
import itertools
import math

from sample_results import (
    DPSGD,
    NO_GUARANTEE,
    NORMAL,
    RESIDUAL,
    by_class,
    estimate,
)

MODELS_A, MODELS_B = 64, 16
KINDS = {
    "mislabelled": (100, 0.18),
    "clean": (100, 0.18),
    "near_duplicate": (60, 0.11),
}
FEATURES = {
    **RESIDUAL,
    "kind": "dp",
    "adjacency": "replace one record's features, labels equal",
    "epsilon": 0.731,
    "delta": 1e-5,
    "mu": 0.19,
    "accountant": "Gaussian DP, closed form",
    "statement": "The features of one record are hidden by noise on the input.",
}


def point(separation, target, size):
    """The rate of two normal populations; too few false positives are marked."""
    wrong = math.floor(target * size)
    tpr = _tpr(separation, wrong / size)
    half = 1.96 * math.sqrt(tpr * (1 - tpr) / 160) + 0.002
    return {
        "target_fpr": target,
        "realised_fpr": wrong / size,
        "tpr": tpr,
        "low": max(0.0, tpr - half),
        "high": min(1.0, tpr + half),
        "true_positives": round(tpr * size),
        "false_positives": wrong,
        "below_resolution": wrong < 10,
    }


def _tpr(separation, fpr):
    if fpr in (0.0, 1.0):
        return fpr
    return NORMAL.cdf(NORMAL.inv_cdf(fpr) + separation)


def attack(name, label, threat, separation, size):
    """An attack whose scores are normal, `separation` standard deviations apart."""
    wrong = sorted({*range(40), *range(40, size, 40), size})
    fpr = [each / size for each in wrong]
    tpr = [_tpr(separation, rate) for rate in fpr]
    half = [1.96 * math.sqrt(t * (1 - t) / 160) + 0.001 for t in tpr]
    points = [point(separation, target, size) for target in (0.1, 0.01, 0.001)]
    return {
        "name": name,
        "label": label,
        "threat": threat,
        "auc": estimate(NORMAL.cdf(separation / math.sqrt(2)), 0.02, 2 * size),
        "balanced_accuracy": estimate(NORMAL.cdf(separation / 2), 0.02, 2 * size),
        "tpr_at": points,
        "ppv": [_ppv(prior, points[1]) for prior in (0.5, 0.1, 0.01)],
        "roc": {
            "fpr": fpr,
            "tpr": tpr,
            "low": [max(0.0, t - h) for t, h in zip(tpr, half, strict=True)],
            "high": [min(1.0, t + h) for t, h in zip(tpr, half, strict=True)],
        },
    }


def _ppv(prior, found):
    right, wrong = prior * found["tpr"], (1 - prior) * found["realised_fpr"]
    if right + wrong == 0:
        return {"prior": prior, "value": None, "low": None, "high": None}
    value = right / (right + wrong)
    low, high = max(0.0, value - 0.03), min(1.0, value + 0.03)
    return {"prior": prior, "value": value, "low": low, "high": high}


def exposure(kind, separation, noisy, seed=0):
    """What the suite found on one kind; with noise, averaging helps the attacker."""
    size = KINDS[kind][0] * MODELS_A // 2
    makers = [
        ("loss", "Loss threshold (Yeom et al.)", "T1", 0.5),
        ("base", "BASE / RMIA", "T1", 0.76),
        ("lira", "LiRA", "T1", 0.8 if noisy else 1.0),
    ]
    if noisy:
        makers += [
            ("joint", "LiRA, mean and spread over draws", "T2", 0.93),
            ("lira_still", "LiRA, noise off", "T4", 1.0),
        ]
    attacks = [attack(*m[:3], m[3] * separation, size) for m in makers]
    best = makers[-1][0]
    return {
        "kind": kind,
        "members": size,
        "non_members": size,
        "attacks": attacks,
        "strongest": best,
        "by_threat": {m[2]: m[0] for m in makers},
        "histogram": histogram(separation, size),
        "by_draws": [
            {
                "draws": draws,
                "point": point(separation * (1 - 0.2 / draws), 0.01, size),
            }
            for draws in (1, 4, 16, 64)
            if noisy
        ],
        "mismatched": _mismatched(attacks[-1], separation) if noisy else None,
        "effects": effects(separation, KINDS[kind][0], seed),
        "most_exposed": exposed(separation, seed),
        "by_class": by_class(best, separation),
    }


def _mismatched(best, separation):
    size = round(1 / best["roc"]["fpr"][1])
    weak = attack(best["name"], best["label"], best["threat"], 0.4 * separation, size)
    return {"with": "Plain", "attack": weak}


def histogram(separation, size):
    """Counts of two normal populations."""
    edges = [round(-6 + 0.5 * k, 3) for k in range(25)]
    bars = lambda middle: [
        round(size * (NORMAL.cdf(b - middle) - NORMAL.cdf(a - middle)))
        for a, b in itertools.pairwise(edges)
    ]
    half = separation / 2
    return {"edges": edges, "members": bars(half), "non_members": bars(-half)}


def effects(separation, count, seed):
    """Effect sizes of canaries, of which one never varies."""
    spread = [NORMAL.inv_cdf((k + 0.5) / count) for k in range(count)]
    found = [separation * math.exp(0.35 * s) + 0.1 * s for s in spread]
    return [None, *found[:seed], *found[seed:-1]]


def exposed(separation, seed, count=14):
    """The most exposed canaries, worst first."""
    return [
        {
            "record": 50_000 + 7 * k + seed,
            "label": k % 10,
            "tpr": estimate(max(0.02, 1 - 0.03 * k - 0.6 / (1 + separation)), 0.1, 32),
            "fpr": estimate(0.01 + 0.001 * k, 0.02, 32),
            "effect": None if k == 1 else 3.5 * separation - 0.1 * k,
        }
        for k in range(count)
    ]


def audit(epsilon, threat, attack_name, attack_label, kind="mislabelled", **changes):
    """An audit in the words of `rpjax.audits.Audit.as_dict`."""
    coins = MODELS_B * KINDS[kind][0]
    return {
        "epsilon": epsilon,
        "delta": 1e-5,
        "confidence": 0.95,
        "tests": 2,
        "adjacency": "add or remove one canary",
        "threat": threat,
        "canaries": kind,
        "models_a": MODELS_A,
        "models_b": MODELS_B,
        "coins": coins,
        "guesses": coins // 10,
        "correct": coins // 10 - 9,
        "plan": {"guess_in": coins // 10, "guess_out": 0, "threshold": None},
        "claims": [
            {"name": "epsilon", "claimed": 1.0, "p_value": 0.0021, "refuted": True},
            {"name": "epsilon", "claimed": 8.0, "p_value": 1.0, "refuted": False},
        ],
        "figures": [
            _figure("mu", epsilon / 3, "bound", "one run, f-DP, Mahloujifar et al."),
            _figure("epsilon", epsilon * 1.4, "estimate", "Clopper-Pearson, from mu"),
            _figure("epsilon", epsilon * 1.1, "credible interval", "Bayesian", 9.25),
        ],
        "seeds": {"coins_a": 11, "coins_b": 12, "ties": 0},
        "warnings": ["training_keys: not given; training taken for independent"],
        "kind": "bound",
        "method": "one run, Steinke, Nasr, Jagielski 2023",
        "attack": attack_name,
        "attack_label": attack_label,
        "at": point(1.1, 0.01, coins // 2),
        **changes,
    }


def _figure(name, value, kind, method, upper=None):
    condition = "a bound only if the trade-off curve is Gaussian"
    known = {"name": name, "value": value, "kind": kind, "method": method}
    return {**known, "condition": condition, "upper": upper}


def method(name, label, accuracy, separations, noisy, **changes):
    """One method; `separations` by kind of canaries; `changes` replaces entries."""
    return {
        "name": name,
        "label": label,
        "description": f"{label}, invented for a test.",
        "model": {"name": "resnet8", "parameters": 77_610, "members": 1},
        "training": {
            "steps": 900,
            "epochs": 40.0,
            "batch_size": 64,
            "noise_multiplier": None,
            "clip_norm": None,
            "seconds": 410.5,
        },
        "utility": {
            "test_accuracy": estimate(accuracy, 0.0135),
            "train_accuracy": estimate(min(1.0, accuracy + 0.03), 0.004),
        },
        "guarantee": NO_GUARANTEE,
        "exposure": [
            exposure(kind, separation, noisy, seed=3 * index)
            for index, (kind, separation) in enumerate(separations.items())
        ],
        "audits": [audit(3.912, "T1", "lira", "LiRA")],
        "ceiling": None,
        "negative": {"repetitions": 500, "share_zero": 0.974},
        **changes,
    }


def sample():
    """Four methods and three kinds of canaries, with plausible, invented numbers."""
    return copy.deepcopy(_sample())


@functools.cache
def _sample():
    still = ("T4", "lira_still", "LiRA, noise off")
    grid = [k / 200 for k in range(201)]
    ceiling = {
        "fpr": grid,
        "tpr": [min(1.0, _tpr(1.9, rate)) for rate in grid],
        "statement": "No attack on DP-SGD lies above the dashed curve (PLD).",
    }
    weak = {"mislabelled": 0.35, "clean": 0.05, "near_duplicate": 0.2}
    methods = [
        method("plain", "Plain", 0.9722, _kinds(3.1), noisy=False),
        method(
            "strategy1",
            "Strategy I (γ = 0.5)",
            0.9639,
            _kinds(2.6),
            noisy=True,
            guarantee=FEATURES,
            audits=[audit(1.31, "T1", "lira", "LiRA"), audit(2.417, *still)],
        ),
        method(
            "ensemble",
            "Ensemble of 5, Strategy I (γ = 0.5)",
            0.9750,
            _kinds(2.8) | {"near_duplicate": 3.0},
            noisy=True,
            guarantee=RESIDUAL,
            audits=[audit(2.9, *still, kind="near_duplicate")],
        ),
        method(
            "dpsgd",
            "DP-SGD",
            0.8889,
            weak,
            noisy=False,
            guarantee=DPSGD,
            ceiling=ceiling,
            audits=[audit(0.0, "T1", "lira", "LiRA")],
        ),
    ]
    methods[3]["training"] |= {"noise_multiplier": 1.13, "clip_norm": 1.0}
    return {
        "schema": "rpjax.attacks/1",
        "created": "2026-11-23T10:00:00+00:00",
        "command": "rpjax audit --out out",
        "seed": 0,
        "versions": {"rpjax": "0.1.0", "python": "3.11.7", "jax": "0.10.2"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "host_cores": 2},
        "config": {"audit": {"models_a": 64, "models_b": 16}, "kinds": [*KINDS]},
        "config_hash": "sha256:5f1d0c3a9e",
        "data": {
            "name": "digits",
            "source": "1797 handwritten digits; the results are invented",
            "classes": 10,
            "shape": [8, 8, 1],
            "data_hash": "sha256:77aa",
            "fixed": 560,
            "expected_records": 610.0,
            "test_records": 360,
        },
        "wall_seconds": 2718.2,
        "protocol": {
            "models_a": MODELS_A,
            "models_b": MODELS_B,
            "coin_seed_a": 11,
            "coin_seed_b": 12,
            "kinds": [
                {
                    "kind": kind,
                    "count": count,
                    "share": share,
                    "adjacency": "add or remove one canary",
                }
                for kind, (count, share) in KINDS.items()
            ],
            "draws": 64,
            "views": 18,
            "confidence": 0.95,
            "delta": 1e-5,
        },
        "methods": methods,
        "controls": {
            "positive": {
                "passed": True,
                "text": "The undefended net is found out: 82 % at 1 % FPR.",
            },
            "negative": {
                "passed": True,
                "text": "Shuffled coins give a bound of 0 in 97.4 % of 500 cases.",
            },
        },
        "warnings": [
            {"method": None, "text": "Canaries are 18 % of the training records."},
            {"method": "dpsgd", "text": "Below resolution at 0.1 % FPR."},
        ],
    }


def _kinds(separation):
    return {
        "mislabelled": separation,
        "clean": 0.3 * separation,
        "near_duplicate": 0.8 * separation,
    }


def only(results, *indices):
    """The same results with some of the methods."""
    return results | {"methods": [results["methods"][k] for k in indices]}
