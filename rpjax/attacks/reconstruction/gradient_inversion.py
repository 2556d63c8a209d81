"""The images of a step from its gradient (Geiping et al., arXiv 2003.14053)."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey, PyTree
from rpjax.attacks.reconstruction.descent import Descent, Reconstruction, descend
from rpjax.attacks.reconstruction.observed import Imitation
from rpjax.errors import InputError


def invert_gradient(
    imitation: Imitation,
    params: PyTree,
    observed: PyTree,
    shape: tuple[int, int, int],
    key: PRNGKey,
    labels: Array | None = None,
    noise: Array | None = None,
    settings: Descent | None = None,
) -> Reconstruction:
    """The batch whose gradient points where the observed one does.

    ``1 - cos(observed, gradient of the guess) + total variation`` is minimised over the
    images, all of the batch together; their order is not to be had (`matched`).

    imitation: what the attacker knows of the step.
    params: before the step.
    observed: the gradient (`released_gradient`), a tree like `params`.
    shape: (h, w, c) of an image.
    labels: (b,) of the batch; None is a batch of one record, whose label the last bias
        shows (`rpjax.attacks.gradients.label`).
    noise: keys (b,) of the step's residual noise, for an attacker who knows them; None
        takes the expectation over fresh draws.

    Returns images (b, h, w, c) as the net reads them, normalised.

    Raises:
        InputError: trees that do not fit, labels that cannot be read, keys for a net
            without noise.
    """
    lead = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
    found = invert_gradients(
        imitation,
        params,
        lead(observed),
        shape,
        key,
        None if labels is None else lead(labels),
        None if noise is None else noise[None],
        settings,
    )
    return Reconstruction(*(leaf[0] for leaf in found))


def invert_gradients(
    imitation: Imitation,
    params: PyTree,
    observed: PyTree,
    shape: tuple[int, int, int],
    key: PRNGKey,
    labels: Array | None = None,
    noise: Array | None = None,
    settings: Descent | None = None,
) -> Reconstruction:
    """`invert_gradient` of many steps from the same parameters, side by side.

    observed, labels, noise and the results have a leading axis s, one entry a step.
    """
    settings = settings or Descent()
    _check(imitation, params, observed, noise)
    labels = read_labels(observed)[:, None] if labels is None else labels
    # weights of the total variation can be tried without compiling anew
    total_variation = jnp.float32(settings.total_variation)
    settings = replace(settings, total_variation=0.0)
    fixed = (imitation, (jnp.shape(labels)[1], *shape), settings)
    found: Reconstruction = _inverted(
        fixed, params, observed, labels, noise, key, total_variation
    )
    return found


def read_labels(observed: PyTree) -> Array:
    """The label (s,) of each step on one record, from gradients by the last bias."""
    try:
        bias = observed["head"]["bias"]
    except (KeyError, TypeError) as error:
        raise InputError(
            "labels are not given, and there is no gradient by head/bias to read them "
            "from; give labels"
        ) from error
    return jnp.argmin(jnp.asarray(bias), -1).astype(jnp.int32)


@partial(jax.jit, static_argnums=0)
def _inverted(
    fixed: tuple[Imitation, tuple[int, ...], Descent],
    params: PyTree,
    observed: PyTree,
    labels: Array,
    noise: Array | None,
    key: PRNGKey,
    total_variation: Array,
) -> Reconstruction:
    imitation, shape, settings = fixed
    key = rp_keys.domain(key, "attack")

    def one(
        number: Array, seen: PyTree, labels: Array, noise: Array | None
    ) -> Reconstruction:
        def cost(key: PRNGKey, images: Array) -> Array:
            if noise is None:
                guess = imitation.expected(params, key, images, labels)
            else:
                guess = imitation.gradient(params, noise, images, labels)
            return cosine_distance(guess, seen)

        own = jax.random.fold_in(key, number)
        return descend(cost, shape, own, settings, total_variation)

    axes = (0, 0, 0, None if noise is None else 0)
    found: Reconstruction = jax.vmap(one, axes)(
        jnp.arange(len(labels)), observed, labels, noise
    )
    return found


def cosine_distance(one: PyTree, other: PyTree) -> Array:
    """``1 - <one, other> / (|one| |other|)`` over all leaves: 0 if parallel.

    A gradient of zero, as of a record that a trained net is sure of, has no direction:
    its distance to any other is 1.
    """
    one, other = _unit(one), _unit(other)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return 1 - sum((jnp.vdot(a, b) for a, b in pairs), jnp.zeros(()))


def _unit(tree: PyTree) -> PyTree:
    """Of length 1, unless it is shorter than 1e-10."""
    square = sum((jnp.vdot(a, a) for a in jax.tree.leaves(tree)), jnp.zeros(()))
    # each by itself: the product of two small squares is no float32, and the root of
    # zero has no derivative
    scale = 1 / jnp.sqrt(jnp.maximum(square, 1e-20))
    return jax.tree.map(lambda leaf: leaf * scale, tree)


def _check(
    imitation: Imitation, params: PyTree, observed: PyTree, noise: Array | None
) -> None:
    shapes = lambda tree: jax.tree.map(lambda leaf: jnp.shape(leaf)[-1:], tree)
    if jax.tree.structure(params) != jax.tree.structure(observed) or shapes(
        params
    ) != shapes(observed):
        raise InputError(
            "observed is no tree like params; give the gradient by all parameters"
        )
    if noise is not None and not imitation.noisy:
        raise InputError("noise is given, but the imitated net draws none")
