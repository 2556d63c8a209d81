"""Random flips and crops on the device, each record with its own key."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax.annotations import Pixels, PRNGKey, RecordKeys
from rpjax.errors import InputError
from rpjax.keys import view


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, anew in each step.

    crop: pad with zeros by so many pixels on each side, then cut out a random window of
        the original size; 0 leaves the image where it is.
    flip: mirror left and right with probability one half (not for digits).
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise InputError(f"crop is {self.crop}; it must be >= 0 pixels")

    def __call__(self, keys: RecordKeys, images: Pixels) -> Pixels:
        """Augmented images, (b, h, w, c) as given."""
        if not (self.crop or self.flip):
            return images
        return jax.vmap(self._one)(keys, images)

    def views(
        self, keys: RecordKeys, images: Pixels, count: int
    ) -> Float[Array, "b views h w c"]:
        """`count` independent augmentations of each image; one is that of a call."""
        if count == 1:
            return self(keys, images)[:, None]

        def one(number: Array) -> Array:
            own = jax.vmap(lambda key: view(key, number))(keys)
            return self(own, images)

        return jax.vmap(one, out_axes=1)(jnp.arange(count))

    def _one(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        crop_key, flip_key = jax.random.split(key)
        if self.crop:
            edges = ((self.crop, self.crop), (self.crop, self.crop), (0, 0))
            offset = jax.random.randint(crop_key, (2,), 0, 2 * self.crop + 1)
            image = jax.lax.dynamic_slice(
                jnp.pad(image, edges), (*offset, 0), image.shape
            )
        if self.flip:
            mirrored = jax.random.bernoulli(flip_key)
            image = jnp.where(mirrored, image[:, ::-1], image)
        return image
