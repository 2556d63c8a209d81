"""Random flips, crops and resized parts on the device, each record by its own key."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax.annotations import Pixels, PRNGKey, RecordKeys
from rpjax.data.boxes import Range, random_box, resized
from rpjax.errors import InputError
from rpjax.keys import view

Padding = Literal["zeros", "symmetric"]
# what numpy calls them
_MODES = {"zeros": "constant", "symmetric": "symmetric"}


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, anew in each step.

    crop: pad by so many pixels on each side, then cut out a random window of the
        original size; 0 leaves the image where it is.
    flip: mirror left and right with probability one half (not for digits).
    padding: what lies outside: "zeros", which is mid-grey where pixels were mapped to
        [-1, 1]; or "symmetric", the image mirrored with its outermost row (De et al.,
        arXiv 2204.13650).
    resized_crop: least and largest share of the image's area, such as (0.08, 1) for
        ImageNet: a random part of the image is cut out and resized to the whole, in
        place of `crop`; None keeps the image.
    aspect: least and largest width over height of that part.
    """

    crop: int = 0
    flip: bool = False
    padding: Padding = "zeros"
    resized_crop: Range | None = None
    aspect: Range = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise InputError(f"crop is {self.crop}; it must be >= 0 pixels")
        if self.padding not in _MODES:
            known = " or ".join(map(repr, get_args(Padding)))
            raise InputError(f"padding is {self.padding!r}; it is {known}")
        low, high = self.resized_crop or (1, 1)
        if not 0 < low <= high <= 1:
            raise InputError(
                f"resized_crop is ({low:g}, {high:g}); it must be two shares of the "
                "image, above 0, at most 1 and the smaller one first"
            )
        if self.resized_crop and self.crop:
            raise InputError(
                f"crop is {self.crop} and resized_crop ({low:g}, {high:g}); give one"
            )
        low, high = self.aspect
        if not 0 < low <= high < float("inf"):
            raise InputError(
                f"aspect is ({low:g}, {high:g}); it must be two ratios above 0, the "
                "smaller one first"
            )

    @property
    def changes(self) -> bool:
        """Whether anything is done to images at all."""
        return bool(self.crop or self.flip or self.resized_crop)

    def __call__(self, keys: RecordKeys, images: Pixels) -> Pixels:
        """Augmented images, (b, h, w, c) as given."""
        if not self.changes:
            return images
        return jax.vmap(self._one)(keys, images)

    def views(
        self, keys: RecordKeys, images: Pixels, count: int
    ) -> Float[Array, "b views h w c"]:
        """So many independent augmentations of each image.

        View i comes from the record's key with i folded in; a single view from the key
        itself, so that it is what calling this object gives.
        """
        if count < 1:
            raise InputError(f"count is {count}; it must be >= 1 view")
        if count == 1:
            return self(keys, images)[:, None]

        def one(number: Array) -> Pixels:
            return self(jax.vmap(lambda key: view(key, number))(keys), images)

        return jax.vmap(one, out_axes=1)(jnp.arange(count))

    def _one(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        crop_key, flip_key = jax.random.split(key)
        if self.crop:
            edges = ((self.crop, self.crop), (self.crop, self.crop), (0, 0))
            offset = jax.random.randint(crop_key, (2,), 0, 2 * self.crop + 1)
            padded = jnp.pad(image, edges, _MODES[self.padding])
            image = jax.lax.dynamic_slice(padded, (*offset, 0), image.shape)
        if self.resized_crop:
            box = random_box(crop_key, image.shape[:2], self.resized_crop, self.aspect)
            image = resized(image, box)
        if self.flip:
            mirrored = jax.random.bernoulli(flip_key)
            image = jnp.where(mirrored, image[:, ::-1], image)
        return image
