"""A limit on epsilon: how many steps it allows, and what is spent so far."""

from collections.abc import Callable
from dataclasses import dataclass

from rpjax.errors import InputError
from rpjax.privacy import calibration
from rpjax.training.history import History


@dataclass(frozen=True)
class Budget:
    """The most that a training may spend, for the neighbours of its own guarantee.

    epsilon, delta: a training stops before the step that would exceed them.
    """

    epsilon: float
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise InputError(f"budget.epsilon is {self.epsilon}; it must be > 0")
        if not 0 < self.delta < 1:
            raise InputError(
                f"budget.delta is {self.delta}; it must lie strictly between 0 and 1"
            )

    def __str__(self) -> str:
        return f"ε = {self.epsilon:g} at δ = {self.delta:g}"


class Meter:
    """What a training has spent of its budget, counted from its first step.

    spending: (steps) -> epsilon at the budget's delta.
    asked: steps that the training would take without a budget.
    block: steps in a block of the history.
    steps: those asked for that the budget allows.
    """

    def __init__(
        self,
        budget: Budget,
        spending: Callable[[int], float],
        asked: int,
        block: int = 1,
    ) -> None:
        self.budget, self.spending = budget, spending
        self.asked, self.block = asked, block
        self.known: dict[int, float] = {}
        self.steps = asked
        if self.at(asked) > budget.epsilon:
            self.steps = calibration.most_steps(self.at, budget.epsilon, asked - 1)
        if self.steps == 0:
            raise InputError(
                f"budget is {budget}; a single step spends {self.at(1):.4g}"
            )

    def at(self, steps: int) -> float:
        """Epsilon of exactly so many steps."""
        if steps not in self.known:
            self.known[steps] = self.spending(steps)
        return self.known[steps]

    def so_far(self, steps: int) -> float:
        """Epsilon at the end of the block that so many steps are in, or a little later.

        The accountant takes some milliseconds for each number of steps. So that a
        training of very many short steps does not wait for it, no more than sixteen
        blocks are asked for between a power of two and the next, and the others are
        rounded up to those: never below what is spent, and exact at the end.
        """
        blocks = -(-steps // self.block)
        unit = 1 << max(0, blocks.bit_length() - 5)
        rounded = -(-blocks // unit) * unit * self.block
        return self.at(min(rounded, self.steps))

    def column(self, history: History) -> History:
        """What was spent at the end of each block, for the history."""
        return {"epsilon": [self.so_far(int(step)) for step in history["step"]]}

    def refuse(self, done: int) -> None:
        """Refuse to go on where more is spent already."""
        if done > self.steps:
            raise InputError(
                f"budget is {self.budget}, which allows {self.steps} steps; the "
                f"checkpoint has taken {done}: give a larger budget, or start with "
                "--overwrite"
            )

    def verdict(self) -> str | None:
        """Why a training ended before it was asked to, in a line; None if it did not.

        >>> Meter(Budget(2.0), lambda steps: 0.3 * steps, asked=10).verdict()
        'stopped after step 6 of 10: ε = 1.8 at δ = 1e-05, and one more exceeds 2'
        """
        if self.steps == self.asked:
            return None
        spent = Budget(round(self.at(self.steps), 6), self.budget.delta)
        return (
            f"stopped after step {self.steps} of {self.asked}: {spent}, and one more "
            f"exceeds {self.budget.epsilon:g}"
        )
