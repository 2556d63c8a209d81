"""Several devices: the batch is split over them by `jax.shard_map`.

Never by sharded `jit`: there, per-example convolution gradients are silently wrong and
the convolutions of vmapped members are computed on every device for the whole batch.
Under `shard_map` each device runs the learner's own step on its slice and gradients are
summed by name. Noise comes from the records' keys, so it does not depend on the
devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rpjax.errors import InputError

AXIS = "data"


def data_mesh(devices: int, capacity: int) -> Mesh | None:
    """A mesh over which batches of `capacity` slots split evenly; None for one."""
    available = jax.local_device_count()
    if not 1 <= devices <= available:
        raise InputError(
            f"devices is {devices}; this machine has {available} "
            f"({jax.default_backend()})"
        )
    if capacity % devices:
        raise InputError(
            f"devices is {devices}, which does not divide the batch of {capacity}; "
            "choose a batch size that is a multiple of it"
        )
    if devices == 1:
        return None
    return Mesh(np.array(jax.local_devices()[:devices]), (AXIS,))


def over_devices(
    function: Callable[..., Any], mesh: Mesh | None, split: dict[int, int]
) -> Callable[..., Any]:
    """`function(*args, axis)` over the mesh, with outputs the same on every device.

    split: position of an argument -> the axis along which all its leaves are split;
    the other arguments are replicated.
    """
    if mesh is None:
        return lambda *args: function(*args, None)

    def spec(position: int) -> PartitionSpec:
        if position not in split:
            return PartitionSpec()
        return PartitionSpec(*(None,) * split[position], AXIS)

    def call(*args: Any) -> Any:
        return jax.shard_map(
            lambda *local: function(*local, AXIS),
            mesh=mesh,
            in_specs=tuple(spec(i) for i in range(len(args))),
            out_specs=PartitionSpec(),
        )(*args)

    return call
