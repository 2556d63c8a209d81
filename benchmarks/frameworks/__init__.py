"""A whole training by DP-SGD in rpjax and in other frameworks, curve beside curve.

Each framework's script runs in an environment that may lack rpjax, so that it is kept
apart from what compares them: BENCHMARK is made when it is asked for.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "BENCHMARK":
        raise AttributeError(name)
    from benchmarks.frameworks.comparison import BENCHMARK

    return BENCHMARK
