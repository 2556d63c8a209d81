"""How to compute: one measured decision per model, batch and device.

What a model and a learner leave to "auto" (how convolutions are computed, how members
run on one device) changes nothing but speed and the last bits. For a long training the
real program is timed in each way, in turns, and the fastest kept, if it is faster than
the device's default by more than a few percent. The decision is kept beside jax's
persistent compilation cache, where there is one, so that the same run is computed the
same way again; a checkpoint holds it too.
"""

import hashlib
import json
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from rpjax import distributed
from rpjax.learners import Implementation, Learner

# another way must be this much faster than the default; timings repeat to some percent
MARGIN = 1.05
# a measurement must be expected to take less than this part of the training
SHARE = 0.1
# with fewer steps not even the default is timed
LEAST_STEPS = 50
TURNS = 3
SECONDS_PER_TURN = 0.3
SMALL_IMAGE = 16 * 16
MOST_UNROLLED = 8

T = TypeVar("T")


class Choice(NamedTuple):
    """A way to compute, and why it was taken, in words."""

    how: Implementation
    reason: str

    def __str__(self) -> str:
        return f"{self.how}: {self.reason}" if str(self.how) else self.reason


class Trial(NamedTuple):
    """The real program of a training, computed in some way.

    lower: (learner) -> what `compile` takes, with `as_text`.
    compile: -> (program, seconds that it took).
    seconds: (program, steps) -> seconds, without changing the training.
    """

    lower: Callable[[Learner], Any]
    compile: Callable[[Any], tuple[Any, float]]
    seconds: Callable[[Any, int], float]


def decided(
    learner: Learner,
    trial: Trial,
    steps: int,
    pixels: int,
    known: Choice | None = None,
) -> tuple[Learner, Any, Choice]:
    """The learner as it will be computed, its compiled program, and the decision.

    steps: that the training is going to take; pixels: of an image.
    known: the decision, where it is made: an earlier part of the same training has
        made it, or another training whose times are compared with this one's.
    """
    if known is not None:
        return _plainly(learner, trial, known)
    ways = candidates(learner, pixels)
    if len(ways) == 1:
        return _plainly(learner, trial, Choice(ways[0], "no other way is known"))
    lowered = trial.lower(learner.computed(ways[0]))
    name = _name(lowered, ways)
    kept = _remembered(name, ways)
    kept = _remembered(name, ways)
    before = Choice(kept or ways[0], "measured before on this device")
    if before.how != ways[0]:
        return _plainly(learner, trial, before)
    program, spent = trial.compile(lowered)
    if kept is not None:
        return learner.computed(kept), program, before
    turn = _worth_measuring(trial, program, steps, spent * (len(ways) - 1))
    if not turn:
        why = f"this device's default; {steps} steps are too few to measure others"
        return learner.computed(ways[0]), program, Choice(ways[0], why)
    programs = [program, *(_program(learner, trial, how) for how in ways[1:])]
    times = _in_turns(trial, programs, turn)
    best = int(np.argmin(times))
    best = _agreed(best if times[best] * MARGIN < times[0] else 0)
    _remember(name, ways[best])
    told = (
        f"{how} {1e3 * seconds:.3g} ms" if seconds < math.inf else f"{how} failed"
        for how, seconds in zip(ways, times, strict=True)
    )
    choice = Choice(ways[best], f"measured: {', '.join(told)}")
    return learner.computed(ways[best]), programs[best], choice


def _plainly(
    learner: Learner, trial: Trial, choice: Choice
) -> tuple[Learner, Any, Choice]:
    learner = learner.computed(choice.how)
    return learner, trial.compile(trial.lower(learner))[0], choice


def _worth_measuring(trial: Trial, program: Any, steps: int, cost: float) -> int:
    """Steps to time at once, or 0 if the training is too short to repay `cost`."""
    if steps < LEAST_STEPS:
        return 0
    one = trial.seconds(program, 1)
    turn = _agreed(max(1, int(SECONDS_PER_TURN / max(one, 1e-9))))
    step = trial.seconds(program, turn) / turn
    return _agreed(turn if cost < SHARE * step * steps else 0)


def _program(learner: Learner, trial: Trial, how: Implementation) -> Any:
    """The program computed in another way, or None if the device has no room for it."""
    try:
        program, _ = trial.compile(trial.lower(learner.computed(how)))
        trial.seconds(program, 1)
    except jax.errors.JaxRuntimeError:
        return None
    return program


def candidates(learner: Learner, pixels: int) -> list[Implementation]:
    """The ways that are worth trying on this device, its default first."""
    on_cpu = jax.default_backend() == "cpu"
    mappings: list[Any] = ["map"] if on_cpu else ["vmap", "map"]
    if not on_cpu and learner.members and learner.members[0] <= MOST_UNROLLED:
        mappings.append("unroll")
    if "mapping" not in learner.open:
        mappings = [None]
    ways = [
        Implementation(
            convolution if "convolution" in learner.open else None,
            mapping,
            engine if "engine" in learner.open else None,
        )
        for mapping in mappings
        for convolution, engine in _computations(learner, on_cpu, pixels)
    ]
    return list(dict.fromkeys(ways))


def _computations(
    learner: Learner, on_cpu: bool, pixels: int
) -> list[tuple[str, str | None]]:
    """Pairs of convolution and engine."""
    per_example = learner.mechanism.kind == "dpsgd"
    plain = ["canonical", "im2col"] if on_cpu else ["xla"]
    if on_cpu and pixels <= SMALL_IMAGE:
        plain.reverse()
    if "engine" in learner.open:
        # vmapped gradients of kernels are grouped convolutions, or products of patches
        pairs: list[tuple[str, str | None]] = [(way, "bookkeeping") for way in plain]
        pairs.append(("im2col", "vmap"))
        if not on_cpu:
            pairs.append(("xla", "vmap"))
            if learner.mechanism.clipping != "per_layer":  # two passes have no layers
                pairs.append(("xla", "two_pass"))
        return pairs
    if per_example:
        plain = ["im2col", *(way for way in plain if way != "im2col")]
        if not on_cpu:
            plain.reverse()
    return [(way, None) for way in plain]


def _in_turns(trial: Trial, programs: list[Any], steps: int) -> list[float]:
    """Median seconds a step of each program, in turns; infinite for one that failed."""
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(TURNS):
        for own, program in zip(seconds, programs, strict=True):
            taken = math.inf if program is None else trial.seconds(program, steps)
            own.append(taken / steps)
    return [statistics.median(own) for own in seconds]


def _agreed(value: T) -> T:
    """What the first process says: all must run the same program."""
    return type(value)(distributed.from_first(np.asarray(value)).item())  # type: ignore[call-arg]


def _name(lowered: Any, ways: list[Implementation]) -> str:
    """Of a decision: the program in the default way, the ways, and the device."""
    device = jax.devices()[0]
    facts = [jax.__version__, device.device_kind, os.cpu_count(), *map(str, ways)]
    text = "\n".join([*map(str, facts), lowered.as_text()])
    return hashlib.sha256(text.encode()).hexdigest()


_decisions: dict[str, Implementation] = {}


def _file() -> Path | None:
    folder = jax.config.jax_compilation_cache_dir
    local = folder and "://" not in folder
    return Path(folder) / "rpjax-choices.json" if local else None


def _remembered(name: str, ways: list[Implementation]) -> Implementation | None:
    if name not in _decisions and (file := _file()) and file.exists():
        try:
            kept = json.loads(file.read_text())
            _decisions.update((n, Implementation(*how)) for n, how in kept.items())
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # a damaged cache costs a measurement
    found = _decisions.get(name)
    number = ways.index(found) if found in ways else -1
    number = _agreed(number)
    return ways[number] if number >= 0 else None


def _remember(name: str, how: Implementation) -> None:
    _decisions[name] = how
    file = _file()
    if file is None or jax.process_index():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(_decisions))
        unfinished.replace(file)
    except OSError:
        pass  # a decision that cannot be kept is measured again
