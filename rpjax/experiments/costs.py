"""What training took: time and memory, each also relative to plain training's."""

import statistics
from typing import Any

from rpjax.training import Run

TURNS = 7
SECONDS_PER_TURN = 0.25


def cost_facts(run: Run) -> dict[str, Any]:
    """Time and memory; what is relative to plain training is filled in at the end.

    A run that was only picked up from its last checkpoint has taken no step to time.
    """
    steps_per_epoch = run.records / run.sampler.batch_size
    seconds = None if run.stopwatch is None else run.cost.step_seconds
    return {
        "step_seconds": seconds,
        "epoch_seconds": seconds and seconds * steps_per_epoch,
        "relative_time": None,
        "memory_bytes": run.cost.memory_bytes,
        "memory_kind": "compiled program: arguments (data included) and temporaries",
        "relative_memory": None,
        "timing_note": "median step of the target's training, compile time apart",
        "computed": None if run.choice is None else str(run.choice),
        "convolution": None if run.choice is None else run.choice.how.convolution,
    }


def time_side_by_side(parts: list[dict[str, Any]], runs: dict[str, Run]) -> None:
    """Time all methods' steps in turns, so that they share whatever else goes on.

    Needs every target's compiled program, so parts that were picked up from disk keep
    the times of their own training.
    """
    clocks = {name: run.stopwatch for name, run in runs.items()}
    if len(parts) < 2 or any(clocks.get(p["name"]) is None for p in parts):
        return
    costs = {p["name"]: p["cost"] for p in parts}
    steps = {
        name: max(1, round(SECONDS_PER_TURN / cost["step_seconds"]))
        for name, cost in costs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(TURNS):
        for name, clock in clocks.items():
            assert clock is not None
            seconds[name].append(clock(steps[name]) / steps[name])
    for name, cost in costs.items():
        per_epoch = runs[name].records / runs[name].sampler.batch_size
        cost["step_seconds"] = statistics.median(seconds[name])
        cost["epoch_seconds"] = cost["step_seconds"] * per_epoch
        cost["timing_note"] = (
            f"median of {TURNS} turns of some {SECONDS_PER_TURN} s, all methods in "
            "turn in one process, compile time apart"
        )


def relative(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts with each cost also relative to plain training's, if it is there."""
    plain = next((p["cost"] for p in parts if p["name"] == "plain"), None)
    if plain is None:
        return parts
    return [part | {"cost": _relative_cost(part["cost"], plain)} for part in parts]


def _relative_cost(cost: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    def ratio(name: str) -> float | None:
        return cost[name] / plain[name] if cost[name] and plain[name] else None

    return cost | {
        "relative_time": ratio("epoch_seconds"),
        "relative_memory": ratio("memory_bytes"),
    }
