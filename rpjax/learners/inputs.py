"""From stored pixels to what a net sees: normalise, clip, add noise, augment.

The order matters. By default the noise comes before the augmentation, so a noisy copy
that is kept for the whole training can be flipped and shifted at will without costing
anything more. The other order augments, clips and then adds noise, which has to be
fresh each time: kept noise on two views of a record would show their clean difference.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import Pixels, PRNGKey
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.learners.base import Batch, State
from rpjax.perturbations import noisy_input

Draw = Literal["step", "record"]
Order = Literal["noise_then_augment", "augment_then_noise"]


@dataclass(frozen=True)
class Inputs:
    """What is done to an image before the net.

    mean, std: pixels in [0, 1] become (pixel - mean) / std. They must be public: the
        default maps to [-1, 1] and knows nothing of the data.
    noise: standard deviation of the noise per pixel after that (paper: pi).
    bound: l2 norm to which images are clipped before the noise (paper: R); None keeps
        them, and the range of a pixel is then the bound.
    augmentation: of training images.
    constants_public: False where mean and std were computed from the training data.
    order: "noise_then_augment" clips, adds noise and augments the noisy image;
        "augment_then_noise" augments, clips and adds fresh noise. The first costs no
        privacy and allows noise that is kept; in the second `bound` alone limits what
        an augmented image can be.
    """

    mean: float = 0.5
    std: float = 0.5
    noise: float = 0.0
    bound: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    constants_public: bool = True
    order: Order = "noise_then_augment"

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"std is {self.std}; it must be > 0")
        if not 0 <= self.noise < float("inf"):
            raise InputError(f"input_noise is {self.noise}; it must be finite and >= 0")
        if self.bound is not None and not self.bound > 0:
            raise InputError(
                f"input_bound is {self.bound}; it must be > 0, or left out"
            )
        if self.order not in get_args(Order):
            known = " or ".join(map(repr, get_args(Order)))
            raise InputError(f"noise_order is {self.order!r}; it is {known}")

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Where normalised pixels lie, before the noise."""
        return ((0 - self.mean) / self.std, (1 - self.mean) / self.std)

    @property
    def augmented(self) -> Literal["none", "before_noise", "after_noise"]:
        """On which side of the noise images are augmented, if they are."""
        if not self.augmentation.changes:
            return "none"
        first = self.order == "augment_then_noise"
        return "before_noise" if first else "after_noise"

    def normalised(self, images: Array) -> Pixels:
        """Stored uint8 images as float32."""
        return (images.astype(jnp.float32) / 255 - self.mean) / self.std

    def training(
        self,
        key: PRNGKey,
        state: State,
        draw: Draw,
        batch: Batch,
        views: int | None = None,
    ) -> Array:
        """Training images of one step (b, h, w, c), from the run's root key.

        views: so many augmentations of each, (b, views, h, w, c).
        """
        noise = noise_keys(state, "input_noise", draw, batch.ids)
        key = rp_keys.at_step(rp_keys.domain(key, "augmentation"), state.step)
        own = rp_keys.per_record(key, batch.ids)
        if self.order == "augment_then_noise":
            return self._augmented_first(
                noise, own, self.normalised(batch.images), views
            )
        pixels = self.noisy(noise, batch.images)
        if views is None:
            return self.augmentation(own, pixels)
        return self.augmentation.views(own, pixels, views)

    def _augmented_first(
        self, noise: Array, own: Array, pixels: Array, views: int | None
    ) -> Array:
        """Augmented, then clipped, then noise of its own on each view."""
        if views is None:
            return noisy_input(
                noise, self.augmentation(own, pixels), self.noise, self.bound
            )

        def one(number: Array, view: Array) -> Array:
            keys = jax.vmap(lambda key: rp_keys.view(key, number))(noise)
            return noisy_input(keys, view, self.noise, self.bound)

        augmented = self.augmentation.views(own, pixels, views)
        return jax.vmap(one, (0, 1), 1)(jnp.arange(views), augmented)

    def noisy(self, keys: Array, images: Array) -> Pixels:
        """Normalised, clipped and perturbed images, one key a record."""
        return noisy_input(keys, self.normalised(images), self.noise, self.bound)

    def clean(self, images: Array) -> Pixels:
        """Normalised and clipped images without noise."""
        return noisy_input(None, self.normalised(images), 0.0, self.bound)


def noise_keys(state: State, name: str, draw: Draw, ids: Array) -> Array:
    """Each record's key for forward noise: fresh at every step, or kept for the run."""
    key = rp_keys.domain(rp_keys.from_secret(state.secret), name)
    if draw == "step":
        key = rp_keys.at_step(key, state.step)
    return rp_keys.per_record(key, ids)
