"""What experiments found: one row a question, with cause and mend where it failed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rich.console import Group
from rich.markup import escape
from rich.table import Table

Check = Literal[
    "isolation",
    "parameters",
    "noise",
    "sampling",
    "sensitivity",
    "parity",
    "divisor",
    "accounting",
    "resume",
]

ALARM = 1e-3
"""Chance that a whole verification of an intact training finds some fault."""

STATISTICAL_TESTS = 12
"""Random outcomes that a verification judges; each may err with an equal share."""

LEVEL = ALARM / STATISTICAL_TESTS
MARKS = {True: "ok", False: "FAILED", None: "not examined"}


class Why(NamedTuple):
    """Cause and mend of a failure."""

    cause: str
    mend: str


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    check: to which it belongs. question: what was asked.
    found, expected: in words, with figures.
    ok: None where it could not be examined; `found` then says why.
    cause, mend: of a failure.
    power: what an experiment with random outcomes would have seen.
    """

    check: Check
    question: str
    found: str
    expected: str
    ok: bool | None
    cause: str = ""
    mend: str = ""
    power: str = ""

    @classmethod
    def judged(
        cls,
        check: Check,
        question: str,
        found: str,
        expected: str,
        ok: bool,
        why: Why,
        power: str = "",
    ) -> "Finding":
        """A finding that keeps `why` only if it failed."""
        cause, mend = ("", "") if ok else why
        return cls(check, question, found, expected, bool(ok), cause, mend, power)

    @classmethod
    def skipped(cls, check: Check, question: str, reason: str) -> "Finding":
        """A question that could not be asked."""
        return cls(check, question, reason, "", None)


@dataclass(frozen=True)
class Verdict:
    """All findings of a verification."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What failed."""
        return tuple(f for f in self.findings if f.ok is False)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [vars(finding) for finding in self.findings]
        return {"ok": self.ok, "false_alarm_rate": ALARM, "findings": rows}

    def __str__(self) -> str:
        return "\n".join([*map(_row, self.findings), *self._words()])

    def __rich__(self) -> Group:
        table = Table("Check", "What", "Found", "Expected", "Verdict")
        last = ""
        for f in self.findings:
            style = {True: "green", False: "bold red", None: "dim"}[f.ok]
            name, last = ("" if f.check == last else f.check), f.check
            words = (escape(w) for w in (name, f.question, f.found, f.expected))
            table.add_row(*words, f"[{style}]{MARKS[f.ok]}[/]")
        return Group(table, *map(escape, self._words()))

    def _words(self) -> list[str]:
        """Causes and mends, each once, and the error rates."""
        lines = []
        for (cause, mend), where in _by_cause(self.failures).items():
            lines += ["", f"failed: {'; '.join(where)}"]
            lines += [f"  cause: {cause}", f"  mend:  {mend}"]
        powers = [f"{f.question}: {f.power}" for f in self.findings if f.power]
        if powers:
            lines += [
                "",
                f"An intact training fails with probability {ALARM:g} at most.",
            ]
            lines += [f"  {power}" for power in powers]
        return lines


def _row(finding: Finding) -> str:
    line = f"{finding.check}, {finding.question}: {finding.found}"
    if finding.ok is False:
        line += f" (expected: {finding.expected})"
    return f"{line}: {MARKS[finding.ok]}"


def _by_cause(failures: Iterable[Finding]) -> dict[Why, list[str]]:
    grouped: dict[Why, list[str]] = {}
    for f in failures:
        grouped.setdefault(Why(f.cause, f.mend), []).append(f"{f.check}, {f.question}")
    return grouped
