"""Phrases that guarantees share."""

import textwrap
from collections.abc import Mapping
from typing import Literal

NoiseSeed = Literal["secret", "fixed"]

OWN_FIGURES = (
    "figures computed from the training records themselves, such as training accuracy "
    "and attack scores; those of a report are for its owner"
)

OTHER_RUNS = (
    "the search for hyper-parameters, and any other training run or model on the same "
    "records: each one composes with this one"
)
VALIDATION = (
    "validation records, by which settings or a checkpoint may have been chosen"
)
LOGS = "logs and timings of the run"


def figure(epsilon: float, delta: float) -> str:
    """The pair (epsilon, delta)."""
    return f"(ε = {size(epsilon)}, δ = {delta:g})"


def size(epsilon: float) -> str:
    """Four digits of an epsilon, or all before the point."""
    return f"{epsilon:.4g}" if epsilon < 1e4 else f"{epsilon:.0f}"


def share(of_one: float) -> str:
    """A rate in percent, three digits of it."""
    return f"{100 * of_one:.3g}"


def power(found: float) -> str:
    """The most that a test with one false alarm in a hundred can find."""
    text = f"{share(found)} %."
    if found > 0.99:
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


def bank(models: int) -> tuple[str, ...]:
    """What goes uncovered where several models were trained side by side."""
    if models == 1:
        return ()
    return (
        f"the {models} models trained side by side together: the figure is for each "
        "by itself",
    )


def public_start(pretrained: str | None) -> tuple[str, ...]:
    """What is public of a training that starts from parameters of another."""
    if pretrained is None:
        return ()
    return (f"the data it was pre-trained on, and what came of that: {pretrained}",)


def start_assumption(pretrained: str | None) -> tuple[str, ...]:
    """What the user has to see to, of the same."""
    if pretrained is None:
        return ()
    return (
        f"the parameters that it starts from were trained on public data ({pretrained})"
        ", which share no record with the protected ones and were not chosen by them",
    )


def frozen_assumption(trained: str | None) -> tuple[str, ...]:
    """What the user has to see to where some parameters stay as they are."""
    if trained is None:
        return ()
    return (
        f"the parameters that stay as they are (all but: {trained}) come from "
        "elsewhere, and were never trained on the protected records",
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
