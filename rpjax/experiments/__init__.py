"""Experiments: configurations, presets, the five methods, the main comparison."""

from rpjax.experiments.compare import compare, prepare
from rpjax.experiments.config import ExperimentConfig, from_yaml, to_yaml
from rpjax.experiments.runs import RunFolder, read_config

__all__ = [
    "ExperimentConfig",
    "RunFolder",
    "compare",
    "from_yaml",
    "prepare",
    "read_config",
    "to_yaml",
]
