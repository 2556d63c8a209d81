"""Guarantees: a privacy figure together with what it means and what it rests on.

A privacy number never travels alone. Where a premise of a theorem does not hold, the
guarantee is of kind "none" and names the premise; there is no figure "under the
assumption that".
"""

import dataclasses
from typing import Any, Literal

from rpjax.privacy.wording import figure, size, wrapped


@dataclasses.dataclass(frozen=True)
class Alternative:
    """The same run by another accountant or for other neighbours."""

    accountant: str
    adjacency: str
    epsilon: float
    delta: float


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What is proved about the released weights of one training run.

    Attributes:
        kind: "none", "gdp" (Gaussian differential privacy) or "dp".
        mechanism: what was done, in prose.
        unit: what is protected; None where nothing is.
        adjacency: which data sets count as neighbours; None where nothing is proved.
        epsilon: upper bound at `delta`, or None.
        delta: the probability of failure that goes with `epsilon`, or None.
        mu: of Gaussian differential privacy, where the proof gives one.
        accountant: how the figures were computed.
        alternatives: the same run under other accountants or neighbours.
        statement: the guarantee in plain language.
        assumptions: what it rests on, each one beginning with who sees to it.
        not_covered: what it says nothing about.
    """

    kind: Literal["none", "gdp", "dp"]
    mechanism: str
    unit: str | None
    adjacency: str | None
    epsilon: float | None
    delta: float | None
    mu: float | None
    accountant: str | None
    alternatives: tuple[Alternative, ...]
    statement: str
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, tuples as lists."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    def __str__(self) -> str:
        lines = [_headline(self), *wrapped(self.statement)]
        lines += wrapped(f"mechanism: {self.mechanism}")
        if self.unit is not None:
            lines += [f"  protects: {self.unit}", f"  neighbours: {self.adjacency}"]
            lines += [f"  computed by: {self.accountant}"]
        lines += _side_by_side(self)
        for title, entries in [
            ("It rests on:", self.assumptions),
            ("It does not cover:", self.not_covered),
        ]:
            if entries:
                lines += [title, *(line for e in entries for line in wrapped(e, "- "))]
        return "\n".join(lines)


def no_guarantee(mechanism: str, *reasons: str) -> Guarantee:
    """The honest answer where nothing is proved, with the reasons.

    >>> print(no_guarantee("plain training", "nothing random hides a record"))
    No privacy guarantee
      Nothing is proved about this run: nothing random hides a record.
      mechanism: plain training
    It does not cover:
      - anything: attacks can show a leak, and their failure does not show its absence
    """
    return Guarantee(
        kind="none",
        mechanism=mechanism,
        unit=None,
        adjacency=None,
        epsilon=None,
        delta=None,
        mu=None,
        accountant=None,
        alternatives=(),
        statement=f"Nothing is proved about this run: {'; '.join(reasons)}.",
        assumptions=(),
        not_covered=(
            "anything: attacks can show a leak, and their failure does not show its "
            "absence",
        ),
    )


def _headline(guarantee: Guarantee) -> str:
    if guarantee.epsilon is None or guarantee.delta is None:
        return "No privacy guarantee"
    pair = figure(guarantee.epsilon, guarantee.delta)
    return f"{pair} for {guarantee.unit}: {guarantee.adjacency}"


def _side_by_side(guarantee: Guarantee) -> list[str]:
    """The figures as a table: neighbours down, accountants across."""
    if not guarantee.alternatives:
        return []
    own: Any = guarantee
    figures = {
        (each.adjacency, each.accountant.partition(" (")[0]): size(each.epsilon)
        for each in (own, *guarantee.alternatives)
    }
    rows, columns = (
        tuple(dict.fromkeys(names)) for names in zip(*figures, strict=True)
    )
    title = f"ε at δ = {guarantee.delta:g}, by"
    width = max(map(len, (title, *rows))) + 2

    def line(first: str, cells: list[str]) -> str:
        return f"    {first:<{width}}" + "".join(f"{cell:>12}" for cell in cells)

    return [
        line(title, list(columns)),
        *(line(row, [figures.get((row, c), "-") for c in columns]) for row in rows),
    ]
