"""An image from the features of one block (Mahendran, Vedaldi, arXiv 1412.0035).

Threat: split inference. The first blocks run where the image is, the rest elsewhere;
the attacker sees what is sent, the noisy features, and knows the weights. The noise is
that of the forward pass and fresh in every answer, so an image that is sent several
times is seen through the mean of as many draws.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import Pixels, PRNGKey, PyTree, RecordIds, RecordKeys
from rpjax.attacks.reconstruction.descent import Descent, Reconstruction, descend
from rpjax.errors import InputError

FEATURES = Descent(rate=0.05, signed=False, restarts=1)
"""How `invert_features` searches: the cost is smooth, and one start does."""


def features(
    model: Any, params: PyTree, keys: RecordKeys | None, pixels: Pixels, layer: str
) -> Float[Array, "b oh ow o"]:
    """What `layer`, a part of the net such as "block0", gives for these images.

    keys: one a record for the noise of the blocks up to it; None for a net without.
    """
    named = {"capture_intermediates": lambda module, _: module.name == layer}
    _, seen = model.apply({"params": params}, keys, pixels, **named)
    found = seen.get("intermediates", {}).get(layer, {})
    if "__call__" not in found:
        known = ", ".join(sorted(params))
        raise InputError(f"layer is {layer!r}; the net has {known}")
    output: Array = found["__call__"][0]
    return output


def seen_features(
    model: Any,
    params: PyTree,
    key: PRNGKey,
    pixels: Pixels,
    ids: RecordIds,
    layer: str = "block0",
    draws: int = 1,
) -> Float[Array, "b oh ow o"]:
    """The mean of `draws` noisy features of each image, as often as it was sent.

    key: of the answers; every record and draw has a key of its own from it.
    """
    if draws < 1:
        raise InputError(f"draws is {draws}; it must be >= 1")
    if getattr(model, "perturbation", None) is None:
        return features(model, params, None, pixels, layer)
    key = rp_keys.domain(rp_keys.domain(key, "query"), "residual_noise")

    def drawn(number: Array) -> Array:
        own = rp_keys.per_record(rp_keys.view(key, number), ids)
        return features(model, params, own, pixels, layer)

    return jax.lax.map(drawn, jnp.arange(draws)).mean(0)


def invert_features(
    model: Any,
    params: PyTree,
    seen: Float[Array, "b h w c"],
    shape: tuple[int, int, int],
    key: PRNGKey,
    layer: str = "block0",
    settings: Descent = FEATURES,
) -> Reconstruction:
    """The images whose features, without noise, are nearest to the seen ones.

    ``|features - seen|^2 / |seen|^2 + total variation`` is minimised for each image by
    itself. After the first block that is the likeliest image under Strategy I; behind
    further blocks earlier noise is bent by them, and it is an approximation.

    seen: features (b, h, w, c), of `features` or `seen_features`.
    shape: (h, w, c) of an image.

    Returns images (b, h, w, c), normalised; costs (b,) and (b, restarts).
    """
    if hasattr(model, "perturbation"):
        model = model.clone(perturbation=None)
    blank = jax.ShapeDtypeStruct((len(seen), *shape), jnp.float32)
    made = jax.eval_shape(
        lambda params, pixels: features(model, params, None, pixels, layer),
        params,
        blank,
    )
    if made.shape != seen.shape:
        raise InputError(
            f"seen has shape {seen.shape}; {layer} of such images has {made.shape}"
        )
    total_variation = jnp.float32(settings.total_variation)
    settings = replace(settings, total_variation=0.0)
    fixed = (model, shape, layer, settings)
    found: Reconstruction = _inverted(fixed, params, seen, key, total_variation)
    return found._replace(images=found.images[:, 0])


@partial(jax.jit, static_argnums=0)
def _inverted(
    fixed: tuple[Any, tuple[int, int, int], str, Descent],
    params: PyTree,
    seen: Array,
    key: PRNGKey,
    total_variation: Array,
) -> Reconstruction:
    model, shape, layer, settings = fixed
    key = rp_keys.domain(key, "attack")

    def one(number: Array, target: Array) -> Reconstruction:
        size = jnp.maximum(jnp.sum(target**2), 1e-12)

        def cost(key: PRNGKey, images: Array) -> Array:
            del key  # nothing is drawn
            guess = features(model, params, None, images, layer)[0]
            return jnp.sum((guess - target) ** 2) / size

        own = jax.random.fold_in(key, number)
        return descend(cost, (1, *shape), own, settings, total_variation)

    found: Reconstruction = jax.vmap(one)(jnp.arange(len(seen)), seen)
    return found
