"""Phrases that guarantees share."""

import textwrap
from collections.abc import Mapping
from typing import Literal

NoiseSeed = Literal["secret", "fixed"]

OWN_FIGURES = (
    "figures computed from the training records themselves, such as training accuracy "
    "and attack scores; those of a report are for its owner"
)


def figure(epsilon: float, delta: float) -> str:
    """The pair (epsilon, delta)."""
    return f"(ε = {size(epsilon)}, δ = {delta:g})"


def size(epsilon: float) -> str:
    """Four digits of an epsilon, or all before the point."""
    return f"{epsilon:.4g}" if epsilon < 1e4 else f"{epsilon:.0f}"


def power(share: float) -> str:
    """The most that a test with one false alarm in a hundred can find."""
    text = f"{100 * share:.3g} %."
    if share > 0.99:
        text += " That excludes next to nothing: the figure is of no practical use."
    return text


def seed_note(noise_seed: NoiseSeed) -> str:
    """A sentence for the statement, where the noise can be repeated."""
    if noise_seed == "secret":
        return ""
    return (
        " This run is a reproduction with a fixed noise seed: the figure does not hold "
        "against anyone who knows the seed."
    )


def seed_assumption(noise_seed: NoiseSeed) -> tuple[str, ...]:
    """What the user has to see to."""
    if noise_seed == "secret":
        return (
            "the secret seed, of the noise and of who is sampled, stays secret and "
            "serves for this run alone",
        )
    return (
        "the noise seed, fixed here for reproduction, is unknown to the attacker; "
        "release weights only from a run with a secret seed",
    )


def told_apart(enforced: list[str], left: list[str]) -> tuple[str, ...]:
    """Assumptions, each one beginning with who sees to it."""
    by_code = (f"Enforced by the library: {text}" for text in enforced)
    return (*by_code, *(f"Left to the user: {text}" for text in left))


def failed(premises: Mapping[str, bool]) -> tuple[str, ...]:
    """Those premises that fail, in words."""
    return tuple(
        f"a premise fails, {name}" for name, fails in premises.items() if fails
    )


def wrapped(text: str, bullet: str = "") -> list[str]:
    """Lines of at most 88 characters, indented."""
    return textwrap.wrap(
        text,
        width=88,
        initial_indent="  " + bullet,
        subsequent_indent="  " + " " * len(bullet),
    )
