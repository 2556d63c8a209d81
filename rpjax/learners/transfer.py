"""Training that starts from parameters trained on public data.

What is carried over is told by path, what begins afresh is named, and every shape is
checked. How much of the net is then trained is told in groups, as in Kurakin et al.
(arXiv 2201.12328): freezing the first groups leaves less to clip and to noise.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.errors import InputError
from rpjax.learners.freezing import begins
from rpjax.learners.networks import Network

SHOWN = 4


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Parameters to start from, and where they come from.

    params: of a net that was trained on public data, such as ``run.state.params``.
    source: the data and the training in a few words; the certificate names it as
        public. It must share no record with what is to be protected: a training on the
        protected records goes to ``fit(..., earlier=[run])``.
    fresh: beginnings of the paths that are not carried over, such as ("head",) for
        other classes; those parameters keep the initial values of their own net.
    stats: running statistics of a net with BatchNorm, carried over with the rest.
    """

    params: PyTree
    source: str
    fresh: Sequence[str] = ()
    stats: PyTree = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise InputError(
                "source is empty; name the public data, since a guarantee rests on it"
            )
        if isinstance(self.fresh, str):
            raise InputError(f"fresh is {self.fresh!r}; it is a list of names")
        object.__setattr__(self, "fresh", tuple(self.fresh))
        for name in ("params", "stats"):
            # host copies: a later training may reuse the device's buffers
            flat = _flat(getattr(self, name))
            own = {path: np.array(leaf, np.float32) for path, leaf in flat.items()}
            object.__setattr__(self, name, traverse_util.unflatten_dict(own, sep="/"))
        for name in self.fresh:
            if not any(begins(path, name) for path in _flat(self.params)):
                raise InputError(
                    f"fresh names {name!r}, which is the beginning of no given "
                    f"parameter's path; at the top are {', '.join(self.params)}"
                )

    def __str__(self) -> str:
        return f"{self.source} (SHA-256 {self.digest[:16]})"

    @property
    def digest(self) -> str:
        """SHA-256 of what is carried over, paths and values."""
        found = hashlib.sha256()
        for tree in (self.params, self.stats):
            for path, leaf in sorted(self._carried(tree).items()):
                found.update(f"{path} {leaf.shape} ".encode())
                found.update(np.ascontiguousarray(leaf, "<f4").data)
        return found.hexdigest()

    def over(self, params: PyTree) -> PyTree:
        """`params`, but for what is carried over.

        Raises:
            InputError: a path that one of the two nets lacks, or another shape.
        """
        return self._over(self.params, params, "parameter")

    def started(self, network: Network) -> Network:
        """The network, initialised with these parameters."""

        def init(key: Array, pixels: Array) -> tuple[PyTree, PyTree]:
            params, stats = network.init(key, pixels)
            if self.stats:
                stats = self._over(self.stats, stats, "statistic")
            return self.over(params), stats

        return network._replace(init=init)

    def _carried(self, tree: PyTree) -> dict[str, Any]:
        fresh: Callable[[str], bool] = lambda path: any(
            begins(path, name) for name in self.fresh
        )
        return {path: leaf for path, leaf in _flat(tree).items() if not fresh(path)}

    def _over(self, given: PyTree, initial: PyTree, what: str) -> PyTree:
        carried, own = self._carried(given), _flat(initial)
        wanted = self._carried(initial)
        if missing := [path for path in wanted if path not in carried]:
            raise InputError(
                f"the pre-trained net has no {what} {_list(missing)}; name what begins "
                "afresh in fresh, or take the same net"
            )
        if unknown := [path for path in carried if path not in own]:
            raise InputError(
                f"the net has no {what} {_list(unknown)}, which the pre-trained one "
                "has; name it in fresh to leave it behind, or take the same net"
            )
        for path, leaf in carried.items():
            if leaf.shape != own[path].shape:
                raise InputError(
                    f"the {what} {path} has shape {leaf.shape} in the pre-trained net "
                    f"and {own[path].shape} here; name it in fresh to begin it afresh, "
                    "or take the same net"
                )
        values = {path: jnp.asarray(leaf) for path, leaf in carried.items()}
        whole: PyTree = traverse_util.unflatten_dict(own | values, sep="/")
        return whole


def started(network: Network, start: Pretrained | None) -> Network:
    """The network from its pre-trained parameters, where there are any."""
    return network if start is None else start.started(network)


def trainable_after(model: Any, frozen: int) -> tuple[str, ...] | None:
    """What is trained where the first `frozen` groups of a net stay as they are.

    0 trains everything, 1 freezes the stem, 2 the stem and the first stage, and so on
    up to all but the head with its normalisation. The result is a learner's
    `trainable`.

    >>> from rpjax.models import resnet
    >>> trainable_after(resnet(8, classes=10), 3)
    ('block2', 'head_norm', 'head')
    """
    groups: Sequence[tuple[str, ...]] | None = getattr(model, "block_groups", None)
    if groups is None:
        raise InputError(
            f"{type(model).__name__} does not say its block_groups; give trainable the "
            "beginnings of paths"
        )
    if not 0 <= frozen < len(groups):
        raise InputError(
            f"frozen is {frozen}; this net has {len(groups)} groups, of which 0 to "
            f"{len(groups) - 1} can be frozen"
        )
    if frozen == 0:
        return None
    return tuple(name for group in groups[frozen:] for name in group)


def _flat(tree: PyTree) -> dict[str, Any]:
    found: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    return found


def _list(paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN
    return ", ".join(paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")
