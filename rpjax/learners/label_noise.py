"""Labels by randomised response: drawn once for each record, learned from all the same.

The guarantee is `rpjax.privacy.labels`. The draw comes from the run's secret and the
record's id, so that it is the same in every step: nothing is spent by training longer.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rpjax.annotations import PRNGKey
from rpjax.learners.base import Batch, State
from rpjax.learners.inputs import noise_keys
from rpjax.privacy.labels import keep_probability


@dataclass(frozen=True)
class LabelNoise:
    """K-ary randomised response on the labels of training.

    epsilon: of pure differential privacy for one record's label.
    classes: K, two or more.

    A label is kept with probability p = e^epsilon / (e^epsilon + K - 1), rounded down
    to a multiple of 2^-32, and otherwise one of the others, each as likely.
    """

    epsilon: float
    classes: int

    def __post_init__(self) -> None:
        keep_probability(self.epsilon, self.classes)

    @property
    def keep(self) -> float:
        """Probability p that a label stays as it is."""
        return keep_probability(self.epsilon, self.classes)

    def reported(self, state: State, batch: Batch) -> Batch:
        """The batch with the labels that training sees."""
        keys = noise_keys(state, "label_noise", "record", batch.ids)
        return batch._replace(labels=jax.vmap(self._one)(keys, batch.labels))

    def losses(
        self, logits: Float[Array, "b k"], labels: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        """Minus log of the probability that the net gives to a reported label.

        With q = (1 - p) / (K - 1) for each other class that is q + (p - q) times the
        softmax of the label: the forward correction of Patrini et al., arXiv
        1609.03683. Its minimum is the law of the true labels.
        """
        other = (1 - self.keep) / (self.classes - 1)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
        return -jnp.logaddexp(_log(other), _log(self.keep - other) + own)

    def _one(self, key: PRNGKey, label: Int[Array, ""]) -> Int[Array, ""]:
        coin_key, class_key = jax.random.split(key)
        coin = jax.random.bits(coin_key, (), jnp.uint32)
        kept = coin < jnp.uint32(min(math.floor(self.keep * 2**32), 2**32 - 1))
        # the others, numbered without the label itself
        drawn = jax.random.randint(class_key, (), 0, self.classes - 1)
        other = drawn + (drawn >= label)
        return jnp.where(kept, label, other).astype(label.dtype)


def _log(value: float) -> float:
    # at epsilon 0 the two probabilities are equal, but for rounding
    return math.log(value) if value > 0 else -math.inf
