"""A trunk that has learnt the classes: a small net trained on public drawings.

scikit-learn's 1,797 digits of 8 x 8 pixels, each drawn again a hundred times
(`drawings.deformed`), train a convolutional net in minutes; its last hidden layer, in
the few directions that tell the public classes apart and some more, is the trunk.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import Logits, Pixels, PyTree
from rpjax.data import load
from rpjax.data.records import Records, numbered
from rpjax.errors import InputError
from rpjax.features.directions import Projection, discriminant
from rpjax.features.drawings import magnified, redrawn
from rpjax.features.framing import framed
from rpjax.features.trunk import Sample, Trunk, digests, in_batches
from rpjax.learners import supervised
from rpjax.models.conv import Convolution, convolution
from rpjax.training import fit

BATCH = 128
DRAWS = 100
"""Drawings of each image that the net is trained on."""
SAMPLE_DRAWS = 20
"""Further drawings of each image, whose features are the public sample."""
RIDGE = 1e-2
LEARNING_RATE = 2e-3


class DrawnNet(nn.Module):
    """Three convolutions and a hidden layer on framed figures.

    classes: of the head; hidden: features before it. convolution: how they are
        computed, see `rpjax.models.conv`.
    """

    classes: int
    hidden: int = 128
    convolution: Convolution = "auto"

    def setup(self) -> None:
        """The layers, so that the hidden ones can be asked by themselves."""
        conv = partial(nn.Conv, conv_general_dilated=convolution(self.convolution))
        self.convolutions = [
            conv(32, (5, 5), (2, 2)),
            conv(64, (3, 3)),
            conv(64, (3, 3), (2, 2)),
        ]
        self.dense = nn.Dense(self.hidden)
        self.head = nn.Dense(self.classes)

    def __call__(self, keys: Any, pixels: Pixels, train: bool = False) -> Logits:
        """Logits of framed figures (b, h, w, 1) in [-1, 1]; keys are not read."""
        return self.head(self.features(pixels))

    def features(self, pixels: Pixels) -> Float[Array, "b d"]:
        """What the head sees."""
        x = pixels
        for layer in self.convolutions:
            x = nn.relu(layer(x))
        return nn.relu(self.dense(x.reshape(len(x), -1)))


def digits_trunk(seed: int = 0, **options: Any) -> Trunk:
    """The trunk of scikit-learn's digits; `options` as for `drawn_trunk`."""
    data = load("digits")
    images = np.concatenate([data.train.images[:], data.test.images[:]])
    labels = np.concatenate([data.train.labels, data.test.labels])
    return drawn_trunk(numbered(images, labels), seed, name="digits", **options)


def drawn_trunk(
    public: Records,
    seed: int = 0,
    *,
    name: str = "drawn",
    dimension: int = 100,
    steps: int = 1500,
    draws: int = DRAWS,
    sample_draws: int = SAMPLE_DRAWS,
) -> Trunk:
    """A trunk for drawn figures from small public drawings with the same classes.

    public: grey images, bright on dark. dimension: of the features; the noise grows
    with it and so does what a head can see. steps: of 128 drawings each.
    The bound is the median distance of a public feature vector from its class's mean.
    """
    key = rp_keys.domain(rp_keys.root(seed), "augmentation")
    figures = magnified(np.asarray(public.images[:]))
    by_training, by_sample = jax.random.split(key)
    params = _trained(
        numbered(redrawn(figures, draws, by_training), np.tile(public.labels, draws)),
        steps,
        seed,
    )
    net = DrawnNet(int(public.labels.max()) + 1)

    def hidden(pixels: Array) -> Array:
        variables = {"params": params}
        return net.apply(variables, 2 * pixels - 1, method=DrawnNet.features)

    drawn = redrawn(figures, sample_draws, by_sample)
    labels = np.tile(np.asarray(public.labels), sample_draws)
    raw = in_batches(jax.jit(lambda x: hidden(x.astype(jnp.float32) / 255)), drawn)
    projection = discriminant(raw, labels, dimension, RIDGE)
    return _around(
        Sample(projection(raw), labels),
        name=name,
        source=f"a net trained for {steps} steps on {len(public)} public drawings",
        features=_compiled(hidden, projection),
        seen=digests(public.images),
    )


def narrowed(trunk: Trunk, dimension: int) -> Trunk:
    """The first so many directions of a drawn trunk, as if it had been made with them.

    Raises:
        InputError: a trunk without a sample, or fewer directions than that.
    """
    if trunk.sample is None or not 1 <= dimension <= trunk.dimension:
        raise InputError(
            f"dimension is {dimension}; a drawn trunk has some, and this one has "
            f"{trunk.dimension}"
        )
    return _around(
        Sample(trunk.sample.features[:, :dimension], trunk.sample.labels),
        name=trunk.name,
        source=trunk.source,
        features=jax.jit(lambda images: trunk.features(images)[:, :dimension]),
        seen=trunk.seen,
    )


def _around(sample: Sample, **fields: Any) -> Trunk:
    """A trunk with the constants that its sample gives; see `drawn_trunk`."""
    own = sample.features - sample.centres[sample.labels]
    return Trunk(
        centres=sample.centres,
        bound=float(np.median(np.linalg.norm(own, axis=1))),
        spread=np.atleast_2d(np.cov(own.T)),
        sample=sample,
        **fields,
    )


def _trained(drawn: Records, steps: int, seed: int) -> PyTree:
    """The net's parameters after so many steps on framed drawings."""
    tx = optax.adamw(
        optax.cosine_onecycle_schedule(steps, LEARNING_RATE), weight_decay=1e-3
    )
    learner = supervised(DrawnNet(int(drawn.labels.max()) + 1), tx)
    return fit(learner, drawn, steps=steps, batch_size=BATCH, seed=seed).state.params


def _compiled(hidden: Any, projection: Projection) -> Any:
    origin = jnp.asarray(projection.origin, jnp.float32)[None]
    matrix = jnp.asarray(projection.matrix, jnp.float32)

    @jax.jit
    def features(images: Array) -> Array:
        figures = jax.vmap(framed)(images[..., 0].astype(jnp.float32) / 255)
        return (hidden(figures[..., None]) - origin) @ matrix

    return features
