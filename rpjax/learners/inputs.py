"""From stored pixels to what a net sees: normalise, clip, add noise, augment.

The order matters. The noise comes before the augmentation, so a noisy copy that is kept
for the whole training can be flipped and shifted at will without costing anything more;
noise redrawn on top of a shifted image would, if kept, reveal the shift's difference.
"""

from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import Pixels, PRNGKey
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.learners.base import Batch, State
from rpjax.perturbations import noisy_input

Draw = Literal["step", "record"]


@dataclass(frozen=True)
class Inputs:
    """What is done to an image before the net.

    mean, std: pixels in [0, 1] become (pixel - mean) / std. They must be public: the
        default maps to [-1, 1] and knows nothing of the data.
    noise: standard deviation of the noise per pixel after that (paper: pi).
    bound: l2 norm to which images are clipped before the noise (paper: R); None keeps
        them, and the range of a pixel is then the bound.
    augmentation: of training images, after the noise.
    constants_public: False where mean and std were computed from the training data.
    """

    mean: float = 0.5
    std: float = 0.5
    noise: float = 0.0
    bound: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    constants_public: bool = True

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"std is {self.std}; it must be > 0")
        if not 0 <= self.noise < float("inf"):
            raise InputError(f"input_noise is {self.noise}; it must be finite and >= 0")
        if self.bound is not None and not self.bound > 0:
            raise InputError(
                f"input_bound is {self.bound}; it must be > 0, or left out"
            )

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Where normalised pixels lie, before the noise."""
        return ((0 - self.mean) / self.std, (1 - self.mean) / self.std)

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
        pixels = self.noisy(
            noise_keys(state, "input_noise", draw, batch.ids), batch.images
        )
        key = rp_keys.at_step(rp_keys.domain(key, "augmentation"), state.step)
        own = rp_keys.per_record(key, batch.ids)
        if views is None:
            return self.augmentation(own, pixels)
        return self.augmentation.views(own, pixels, views)

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
