"""Training some parameters and leaving the others as they are."""

from collections.abc import Sequence

from flax import traverse_util

from rpjax.annotations import PyTree
from rpjax.errors import InputError


class Trained:
    """Which parameters are trained, by the beginning of their path.

    names: such as ("head", "block2/norm1"); None is all of them.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self.names = None if names is None else tuple(names)
        if self.names == ():
            raise InputError("trainable is empty; name a parameter, or leave it out")

    def part(self, params: PyTree) -> PyTree:
        """The trained parameters, in the same nest.

        Raises:
            InputError: a name that no parameter's path begins with.
        """
        if self.names is None:
            return params
        flat = traverse_util.flatten_dict(params, sep="/")
        for name in self.names:
            if not any(begins(path, name) for path in flat):
                tops = ", ".join(params)
                raise InputError(
                    f"trainable names {name!r}, which is the beginning of no "
                    f"parameter's path; at the top are {tops}"
                )
        own = {
            path: leaf
            for path, leaf in flat.items()
            if any(begins(path, name) for name in self.names)
        }
        part: PyTree = traverse_util.unflatten_dict(own, sep="/")
        return part

    def whole(self, part: PyTree, params: PyTree) -> PyTree:
        """`params` with the trained ones taken from `part`."""
        if self.names is None:
            return part
        flat = traverse_util.flatten_dict(params, sep="/")
        flat |= traverse_util.flatten_dict(part, sep="/")
        whole: PyTree = traverse_util.unflatten_dict(flat, sep="/")
        return whole


def begins(path: str, name: str) -> bool:
    """Whether a parameter's path begins with this name, whole parts of it."""
    return path == name or path.startswith(name.rstrip("/") + "/")
