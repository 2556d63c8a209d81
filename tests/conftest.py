"""Flags of the whole test run, set before anything makes an array."""

import mmap
import os
from pathlib import Path

import jax
import jaxlib
import pytest

# compilation is most of the time; RPJAX_OPTIMISED=1 compiles what users run
OPTIMISED = bool(os.getenv("RPJAX_OPTIMISED"))
# the older way to emit a fusion's code takes less than half the time to compile
QUICKER = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def quicker_compiler():
    """Ask for `QUICKER`, of which XLA ends a process that does not know a name."""
    library = next(Path(jaxlib.__file__).parent.glob("libjax_common.*"), None)
    if library is None:
        return
    with library.open("rb") as file:
        names = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        known = [name for name in QUICKER if names.find(name.encode()) >= 0]
        names.close()
    given = os.getenv("XLA_FLAGS", "").split()
    flags = [f"--{name}={QUICKER[name]}" for name in known]
    os.environ["XLA_FLAGS"] = " ".join([*given, *(f for f in flags if f not in given)])


if not OPTIMISED:
    quicker_compiler()

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", not OPTIMISED)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
jax.config.update("jax_debug_key_reuse", True)


def pytest_configure(config):
    """Keep compiled programs between runs, where pytest keeps anything at all."""
    # a damaged entry costs a compilation, not a test
    for verb in ("reading", "writing"):
        message = f"ignore:Error {verb} persistent compilation cache"
        config.addinivalue_line("filterwarnings", message)
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


# session fixtures that take long: all tests that ask for one of them run in one process
SHARED = {"compared": "compared", "interrupted": "compared"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With -n and --dist loadgroup: what tests share is made in one process only.

    First, since xdist notes the groups in a hook of this name.
    """
    for item in items:
        shared = item._fixtureinfo.name2fixturedefs
        if group := next((SHARED[name] for name in SHARED if name in shared), None):
            item.add_marker(pytest.mark.xdist_group(group))
        elif any(found[-1].scope == "module" for found in shared.values()):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


def pytest_collection_finish():
    """An array made by an import would fix the devices before a user can choose."""
    if jax.live_arrays():
        raise pytest.UsageError("importing rpjax or a test file put arrays on a device")


@pytest.fixture
def optimised():
    """The compiler as users have it, where a test is about its choices."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", not OPTIMISED)


@pytest.fixture
def unchecked():
    """The library as users have it, without run-time types: its own refusals speak."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def small():
    """Sixteen learnable records of three classes."""
    from support import records

    return records(16)
