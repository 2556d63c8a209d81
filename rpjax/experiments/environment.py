"""What a result was computed with: versions and the device."""

import importlib.metadata
import os
import platform
from typing import Any

import jax

from rpjax.version import __version__


def versions() -> dict[str, str]:
    """The packages that a number depends on."""
    names = ("jax", "jaxlib", "flax", "optax", "dp-accounting", "numpy", "scikit-learn")
    found = {n.replace("-", "_"): importlib.metadata.version(n) for n in names}
    return {"rpjax": __version__, "python": platform.python_version(), **found}


def device(count: int = 1) -> dict[str, Any]:
    """The device that computed it."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": count,
        "processes": jax.process_count(),
        "host_cores": os.cpu_count(),
    }
