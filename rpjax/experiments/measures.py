"""What a trained target is: its accuracies, its net, and how it was trained."""

import dataclasses
from typing import Any

import jax
import numpy as np

from rpjax import intervals, metrics
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.preparing import Prepared
from rpjax.training import Query, Run
from rpjax.training.evaluation import accuracy


def utility(ready: Prepared, run: Run, query: Query | None = None) -> dict[str, Any]:
    """Accuracy on test and training records, and the gap; as deployed by default."""
    query = query or Query(draws=ready.config.attack.draws)
    labels = ready.dataset.test.labels
    answers = run.answers(ready.dataset.test, query)
    test = accuracy(answers, labels)
    train = run.evaluate(ready.dataset.train.take(ready.training_positions), query)
    gap = intervals.difference_of_proportions(
        round(train.value * train.n), train.n, round(test.value * test.n), test.n
    )
    quiet = None
    if run.learner.mechanism.noisy:
        quiet = run.evaluate(ready.dataset.test, Query(noise=False)).as_dict()
    return {
        "test_accuracy": test.as_dict(),
        "train_accuracy": train.as_dict(),
        "generalization_gap": gap.as_dict(),
        "noise_off_test_accuracy": quiet,
        "classes": class_figures(answers, labels) if ready.uneven else None,
    }


def class_figures(answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Test records and recall of each class, and balanced accuracy, with intervals.

    answers: (n, classes). A class without test records has no recall, and then there
    is no balanced accuracy.
    """
    # by the classes alone: an ensemble's log-probability may be that of nothing
    chosen = np.eye(answers.shape[-1])[answers.argmax(-1)]
    table = metrics.confusion(chosen, labels)
    recalls = metrics.recalls_with_intervals(table)
    balanced = metrics.bootstrapped(metrics.balanced_accuracy, table)
    return {
        "test_records": table.sum(1).tolist(),
        "balanced_accuracy": None if balanced is None else balanced.as_dict(),
        "recalls": [None if each is None else each.as_dict() for each in recalls],
    }


def net_name(config: ExperimentConfig) -> str:
    """The net in a word."""
    options = config.model
    if options.width is not None:
        return f"wrn-{options.depth}-{options.width}"
    name = f"resnet{options.depth}"
    if options.channels is None:
        return name
    return f"{name}, {options.channels} channels"


def model_facts(config: ExperimentConfig, run: Run) -> dict[str, Any]:
    """The net in a line, where it started and what of it was trained."""
    facts = run.learner.mechanism
    size = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    return {
        "name": net_name(config),
        "parameters": int(size),
        "members": facts.members,
        "start": facts.pretrained,
        "trained": facts.trained_words,
    }


def training_facts(run: Run) -> dict[str, Any]:
    """How long the target was trained, and its history."""
    return {
        "steps": run.steps,
        "epochs": run.epochs,
        "noise_multiplier": run.learner.mechanism.noise_multiplier,
        "clip_norm": run.learner.mechanism.clip_norm,
        "clipping": run.learner.mechanism.clipping,
        "sampling": run.sampler.kind,
        "capacity": run.sampler.capacity,
        "batch_size": run.sampler.batch_size,
        "budget": None if run.budget is None else dataclasses.asdict(run.budget),
        "stopped_at_budget": run.stopped_at_budget,
        "seconds": run.cost.train_seconds,
        "compile_seconds": run.cost.compile_seconds,
        "history": run.history,
    }
