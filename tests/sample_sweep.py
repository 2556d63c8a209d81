"""Sweeps whose jobs were never trained: results.json files as `compare` leaves them."""

import json
import math

import yaml

from rpjax.experiments import sweep


def results(name, accuracy, auc=None, epsilon=None, noise=None, gap=None):
    """As much of results.json as is merged."""
    attacks = [] if auc is None else [{"attacks": [{"auc": {"value": auc}}]}]
    private = epsilon is not None
    method = {
        "name": name,
        "label": name.title(),
        "utility": {
            "test_accuracy": {"value": accuracy},
            "generalization_gap": {"value": accuracy / 8 if gap is None else gap},
        },
        "exposure": attacks,
        "guarantee": {
            "kind": "dp" if private else "none",
            "mechanism": name,
            "epsilon": epsilon,
            "delta": 1e-5 if private else None,
            "mu": None,
            "adjacency": "add or remove one record" if private else None,
            "accountant": "PLD" if private else None,
            "assumptions": ["that it is so"] if private else [],
        },
        "training": {"noise_multiplier": noise, "batch_size": 64, "steps": 10},
    }
    return {
        "methods": [method],
        "config_hash": "sha256:0",
        "data": {"source": "Made up.", "data_hash": "sha256:1"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "host_cores": 2},
        "versions": {"rpjax": "0"},
        "wall_seconds": 2.0,
    }


def written(folder, grid, config=None):
    """The jobs of a sweep with this grid, in `folder`; none has run."""
    file = folder.parent / f"{folder.name}.yaml"
    config = {"train_on": "all", "methods": ["dpsgd"]} if config is None else config
    text = yaml.safe_dump({"config": config, "grid": grid}, sort_keys=False)
    file.write_text(text)
    asked = sweep.read_sweep(file)
    sweep.write(asked, folder)
    return asked


def finish(folder, number, found):
    """Leave a job's results as if it had run."""
    run = sweep.run_folder(folder, number)
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps(found))


SCALE = {
    "seed": [0, 1, 2],
    "dp.batch_size, dp.learning_rate": [[64, 0.5], [256, 2.0]],
    "dp.epochs": [5, 15, 45],
    "dp.clip_norm": [1.0, 2.0],
}


def scaled(folder, missing=()):
    """Batch size by epochs by clip norm; accuracies that a test can work out."""
    asked = written(folder, SCALE)
    for number, point in enumerate(asked.settings()):
        if number not in missing:
            finish(folder, number, results("dpsgd", accuracy(point), None, 3.0, 1.5))
    return asked


def accuracy(point):
    """Of a job of SCALE."""
    size, epochs = point["dp.batch_size"], point["dp.epochs"]
    best = 0.05 * (size == 256) + 0.002 * epochs + 0.01 * point["dp.clip_norm"]
    return 0.6 + best + 0.003 * (point["seed"] - 1)


EPSILONS = {
    "seed": [0, 1],
    "dp.epsilon": [1.0, 3.0, 8.0, math.inf],
    "dp.clip_norm": [1.0, 2.0],
}


def by_epsilon(folder):
    """Accuracy against epsilon, to infinity, for two clip norms."""
    asked = written(folder, EPSILONS)
    for number, point in enumerate(asked.settings()):
        epsilon = float(point["dp.epsilon"])
        better = 0.01 * point["seed"] + 0.02 * point["dp.clip_norm"]
        value = 0.9 - 0.3 / epsilon + better
        free = math.isinf(epsilon)
        proved = (None, 0.0) if free else (epsilon, 4.0 / epsilon)
        finish(folder, number, results("dpsgd", value, None, *proved))
    return asked
