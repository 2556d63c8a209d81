"""Times compilation and steps, and says how many steps fit into a call."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from rpjax.training.run import Cost

SECONDS_PER_CALL = 0.5


class Clock:
    """Times compilation and steps, and says how many steps fit into a call."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self.calls: list[tuple[int, float]] = []
        self.steps_per_call = 1

    def lowered(
        self, function: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()
    ) -> Any:
        """`function` traced for the shapes of `args`, ready for `compile`."""
        began = time.perf_counter()
        lowered = jax.jit(function, donate_argnums=donate).lower(*args)
        self.compile_seconds += time.perf_counter() - began
        return lowered

    def compile(self, lowered: Any, *, once: bool = False) -> Any:
        """The program; `once` if it is going to run just once."""
        began = time.perf_counter()
        # optimising random initialisation takes the CPU's compiler five times longer
        # than running it as it is
        quick = once and jax.default_backend() == "cpu"
        options = {"xla_backend_optimization_level": 0} if quick else None
        program = lowered.compile(compiler_options=options)
        self.compile_seconds += time.perf_counter() - began
        return program

    def ran(self, steps: int, seconds: float) -> None:
        """Take note of a call of so many steps."""
        self.calls.append((steps, seconds))
        fitting = int(SECONDS_PER_CALL * steps / max(seconds, 1e-9))
        # the first call may be slow for other reasons, so growth is not trusted at once
        self.steps_per_call = max(1, min(fitting, 8 * self.steps_per_call))

    def cost(self, program: Any) -> Cost:
        """All of it, with the memory of the program that took the steps."""
        rates = [seconds / steps for steps, seconds in self.calls for _ in range(steps)]
        memory = None if program is None else program.memory_analysis()
        return Cost(
            step_seconds=statistics.median(rates) if rates else 0.0,
            train_seconds=sum(seconds for _, seconds in self.calls),
            compile_seconds=self.compile_seconds,
            memory_bytes=None if memory is None else peak(memory),
        )


def peak(memory: Any) -> int:
    """Bytes of arguments, results and temporaries; donated memory counts once."""
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
