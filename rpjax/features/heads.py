"""Heads that know the noise: trained on clean features made from noisy ones.

At test time features are clean, so a head that was fitted to noisy ones would be fitted
to the wrong law. Instead the noisy features are asked for the moments of each class
(`estimates.moments`), and these make clean stand-ins, to be trained on at will:

- with a trunk that knows the classes, its public features, each class moved to where
  the private one lies (so a head without any private shift is the zero-shot one);
- else draws from a Gaussian of each class.

All of it is post-processing of the released features.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from rpjax import intervals
from rpjax import keys as rp_keys
from rpjax.annotations import PyTree
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.features.estimates import moments
from rpjax.features.releasing import Released
from rpjax.features.trunk import Features, Sample, Trunk

Kind = Literal["linear", "mlp"]

HIDDEN = 128
STEPS = 1500
BATCH = 512
LEARNING_RATE = 0.01
# of the squared weights; found on MNIST
DECAY = {"linear": 3e-3, "mlp": 1e-2}
DRAWS = 2000
"""Stand-ins of each class where the trunk has no sample."""


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier of images: the public trunk and what was trained on its features."""

    trunk: Trunk
    kind: Kind
    classes: int
    params: Any = field(repr=False)
    scale: float

    def logits(self, images: Any) -> Float[np.ndarray, "n k"]:
        """Of stored images (n, h, w, c), through clean features."""
        return self.of_features(self.trunk(images))

    def of_features(self, features: Features) -> Float[np.ndarray, "n k"]:
        """Logits of clean features (n, d)."""
        module = network(self.kind, self.classes)
        inputs = jnp.asarray(features / self.scale, jnp.float32)
        return np.asarray(module.apply({"params": self.params}, inputs))

    def evaluate(self, records: Records) -> intervals.Estimate:
        """Accuracy with its exact 95 % interval."""
        hits = self.logits(records.images).argmax(1) == records.labels
        return intervals.clopper_pearson(int(hits.sum()), hits.size)


def fit_head(
    released: Released, kind: Kind = "linear", *, steps: int = STEPS, seed: int = 0
) -> Head:
    """A noise-aware head from released features: post-processing, so free.

    kind: "linear" (softmax regression) or "mlp" (one hidden layer of 128).
    seed: of the start, the stand-ins and the order of batches; not of the noise.
    """
    return trained(released.trunk, stand_ins(released, seed), kind, steps, seed)


def zero_shot(
    trunk: Trunk, kind: Kind = "linear", *, steps: int = STEPS, seed: int = 0
) -> Head:
    """The head of a trunk's own public sample: what is known without private data."""
    if trunk.sample is None:
        raise InputError(f"trunk {trunk.name!r} knows no classes: it has no zero shot")
    return trained(trunk, trunk.sample, kind, steps, seed)


def stand_ins(released: Released, seed: int = 0) -> Sample:
    """Clean labelled features from the posterior predictive law of the private ones.

    Each has its own draw of what is uncertain in its class's mean, so that a direction
    counts for less where the noise has hidden it.
    """
    if released.input_noise == 0:
        return Sample(released.features, released.labels)
    told, sample = moments(released), released.trunk.sample
    rng = np.random.default_rng(seed)
    if sample is not None:
        labels, base = sample.labels, sample.features + told.shifts[sample.labels]
    else:
        labels = np.repeat(np.arange(released.classes), DRAWS)
        root = np.linalg.cholesky(told.covariance)
        normals = rng.standard_normal((len(labels), len(root)))
        base = told.means[labels] + normals @ root.T
    doubt = np.sqrt(told.uncertainty[labels]) * rng.standard_normal(base.shape)
    features = base + doubt
    if sample is None:  # its features lie in the ball, see `filters`
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        features *= np.minimum(1.0, released.trunk.bound / np.maximum(norms, 1e-12))
    return Sample(features, labels)


def trained(trunk: Trunk, sample: Sample, kind: Kind, steps: int, seed: int) -> Head:
    """A head trained on clean features."""
    if kind not in DECAY:
        raise InputError(f"kind is {kind!r}; it must be 'linear' or 'mlp'")
    scale = float(np.sqrt((sample.features**2).mean()))
    classes = int(sample.labels.max()) + 1
    params = _train(
        kind,
        classes,
        steps,
        rp_keys.domain(rp_keys.root(seed), "init"),
        jnp.asarray(sample.features / scale, jnp.float32),
        jnp.asarray(sample.labels, jnp.int32),
    )
    return Head(trunk, kind, classes, params, scale)


def network(kind: Kind, classes: int) -> nn.Module:
    """Features (b, d) -> logits (b, classes)."""
    hidden = [nn.Dense(HIDDEN), nn.relu] if kind == "mlp" else []
    layers: list[Callable[..., Any]] = [*hidden, nn.Dense(classes)]
    return nn.Sequential(layers)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _train(
    kind: Kind,
    classes: int,
    steps: int,
    key: Array,
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
) -> PyTree:
    """Mean cross-entropy plus decay of the kernels, by Adam with a falling rate."""
    module = network(kind, classes)
    tx = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    by_init, by_order = jax.random.split(key)
    params = module.init(by_init, features[:1])["params"]

    def loss(params: PyTree, at: Array) -> Array:
        logits = module.apply({"params": params}, features[at])
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, labels[at])
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        return fit.mean() + DECAY[kind] / 2 * sum(jnp.sum(w**2) for w in kernels)

    def step(carry: PyTree, number: Array) -> tuple[PyTree, None]:
        params, state = carry
        draw = jax.random.fold_in(by_order, number)
        at = jax.random.randint(draw, (BATCH,), 0, len(labels))
        updates, state = tx.update(jax.grad(loss)(params, at), state)
        return (optax.apply_updates(params, updates), state), None

    start = (params, tx.init(params))
    return jax.lax.scan(step, start, jnp.arange(steps))[0][0]
