"""Who is compared: rpjax's engines and other libraries, each in the ways it has."""

from collections.abc import Sequence
from typing import NamedTuple


class Contender(NamedTuple):
    """One way of one library.

    module: of this package, which runs it; None where nothing is written that could.
    peer: in whose environment (`benchmarks.dpsgd.environments`); None is rpjax's own.
    """

    library: str
    way: str
    module: str | None
    peer: str | None = None

    def __str__(self) -> str:
        return f"{self.library}, {self.way}"


def _of(library: str, module: str, peer: str | None, *ways: str) -> list[Contender]:
    return [Contender(library, way, module, peer) for way in ways]


PLAIN = Contender("rpjax", "plain", "with_rpjax")
OTHERS = [
    *_of(
        *("jax-privacy", "with_jax_privacy", "jax-privacy"),
        *("xla", "im2col", "im2col, 16 at a time"),
    ),
    Contender("optax", "xla", "with_optax"),
    *_of("PyTorch", "with_torch", "opacus", "plain"),
    *_of("Opacus", "with_torch", "opacus", "hooks", "functorch", "ghost", "ew"),
    *_of(
        *("TensorFlow Privacy", "with_tensorflow", "tensorflow-privacy"),
        *("DPModel", "DPModel, XLA"),
    ),
    Contender("Objax", "vmap", "with_objax", "objax"),
    Contender("Objax", "vmap, newest jax", "with_objax", "objax-newest"),
    Contender("fastDP", "MixOpt", None, "fastdp"),
]
LIBRARIES = tuple(dict.fromkeys(one.library for one in OTHERS))


def contenders(engines: Sequence[str], libraries: Sequence[str]) -> list[Contender]:
    """rpjax's engines, and these libraries in each of their ways."""
    own = _of("rpjax", "with_rpjax", None, *engines)
    return own + [one for one in OTHERS if one.library in libraries]
