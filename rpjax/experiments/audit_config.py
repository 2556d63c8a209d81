"""The configuration of an audit: an experiment's, and what is planted and asked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rpjax.attacks.canaries import Kind
from rpjax.errors import InputError
from rpjax.experiments.config import ExperimentConfig

named = tyro.conf.arg


@dataclass(frozen=True)
class AuditConfig:
    """What is planted among the training records, and what models are asked."""

    models: int = 64
    """Calibration models of each method (set A), each canary in half of them."""
    audited: int = 16
    """Audited models of each method (set B), with independent coins."""
    canaries: int | None = None
    """How many of each kind."""
    kinds: tuple[Kind, ...] = ("mislabelled", "clean")
    """Kinds of canaries; opposite pairs are audited by themselves."""
    others: str | None = None
    """Data set that out_of_distribution canaries are taken from, of the same shape."""
    others_dir: Path | None = None
    """Its folder; left out: that of the data."""
    draws: Annotated[int, named(name="query-draws")] = 32
    """Noisy answers for each canary, for attacks that may ask often."""
    shift: int | None = None
    """Pixels by which shifted views are shifted."""
    dp_noise: Literal["utility", "target"] = "utility"
    """utility: DP-SGD with a noise that keeps accuracy, whatever its epsilon; target:
    as configured, for --epsilon or with --noise-multiplier."""
    confidence: float = 0.95
    """Of every bound."""
    chunk: int = 16
    """Models to train side by side at most; changes no result."""


@dataclass(frozen=True)
class AuditExperiment:
    """Everything that an audit is a function of."""

    config: ExperimentConfig = field(default_factory=ExperimentConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)


# what is used where an audit leaves a field open, by data set
DIGITS: dict[str, Any] = {"canaries": 100, "shift": 1}
IMAGES: dict[str, Any] = {"canaries": 250, "shift": 4}

# trainings that learn canaries by heart, and DP-SGD tuned for accuracy alone
DIGITS_TRAINING: dict[str, dict[str, Any]] = {
    "data": {"train_records": 700},
    "model": {"channels": 8},
    "training": {"epochs": 30, "batch_size": 64, "learning_rate": 0.1},
    "dp": {"epochs": 20, "batch_size": 64, "learning_rate": 1.0},
    "noise": {"gamma": 0.5, "gamma_relative": 0.5},
    "attack": {"shadows": 2},
}
IMAGES_TRAINING: dict[str, dict[str, Any]] = {
    "training": {"epochs": 100, "batch_size": 128, "learning_rate": 0.1},
    "dp": {"epochs": 16, "batch_size": 128, "learning_rate": 1.0},
    "noise": {"gamma": 0.5, "gamma_relative": 0.5},
    "attack": {"shadows": 2},
}
UTILITY_NOISE = {"digits": 0.3, "images": 0.2}


def check(options: AuditConfig) -> None:
    """Refuse what would fail only after training has begun."""
    if options.models < 8 or options.models % 2:
        raise InputError(
            f"models is {options.models}; it must be even and at least 8, so that each "
            "canary is in half of them, and attacks have something to learn from"
        )
    for name in ("audited", "draws", "chunk", "canaries", "shift"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be >= 1")
    if not 0 < options.confidence < 1:
        raise InputError(
            f"confidence is {options.confidence}; it must lie between 0 and 1"
        )
    if (options.others is None) == ("out_of_distribution" in options.kinds):
        raise InputError(
            f"others is {options.others}, and kinds {', '.join(options.kinds)}; "
            "out_of_distribution needs it, and no other kind does"
        )
