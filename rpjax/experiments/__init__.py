"""Experiments: configurations, presets, the five methods, the main comparison."""

from rpjax.experiments.audit_config import AuditConfig, AuditExperiment
from rpjax.experiments.auditing import audit, prepare_audit
from rpjax.experiments.compare import compare
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.preparing import prepare
from rpjax.experiments.runs import RunFolder, read_config
from rpjax.experiments.values import from_yaml, to_yaml

__all__ = [
    "AuditConfig",
    "AuditExperiment",
    "ExperimentConfig",
    "RunFolder",
    "audit",
    "compare",
    "from_yaml",
    "prepare",
    "prepare_audit",
    "read_config",
    "to_yaml",
]
