"""A `jax.pmap` for functions that come with one: `jit` and `shard_map` underneath.

>>> import jax, jax.numpy as jnp
>>> from rpjax import pmap
>>> share = pmap(lambda x: x / jax.lax.psum(x, "data"), devices=jax.devices()[:1])
>>> share(jnp.ones((1, 2))).tolist()
[[1.0, 1.0]]

The calling convention is pmap's: the leading axis of every argument and result counts
devices, and inside the function it is gone. docs/devices.md says what differs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rpjax.errors import InputError


def pmap(
    function: Callable[..., Any],
    axis_name: str = "data",
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    static_broadcasted_argnums: int | Sequence[int] = (),
    donate_argnums: int | Sequence[int] = (),
    devices: Sequence[jax.Device] | None = None,
) -> "Mapped":
    """`function` on each device's slice of its arguments, as `jax.pmap` runs it.

    axis_name: by which `jax.lax.pmean`, `psum`, `axis_index` name the devices' axis.
    in_axes: the axis that counts devices, of all arguments, of each, or of parts of
        them; None for what every device gets whole. Keyword arguments: axis 0.
    out_axes: likewise of the results; None for a result that is equal on all devices,
        of which one is returned.
    static_broadcasted_argnums: arguments that are compiled in; they must be hashable.
    donate_argnums: arguments whose memory the results may take.
    devices: which; None is the first so many as the arguments have slices.

    Raises:
        InputError: axes that differ in size, or do not fit the devices.
    """
    static = _positions(static_broadcasted_argnums)
    donated = _positions(donate_argnums)
    return Mapped(function, axis_name, in_axes, out_axes, static, donated, devices)


class Mapped:
    """A mapped function: to be called, or to be looked at by `lower`."""

    def __init__(
        self,
        function: Callable[..., Any],
        axis_name: str,
        in_axes: Any,
        out_axes: Any,
        static: frozenset[int],
        donated: frozenset[int],
        devices: Sequence[jax.Device] | None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.axis_name = function, axis_name
        self.in_axes, self.out_axes = in_axes, out_axes
        self.static, self.donated = static, donated
        self.devices = None if devices is None else tuple(devices)
        self.programs: dict[Any, Any] = {}

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The results, with the devices' axis in front."""
        program, leaves = self._prepared(args, named)
        return program(*leaves)

    def lower(self, *args: Any, **named: Any) -> Any:
        """The program for such arguments, before it is compiled."""
        program, leaves = self._prepared(args, named)
        return program.lower(*leaves)

    def _prepared(self, args: tuple, named: dict[str, Any]) -> tuple[Any, list[Any]]:
        if jax.process_count() > 1:
            raise InputError(
                "pmap is for the devices of one process; with several, call "
                "rpjax.fit, or jax.shard_map on global arrays"
            )
        fixed = {i: args[i] for i in sorted(self.static) if i < len(args)}
        moving = [arg for i, arg in enumerate(args) if i not in fixed]
        leaves, tree = jax.tree.flatten((moving, named))
        axes = self._axes(args, fixed, moving, named)
        mesh = self._mesh(_size(leaves, axes))
        owners = [i for i in range(len(args)) if i not in fixed]
        counts = [len(jax.tree.leaves(arg)) for arg in moving]
        owner = np.repeat(owners, counts).tolist()
        donate = tuple(n for n, i in enumerate(owner) if i in self.donated)
        key = (tree, tuple(axes), tuple(fixed.items()), mesh, donate)
        specs = [_spec(axis, self.axis_name) for axis in axes]
        if key not in self.programs:
            body = self._body(tree, axes, fixed)
            self.programs[key] = self._compiled(body, mesh, specs, donate)
        placed = [
            jax.device_put(leaf, NamedSharding(mesh, spec))
            for leaf, spec in zip(leaves, specs, strict=True)
        ]
        return self.programs[key], placed

    def _axes(
        self, args: tuple, fixed: dict[int, Any], moving: list[Any], named: dict
    ) -> list[int | None]:
        """The axis of each leaf that counts devices."""
        own = self.in_axes
        if isinstance(own, tuple | list):
            if len(own) != len(args):
                raise InputError(
                    f"in_axes has {len(own)} entries for {len(args)} arguments; give "
                    "one for each"
                )
            own = [axis for i, axis in enumerate(own) if i not in fixed]
        axes = [
            *_spread(own, moving, "in_axes"),
            *(0 for _ in jax.tree.leaves(named)),
        ]
        for axis in axes:
            _check_axis(axis, "in_axes")
        return axes

    def _mesh(self, size: int) -> Mesh:
        devices = self.devices
        if devices is None:
            devices = tuple(jax.devices()[:size])
        if len(devices) != size:
            raise InputError(
                f"the mapped axis has {size} slices for {len(devices)} devices; give "
                "each device one"
            )
        return Mesh(np.array(devices), (self.axis_name,))

    def _body(
        self, tree: Any, axes: list[int | None], fixed: dict[int, Any]
    ) -> Callable[..., Any]:
        """What one device does with its part, (1, ...) along each mapped axis."""

        def body(*parts: Any) -> Any:
            own = [_without(part, a) for part, a in zip(parts, axes, strict=True)]
            moving, named = jax.tree.unflatten(tree, own)
            rest = iter(moving)
            count = len(moving) + len(fixed)
            args = [fixed[i] if i in fixed else next(rest) for i in range(count)]
            results, shape = jax.tree.flatten(self.function(*args, **named))
            back = _spread(
                self.out_axes, jax.tree.unflatten(shape, results), "out_axes"
            )
            for axis in back:
                _check_axis(axis, "out_axes")
            return shape.unflatten(
                result if axis is None else jnp.expand_dims(result, axis)
                for result, axis in zip(results, back, strict=True)
            )

        return body

    def _compiled(
        self, body: Callable[..., Any], mesh: Mesh, specs: list[P], donate: tuple
    ) -> Any:
        out = jax.tree.map(
            lambda axis: _spec(axis, self.axis_name), self.out_axes, is_leaf=_is_none
        )
        # pmap's own law of gradients: each device has its own, until they are summed
        mapped = jax.shard_map(
            body, mesh=mesh, in_specs=tuple(specs), out_specs=out, check_vma=False
        )
        return jax.jit(mapped, donate_argnums=donate)


def _positions(given: int | Sequence[int]) -> frozenset[int]:
    return frozenset([given] if isinstance(given, int) else given)


def _is_none(value: Any) -> bool:
    return value is None


def _spread(axes: Any, tree: Any, what: str) -> list[int | None]:
    """One axis for each leaf, from axes for all, for each, or for parts of a tree."""
    if isinstance(tree, list) and isinstance(axes, list | tuple):
        axes = list(axes)
    try:
        full = jax.tree.broadcast(axes, tree, is_leaf=_is_none)
    except ValueError as error:
        raise InputError(
            f"{what} is {axes!r}, which does not have the structure of what it is for"
        ) from error
    spread: list[int | None] = jax.tree.leaves(full, is_leaf=_is_none)
    return spread


def _check_axis(axis: Any, what: str) -> None:
    if axis is not None and (not isinstance(axis, int) or axis < 0):
        raise InputError(f"{what} holds {axis!r}; axes are numbers >= 0, or None")


def _spec(axis: int | None, name: str) -> P:
    return P() if axis is None else P(*(None,) * axis, name)


def _size(leaves: list[Any], axes: list[int | None]) -> int:
    """Slices along the mapped axes, which all must agree on."""
    sizes = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:
            continue
        shape = np.shape(leaf)
        if len(shape) <= axis:
            raise InputError(
                f"an argument of shape {shape} has no axis {axis} that counts devices; "
                "give it one, or None in in_axes"
            )
        sizes.append(shape[axis])
    if not sizes:
        raise InputError(
            "no argument has an axis that counts devices; map at least one"
        )
    if len(set(sizes)) > 1:
        raise InputError(
            f"the mapped axes have sizes {', '.join(map(str, sorted(set(sizes))))}; "
            "all must have one slice for each device"
        )
    return int(sizes[0])


def _without(part: Any, axis: int | None) -> Any:
    """A device's part without the axis that counts devices."""
    return part if axis is None else part[(slice(None),) * axis + (0,)]
