"""DP-SGD beside the noisy features: a linear head on clean ones, and a whole net.

Its epsilon is for adding or removing one record, label included, and trusts whoever
holds the clean features: another promise than that of the noisy ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rpjax as rp
from rpjax.dpsgd import PoissonBatches, clipped_grad, gaussian_noise, is_padding_example
from rpjax.privacy import dpsgd as accounting

ADJACENCY = "add or remove one record"
LINEAR_BATCH, LINEAR_RATE = 1024, 8.0
NET_BATCH, NET_RATE, AVERAGE = 512, 4.0, 0.97


def linear_head(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    delta: float,
    steps: int,
    bound: float,
) -> tuple[np.ndarray, float]:
    """Which test records a linear head gets right, and the noise multiplier.

    train, test: features and labels, here divided by the trunk's public bound. Softmax
    regression, gradients clipped to norm 1, noise from fresh secret bits.
    """
    records, classes = len(train[1]), int(train[1].max()) + 1
    x, y = jnp.asarray(train[0] / bound, jnp.float32), jnp.asarray(train[1])
    batch = min(LINEAR_BATCH, records)
    batches = PoissonBatches(records=records, batch_size=batch, steps=steps)
    multiplier = accounting.noise_multiplier_for(
        epsilon, delta, batch / records, steps, truncation=batches.truncation
    )

    def loss(params: Any, features: Any, labels: Any) -> Any:
        logits = features @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = clipped_grad(loss, clip_norm=1.0, batch_argnums=(1, 2))
    tx = optax.chain(
        gaussian_noise(multiplier * gradient.sensitivity("add_remove")),
        optax.scale(1 / batch),
        optax.sgd(optax.cosine_decay_schedule(LINEAR_RATE, steps)),
    )

    @jax.jit
    def step(params: Any, state: Any, indices: Any) -> Any:
        empty = is_padding_example(indices)
        total = gradient(params, x[indices], y[indices], is_padding_example=empty)
        updates, state = tx.update(total, state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
    state = tx.init(params)
    for indices in batches.batch_iterator(records):
        params, state = step(params, state, jnp.asarray(indices))
    answers = test[0] / bound @ np.asarray(params["kernel"]) + np.asarray(
        params["bias"]
    )
    return answers.argmax(1) == test[1], multiplier


def whole_net(
    data: rp.Dataset, epsilon: float, delta: float, steps: int
) -> tuple[np.ndarray, float]:
    """Which test records a net gets right that DP-SGD trained from nothing.

    The net and the settings of the recipe `mnist-eps3`, one view a record.
    """
    records = len(data.train)
    batch = min(NET_BATCH, records)
    slots = PoissonBatches(records=records, batch_size=batch, steps=steps)
    multiplier = accounting.noise_multiplier_for(
        epsilon, delta, batch / records, steps, truncation=slots.truncation
    )
    model = rp.models.wide_resnet(
        10,
        1,
        data.classes,
        stem="imagenet",
        groups=16,
        norm_last=True,
        shortcut="own",
        standardise=True,
    )
    learner = rp.dpsgd(
        model,
        rp.averaged(optax.sgd(NET_RATE), [AVERAGE]),
        clip_norm=1.0,
        noise_multiplier=multiplier,
        batch_size=batch,
        clipping="normalised",
    )
    run = rp.fit(learner, data.train, steps=steps, batch_size=batch)
    stated = run.guarantee(delta).epsilon
    if stated is None or stated > epsilon * (1 + 1e-6):
        raise ValueError(f"the net's epsilon is {stated}, above {epsilon}")
    answers = run.averaged(AVERAGE).answers(data.test)
    return answers.argmax(-1) == data.test.labels, multiplier
