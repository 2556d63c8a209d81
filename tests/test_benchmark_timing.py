"""Benchmarks: clocks, turns, processes of their own, and what is counted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import processes, timing
from benchmarks.benchmark import silent
from benchmarks.hlo import Collective, collectives
from benchmarks.workloads import halves, learner, random_pixels, training_program

ROOT = Path(__file__).parents[1]


def test_clocks_take_turns_and_a_ratio_is_one_of_rounds():
    heard = []
    ticks = {"a": iter([1.0, 10.0, 1.0]), "b": iter([2.0, 20.0, 2.0])}

    def clock(name):
        return lambda: heard.append(name) or next(ticks[name])

    times = timing.in_turns({name: clock(name) for name in "ab"}, 3, silent)
    assert "".join(heard) == "abbaab"
    assert times == {"a": [1, 10, 1], "b": [2, 20, 2]}
    assert timing.ratio(times["b"], times["a"]) == 2
    assert timing.summary(times["a"]) == {"seconds": 1, "spread": [1, 10], "n": 3}


def test_a_turn_is_as_many_steps_as_fit_and_no_more_than_there_are():
    asked = []

    def stopwatch(steps):
        asked.append(steps)
        return 0.1 * steps

    timed = timing.steps_of(stopwatch, 100, 1.0)
    assert timed.count == 10
    assert asked == [1, 4, 10]  # warmed up before it is believed
    assert timed.clock() == pytest.approx(0.1)
    assert timing.steps_of(stopwatch, 3, 1.0).count == 3


def test_a_clock_waits_for_what_it_calls():
    class Slow:
        def block_until_ready(self):
            time.sleep(0.02)

    assert timing.calls_of(lambda: Slow(), ())() >= 0.02


def test_a_process_of_its_own_has_its_own_variables_and_cores(monkeypatch):
    monkeypatch.delenv("OF_ITS_OWN", raising=False)
    with processes.Worker({"OF_ITS_OWN": "yes"}, threads=1) as worker:
        assert worker(os.getenv, "OF_ITS_OWN") == "yes"
        assert worker(os.getpid) != os.getpid()
        assert worker(processes.cores) == 1
    assert "OF_ITS_OWN" not in os.environ


def test_a_process_of_its_own_ends_with_whoever_started_it():
    code = (
        "import os, signal\n"
        "from benchmarks.processes import Worker\n"
        "if __name__ == '__main__':\n"
        "    print(Worker()(os.getpid), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    worker = int(ended.stdout)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker outlived its parent")


def test_collectives_are_counted_with_their_bytes():
    text = (
        "%g = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%a, %b), to_apply=%add\n"
        "%h = f32[8]{0} all-gather-start(%c)\n%i = f32[8]{0} all-gather-done(%h)\n"
        "%j = (u8[16]{0}, pred[]) all-to-all(%d, %e)"
    )
    assert collectives(text) == [
        Collective("all-reduce", 32),
        Collective("all-gather", 32),
        Collective("all-to-all", 17),
    ]


def test_the_program_that_is_counted_is_the_one_that_fit_runs(small):
    one = learner("plain", "tiny", 8)
    program, stopwatch = training_program(one, small, 8)
    assert program.cost_analysis()["flops"] > 0
    assert stopwatch(2) > 0


def test_a_bank_has_halves_of_its_own():
    lists = halves(5, 20, 0)
    assert lists.shape == (5, 10)
    assert len({tuple(row) for row in lists}) == 5
    assert all(len(set(row)) == 10 for row in lists.tolist())
    data = random_pixels(20, (8, 8, 1), 0)
    assert np.ptp(data.images) > 200
