"""Several devices: members first, then the batch, by `jax.shard_map`.

A mesh has two axes, `member` and `data`. Along the first, devices hold different
members and never speak to each other; along the second they hold the same members and
share each batch, and their gradients meet in one all-reduce a step. Both axes are
manual: each device runs the learner's own step on its part.

Never sharded `jit`: there, per-example convolution gradients are silently wrong and the
convolutions of vmapped members are computed on every device for the whole batch. Noise
comes from the records' keys, so it does not depend on the devices.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from rpjax.errors import InputError
from rpjax.learners import Learner

MEMBER, DATA = AXES = ("member", "data")
Devices = int | str | Mapping[str, int] | None


class Layout(NamedTuple):
    """How a learner lies on devices. mesh: None is one device, without any sharding.

    members: devices along the member axis; data: those that share each batch.
    """

    mesh: Mesh | None = None
    members: int = 1
    data: int = 1

    @property
    def axis(self) -> str | None:
        """The axis over which a batch is split and a step summed, if one is."""
        return DATA if self.data > 1 else None

    def member_spec(self, before: int = 0) -> P:
        """Of an array whose axis after the first `before` ones is that of members."""
        return P(*(None,) * before, MEMBER) if self.members > 1 else P()

    def batch_spec(self, learner: Learner, before: int = 0) -> P:
        """Of an array (before..., *members, b, ...): split by member and by slot."""
        axes = [MEMBER if self.members > 1 else None] if learner.members else []
        axes += [None] * (len(learner.members) - 1)
        return P(*(None,) * before, *axes, self.axis)

    def local(self, learner: Learner) -> Learner:
        """What one device holds of a learner; for use inside the mapped function."""
        if self.members == 1:
            return learner
        assert learner.part is not None
        count = learner.members[0] // self.members
        return learner.part(count, count * jax.lax.axis_index(MEMBER))

    def mapped(
        self, function: Callable[..., Any], in_specs: Any, out_specs: Any
    ) -> Callable[..., Any]:
        """`function` on each device's part of its arguments."""
        if self.mesh is None:
            return function
        mapped: Callable[..., Any] = jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs
        )
        return mapped

    def put(self, tree: PyTree, spec: P | None = None) -> PyTree:
        """Host arrays on the devices, each process giving those of its own."""
        if self.mesh is None:
            return jax.device_put(tree)
        sharding = NamedSharding(self.mesh, P() if spec is None else spec)

        def one(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

        return jax.tree.map(one, tree)

    def fetch(self, tree: PyTree) -> PyTree:
        """Arrays of the devices as host arrays, whole in every process."""
        if jax.process_count() == 1:
            return jax.device_get(tree)
        from jax.experimental import multihost_utils

        def one(leaf: Any) -> np.ndarray:
            if leaf.is_fully_addressable or leaf.is_fully_replicated:
                return np.asarray(leaf)
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

        return jax.tree.map(one, tree)


def layout(devices: Devices, members: tuple[int, ...], batch: int) -> Layout:
    """A layout over so many devices: as many along the members as divide them.

    devices: a number; or the sizes of the axes, {"member": 2, "data": 4} or
        "member=2,data=4"; None is one, or all where there are several processes.
    batch: slots in a batch, which the data axis must divide.
    """
    sizes, total = _sizes(devices), number(devices)
    available = jax.devices()
    if not 1 <= total <= len(available):
        raise InputError(
            f"devices is {_words(devices)}; there "
            f"{'is' if len(available) == 1 else 'are'} {len(available)} "
            f"({jax.default_backend()})"
        )
    if jax.process_count() > 1 and total != len(available):
        raise InputError(
            f"devices is {_words(devices)}; {jax.process_count()} processes take part, "
            f"so it must be all {len(available)}"
        )
    count = members[0] if members else 1
    if isinstance(sizes, int):
        split = _members_first(sizes, count, batch)
        if split is None:
            raise InputError(
                f"devices is {sizes}, which does not divide the batch of {batch}; "
                "choose a batch size that is a multiple of it"
            )
    else:
        split = sizes.get(MEMBER, 1), sizes.get(DATA, 1)
        _check_axes(split, count, batch)
    if total == 1:
        return Layout()
    grid = np.array(available[:total]).reshape(split)
    return Layout(Mesh(grid, AXES), *split)


def number(devices: Devices) -> int:
    """How many devices these are."""
    sizes = _sizes(devices)
    return sizes if isinstance(sizes, int) else math.prod(sizes.values())


def _members_first(devices: int, members: int, batch: int) -> tuple[int, int] | None:
    for along in range(math.gcd(devices, members), 0, -1):
        divides = devices % along == 0 and members % along == 0
        if divides and batch % (devices // along) == 0:
            return along, devices // along
    return None


def _check_axes(split: tuple[int, int], members: int, batch: int) -> None:
    for name, size, total, what in (
        (MEMBER, split[0], members, "the number of members"),
        (DATA, split[1], batch, "the slots of a batch"),
    ):
        if total % size:
            raise InputError(
                f"devices has {name}={size}, which does not divide {what} = {total}"
            )


def _sizes(devices: Devices) -> int | dict[str, int]:
    if devices is None:
        return 1 if jax.process_count() == 1 else jax.device_count()
    if isinstance(devices, int):
        return devices
    if isinstance(devices, str):
        if devices.isdigit():
            return int(devices)
        pairs = [part.partition("=") for part in devices.split(",")]
        if not all(size.strip().isdigit() for _, _, size in pairs):
            raise InputError(
                f"devices is {devices!r}; it is a number such as 8, or the sizes of "
                "the axes such as member=2,data=4"
            )
        devices = {name.strip(): int(size) for name, _, size in pairs}
    unknown = [name for name in devices if name not in AXES]
    if unknown:
        raise InputError(
            f"devices names the axis {unknown[0]!r}; the axes are {' and '.join(AXES)}"
        )
    if any(size < 1 for size in devices.values()):
        raise InputError(f"devices is {_words(devices)}; sizes must be >= 1")
    return dict(devices)


def _words(devices: Devices) -> str:
    if isinstance(devices, Mapping):
        return ",".join(f"{name}={size}" for name, size in devices.items())
    return str(devices)
