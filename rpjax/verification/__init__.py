"""Proof by experiment that a DP-SGD training is what it claims to be."""

from rpjax.verification.own_loop import check_isolation
from rpjax.verification.verdict import ALARM, Check, Finding, Verdict
from rpjax.verification.verifying import CHECKS, verify

__all__ = [
    "ALARM",
    "CHECKS",
    "Check",
    "Finding",
    "Verdict",
    "check_isolation",
    "verify",
]
