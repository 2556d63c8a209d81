"""Guarantees: a privacy figure together with what it means and what it rests on.

A privacy number never travels alone. Where a premise of a theorem does not hold, the
guarantee is of kind "none" and names the premise; there is no figure "under the
assumption that". `as_dict` is what a guarantee.json holds (docs/certificates.md).
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rpjax.errors import InputError
from rpjax.privacy import stored
from rpjax.privacy.curves import Curve
from rpjax.privacy.wording import figure, share, size, wrapped
from rpjax.version import __version__

# false-positive rates at which every guarantee says what is left to an attacker
FALSE_ALARMS = (1e-3, 1e-2, 1e-1)
GRID = (
    *(0.0, 1e-6, 1e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1),
    *(0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)


def versions() -> dict[str, str]:
    """The packages that a guarantee comes from."""
    names = ("jax", "flax", "numpy", "scipy", "dp-accounting")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"rpjax": __version__, **found}


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
        name: of the mechanism.
        mechanism: what was done, in prose.
        parameters: what was done, as names and plain values.
        unit: what is protected; None where nothing is.
        adjacency: which data sets count as neighbours; None where nothing is proved.
        public: what everyone may know without the guarantee suffering.
        epsilon: upper bound at `delta`, or None.
        delta: the probability of failure that goes with `epsilon`, or None.
        mu: of Gaussian differential privacy, where the proof gives one.
        accountant: how the figures were computed.
        alternatives: the same run under other accountants or neighbours.
        curve: the whole guarantee, of which epsilon at delta is one point.
        statement: the guarantee in plain language.
        assumptions: what it rests on, each one beginning with who sees to it.
        not_covered: what it says nothing about.
        reasons: why nothing is proved, where nothing is.
        versions: of the packages that the figures come from.
        configuration: hash of the configuration of the run, where it has one.
    """

    kind: Literal["none", "gdp", "dp"]
    name: str
    mechanism: str
    parameters: Mapping[str, Any]
    unit: str | None
    adjacency: str | None
    public: tuple[str, ...]
    epsilon: float | None
    delta: float | None
    mu: float | None
    accountant: str | None
    alternatives: tuple[Alternative, ...]
    curve: Curve | None
    statement: str
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)
    configuration: str | None = None

    @functools.cached_property
    def ceilings(self) -> tuple[tuple[float, float], ...]:
        """At each of FALSE_ALARMS, the true-positive rate that no test exceeds."""
        return self._ceilings(FALSE_ALARMS)

    @functools.cached_property
    def trade_off(self) -> tuple[tuple[float, float], ...]:
        """The same on a fixed grid of false-positive rates from 0 to 1."""
        return self._ceilings(GRID)

    def _ceilings(self, rates: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
        if self.curve is None:
            return ()
        found = np.asarray(self.curve.tpr(np.array(rates)), np.float64).tolist()
        return tuple(zip(rates, found, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, with what the curve lets an attacker do."""
        fields = {f.name: _plain(getattr(self, f.name)) for f in _FIELDS}
        fields["ceilings"] = _columns(self.ceilings)
        fields["trade_off"] = _columns(self.trade_off)
        return fields

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Guarantee":
        """The guarantee that `as_dict` wrote.

        Raises:
            InputError: a field that is missing, unknown, or not what the curve gives.
        """
        names = {f.name for f in _FIELDS}
        odd = sorted((values.keys() - _DERIVED) ^ names)
        if odd:
            raise InputError(f"guarantee.{odd[0]}: missing, or no field of a guarantee")
        fields = {name: _read(name, values[name]) for name in names}
        found = cls(**fields)
        for name in sorted(_DERIVED & values.keys()):
            if not _alike(values[name], _columns(getattr(found, name))):
                raise InputError(f"guarantee.{name}: is not what its curve gives")
        return found

    def __str__(self) -> str:
        lines = [_headline(self), *wrapped(self.statement)]
        lines += wrapped(f"mechanism: {self.mechanism}")
        if self.unit is not None:
            lines += [f"  protects: {self.unit}", f"  neighbours: {self.adjacency}"]
            lines += wrapped(f"public: {'; '.join(self.public)}")
            lines += wrapped(f"computed by: {self.accountant}")
        lines += _side_by_side(self)
        if self.ceilings:
            lines += wrapped(_ceilings_said(self))
        for title, entries in [
            ("It rests on:", self.assumptions),
            ("It does not cover:", self.not_covered),
        ]:
            if entries:
                lines += [title, *(line for e in entries for line in wrapped(e, "- "))]
        return "\n".join(lines)


_FIELDS = dataclasses.fields(Guarantee)
_DERIVED = {"ceilings", "trade_off"}


def no_guarantee(
    mechanism: str,
    *reasons: str,
    name: str = "none",
    parameters: Mapping[str, Any] | None = None,
) -> Guarantee:
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
        name=name,
        mechanism=mechanism,
        parameters=parameters or {},
        unit=None,
        adjacency=None,
        public=(),
        epsilon=None,
        delta=None,
        mu=None,
        accountant=None,
        alternatives=(),
        curve=None,
        statement=f"Nothing is proved about this run: {'; '.join(reasons)}.",
        assumptions=(),
        not_covered=(
            "anything: attacks can show a leak, and their failure does not show its "
            "absence",
        ),
        reasons=reasons,
    )


def withdrawn(guarantee: Guarantee, *reasons: str) -> Guarantee:
    """No guarantee for that run, because of what became known of it."""
    return no_guarantee(
        guarantee.mechanism,
        *(guarantee.reasons + reasons),
        name=guarantee.name,
        parameters=guarantee.parameters,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Curve):
        return stored.as_dict(value)
    if isinstance(value, Alternative):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _read(name: str, value: Any) -> Any:
    if name == "curve":
        return None if value is None else stored.from_dict(value)
    if name == "alternatives":
        return tuple(Alternative(**each) for each in value)
    return tuple(value) if isinstance(value, list) else value


def _columns(pairs: tuple[tuple[float, float], ...]) -> dict[str, list[float]] | None:
    if not pairs:
        return None
    fpr, tpr = (list(column) for column in zip(*pairs, strict=True))
    return {"fpr": fpr, "tpr": tpr}


def _alike(one: Any, other: dict[str, list[float]] | None) -> bool:
    """Equal but for the last digits, which may be another machine's."""
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(
        len(one[k]) == len(other[k]) and np.allclose(one[k], other[k], 1e-9, 1e-12)
        for k in other
    )


def _headline(guarantee: Guarantee) -> str:
    if guarantee.epsilon is None or guarantee.delta is None:
        return "No privacy guarantee"
    pair = figure(guarantee.epsilon, guarantee.delta)
    return f"{pair} for {guarantee.unit}: {guarantee.adjacency}"


def _ceilings_said(guarantee: Guarantee) -> str:
    rates, found = (
        ", ".join(f"{share(each)} %" for each in column)
        for column in zip(*guarantee.ceilings, strict=True)
    )
    return f"no test finds more than {found} at false alarms of {rates}"


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
