"""Ranges of the fields that nothing else checks before the first compilation."""

import math
from typing import Any

from rpjax.errors import InputError
from rpjax.experiments.config import DPConfig, ExperimentConfig, ImbalanceConfig

# the shadow models' seeds are a million further on, and all must be 32-bit numbers
LARGEST_SEED = 2**31 - 1
MOST_EPOCHS = 1_000_000
BELOW_ONE = math.nextafter(1.0, 0.0)

Range = tuple[float, float]
RANGES: dict[str, Range] = {
    "seed": (0, LARGEST_SEED),
    "data.image_size": (1, math.inf),
    "data.workers": (0, math.inf),
    "imbalance.largest": (1, math.inf),
    "imbalance.ratio": (1, math.inf),
    "imbalance.seed": (0, LARGEST_SEED),
    "loss.count_noise": (0, math.inf),
    "loss.exponent": (0, math.inf),
    "loss.tau": (0, math.inf),
    "loss.beta": (0, BELOW_ONE),
    "loss.deferred": (0, BELOW_ONE),
    "loss.margin": (0, math.inf),
    "loss.scale": (0, math.inf),
    "model.width": (1, math.inf),
    "model.groups": (1, math.inf),
    "noise.label_epsilon": (0, math.inf),
    "training.warmup": (0, math.inf),
    "training.momentum": (0, 1),
    "training.weight_decay": (0, math.inf),
    "dp.warmup": (0, math.inf),
    "dp.steps": (1, math.inf),
    "dp.momentum": (0, 1),
    "dp.augmentation_multiplicity": (1, math.inf),
    "dp.stop_at_epsilon": (0, math.inf),
    "transfer.frozen_groups": (0, math.inf),
    "attack.draws": (1, math.inf),
}
FINITE = (
    *("training.epochs", "training.learning_rate", "training.weight_decay"),
    *("training.warmup", "dp.warmup"),
    *("dp.epochs", "dp.learning_rate", "noise.label_epsilon"),
    *("imbalance.ratio", "loss.count_noise", "loss.exponent", "loss.tau"),
    *("loss.margin", "loss.scale"),
)
POSITIVE = ("loss.count_noise", "loss.margin", "loss.scale")


def check(config: ExperimentConfig) -> None:
    """Refuse what would fail only after training has begun."""
    if not config.methods:
        raise InputError("methods is empty; name at least one")
    if len(set(config.methods)) < len(config.methods):
        raise InputError(
            f"methods is {', '.join(config.methods)}; name each method once"
        )
    for name, (low, high) in RANGES.items():
        value = _field(config, name)
        if value is not None and not low <= value <= high:
            limit = f"lie between {low} and {high}" if high < math.inf else f">= {low}"
            verb = "must" if high < math.inf else "must be"
            raise InputError(f"{name} is {value}; it {verb} {limit}")
    for name in ("training.epochs", "dp.epochs"):
        value = _field(config, name)
        if value is not None and value > MOST_EPOCHS:
            raise InputError(f"{name} is {value}; it must be at most {MOST_EPOCHS}")
    for name in FINITE:
        value = _field(config, name)
        if value is not None and not math.isfinite(value):
            raise InputError(f"{name} is {value}; it must be finite")
    for name in POSITIVE:
        if not _field(config, name) > 0:
            raise InputError(f"{name} is {_field(config, name)}; it must be > 0")
    _check_imbalance(config.imbalance)
    _check_dp(config.dp)
    _check_transfer(config)


def _check_imbalance(options: ImbalanceConfig) -> None:
    weighted = options.split == "weights"
    if weighted != bool(options.weights):
        raise InputError(
            f"imbalance.split is {options.split} and imbalance.weights "
            f"{list(options.weights)}; weights belong to the split weights, which "
            "needs one for each class"
        )
    if options.largest is not None and options.split in ("none", "weights"):
        raise InputError(
            f"imbalance.largest is {options.largest} and imbalance.split "
            f"{options.split}; it belongs to step and exponential"
        )


def _check_dp(dp: DPConfig) -> None:
    if dp.steps is not None and dp.epochs is not None:
        raise InputError(f"dp.steps is {dp.steps} and dp.epochs {dp.epochs}; give one")
    if dp.average is not None and dp.average not in dp.averages:
        kept = ", ".join(f"{decay:g}" for decay in dp.averages) or "none"
        raise InputError(
            f"dp.average is {dp.average:g}; it must be one of dp.averages, which are: "
            f"{kept}"
        )


def _check_transfer(config: ExperimentConfig) -> None:
    frozen, start = config.transfer.frozen_groups, config.transfer.start
    if frozen and start is None:
        raise InputError(
            f"transfer.frozen_groups is {frozen} without a transfer.start; what is "
            "frozen comes from a run on public data: name its folder with --start"
        )
    if frozen and config.dp.trainable:
        raise InputError(
            f"transfer.frozen_groups is {frozen} and dp.trainable "
            f"{', '.join(config.dp.trainable)}; both say what is trained: give one"
        )


def check_crop(config: ExperimentConfig, shape: tuple[int, int, int]) -> None:
    """A random window has to hold some of the image."""
    crop, smallest = config.training.crop, min(shape[:2])
    if crop is not None and crop >= smallest:
        raise InputError(
            f"training.crop is {crop}; it must be below {smallest}, the images' size"
        )


def _field(config: ExperimentConfig, dotted: str) -> Any:
    value: Any = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value
