"""Who trains: each framework in the way that its documentation shows."""

from benchmarks.dpsgd.contenders import Contender

RPJAX = Contender("rpjax", "auto", "with_rpjax")
ENTRANTS = (
    RPJAX,
    Contender("Opacus", "hooks", "with_torch", "opacus"),
    Contender("jax-privacy", "xla", "with_jax_privacy", "jax-privacy"),
    Contender("TensorFlow Privacy", "DPModel", "with_tensorflow", "tensorflow-privacy"),
    Contender("Objax", "vmap", "with_objax", "objax"),
    Contender("Objax", "vmap, newest jax", "with_objax", "objax-newest"),
)
FRAMEWORKS = tuple(dict.fromkeys(one.library for one in ENTRANTS))
