"""A step of DP-SGD in rpjax and in other libraries, each in a process of its own.

What is imported when a contender runs, in an environment that may lack rpjax, is kept
apart from what compares them: BENCHMARK is made when it is asked for.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "BENCHMARK":
        raise AttributeError(name)
    from benchmarks.dpsgd.comparison import BENCHMARK

    return BENCHMARK
