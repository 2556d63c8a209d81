"""The one step that touches private images: clip, add noise once, and never again.

A record's released vector is

    centre_y + clip_R(trunk(x) - centre_y) + pi n,    n ~ N(0, I) once per record,

with public trunk, centres and R. Replacing the record's image and keeping its label y
moves the clipped part by at most 2R, so everything computed from the released vectors
and the labels is mu-GDP with mu = 2R/pi (`rpjax.privacy.residual`, draw "record"). The
centre may depend on the label because the label is equal in both neighbours.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from rpjax import keys as rp_keys
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.features.trunk import Features, Trunk
from rpjax.perturbations import noisy_input
from rpjax.privacy import Guarantee, feature_guarantee
from rpjax.privacy.residual import input_noise_for
from rpjax.privacy.wording import NoiseSeed


@dataclass(frozen=True, eq=False)
class Released:
    """Noisy features, and all that a head may know. No clean feature is kept.

    features: float64 (n, d). labels: (n,), as they are.
    input_noise: standard deviation of the noise per entry (paper: pi); 0 for none, and
        then nothing was clipped either.
    delta: at which the noise was calibrated.
    """

    features: Any = field(repr=False)
    labels: Any = field(repr=False)
    classes: int
    trunk: Trunk
    input_noise: float
    delta: float
    noise_seed: NoiseSeed

    @property
    def deviations(self) -> Features:
        """Noisy features less their public centre."""
        own: Features = self.features - self.trunk.centre_of(self.labels)
        return own

    def guarantee(self, delta: float | None = None) -> Guarantee:
        """What is proved of everything computed from this, for which neighbours."""
        return feature_guarantee(
            input_noise=self.input_noise,
            delta=self.delta if delta is None else delta,
            participations=1,
            bound=self.trunk.bound,
            bound_enforced=True,
            constants_public=True,
            releases_clean_statistics=False,
            draw="record",
            noise_seed=self.noise_seed,
        )


def release(
    trunk: Trunk,
    records: Records,
    *,
    epsilon: float,
    delta: float = 1e-5,
    seed: int | None = None,
) -> Released:
    """Noisy features of private records, as many as there are, each once.

    epsilon: at `delta`, for replacing one record's image, its label kept; infinite for
        clean and unclipped features, with no guarantee.
    seed: of the noise, to repeat a run; whoever knows it can take the noise off. None
        draws 256 secret bits from the operating system and keeps them nowhere.

    Two releases of the same records compose (`rpjax.privacy.compose`); two with the
    same seed and different trunks guarantee nothing together.

    Raises:
        InputError: a record that the trunk was fitted on, an id given twice, an epsilon
            or delta that cannot be.
    """
    return next(releases(trunk, records, ((epsilon, seed),), delta=delta))


def releases(
    trunk: Trunk,
    records: Records,
    settings: Sequence[tuple[float, int | None]],
    *,
    delta: float = 1e-5,
) -> Iterator[Released]:
    """A `release` for each (epsilon, seed): to compare them, not to publish several.

    Each one's guarantee is for it alone; the trunk is asked once.
    """
    trunk.check_unseen(records)
    if len(np.unique(records.ids)) < len(records):
        raise InputError("records holds an id twice; give every record its own")
    noises = [_noise(trunk.bound, epsilon, delta) for epsilon, _ in settings]
    labels = np.asarray(records.labels)
    centres = trunk.centre_of(labels)
    deviations = trunk(records.images) - centres
    for noise, (_, seed) in zip(noises, settings, strict=True):
        kept = deviations
        if noise > 0:
            kept = noisy(deviations, records.ids, trunk.bound, noise, seed)
        yield Released(
            features=centres + kept,
            labels=labels,
            classes=max(int(labels.max()) + 1, len(trunk.centres)),
            trunk=trunk,
            input_noise=noise,
            delta=delta,
            noise_seed="secret" if seed is None else "fixed",
        )


def noisy(
    deviations: Features,
    ids: Int[np.ndarray, " n"],
    bound: float,
    noise: float,
    seed: int | None = None,
) -> Features:
    """``clip_bound(v) + noise n`` for every row, each with the key of its id."""
    if seed is None:
        secret = jnp.asarray(rp_keys.fresh_secret())
    else:
        secret = rp_keys.fixed_secret(rp_keys.root(seed))
    key = rp_keys.domain(rp_keys.from_secret(secret), "input_noise")
    rows = jnp.asarray(deviations, jnp.float32)[:, None, None, :]
    released = _noisy(rp_keys.per_record(key, jnp.asarray(ids)), rows, noise, bound)
    found: Float[np.ndarray, "n d"] = np.asarray(released[:, 0, 0], np.float64)
    return found


_noisy = jax.jit(noisy_input, static_argnums=(2, 3))


def _noise(bound: float, epsilon: float, delta: float) -> float:
    if epsilon == math.inf:
        return 0.0
    return input_noise_for(epsilon, delta, bound=bound, draw="record")
