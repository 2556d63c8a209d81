"""Two processes on this machine that run one command together.

A test file names this module in `pytest_plugins` to have its fixture, and imports from
it before pytest could look at its asserts: PYTEST_DONT_REWRITE.
"""

import os
import socket
import subprocess
import sys

import pytest

CLI = ("-m", "rpjax.cli")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def start(pytestconfig):
    """(words, environment) -> processes that run them together, two by default."""
    shared = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(pytestconfig.cache.mkdir("jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        "JAX_NUM_PROCESSES": "2",
    }
    begun = []

    def run(words, who=(0, 1), **more):
        env = shared | {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}"} | more
        processes = [
            subprocess.Popen(
                [sys.executable, *map(str, words)],
                env=env | {"JAX_PROCESS_ID": str(index)},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for index in who
        ]
        begun.extend(processes)
        return processes

    yield run
    for process in begun:
        process.kill()


def ended(processes):
    """What they wrote to the error output, and their exit statuses."""
    outs, errors = zip(*(p.communicate(timeout=300) for p in processes), strict=True)
    return outs, errors, [p.returncode for p in processes]


def finished(processes):
    outs, errors, codes = ended(processes)
    assert codes == [0] * len(codes), "\n".join(errors)
    return outs
