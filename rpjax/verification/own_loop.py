"""For a loop of one's own: whether a loss keeps the records of a batch apart."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.errors import InputError
from rpjax.gradients import clipped_grad
from rpjax.verification.contributions import WHY
from rpjax.verification.probe import Vector, flat
from rpjax.verification.verdict import Finding, Verdict

HUGE = 1e30


def check_isolation(
    loss: Callable[..., Any],
    params: PyTree,
    *args: Any,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    has_aux: bool = False,
    tolerance: float = 1e-3,
) -> Verdict:
    """Whether a loss of a batch is a sum or a mean of its records' own losses.

    `rpjax.gradients.clipped_grad` asks a loss for one record at a time. If the loss of
    a batch is something else than the mean or the sum of those (BatchNorm in train
    mode, weights or maxima over the batch), what it trains is not what `jax.grad`
    would; and a per-example gradient taken in any other way is not one record's.

    loss, batch_argnums, keep_batch_dim, has_aux: as for `clipped_grad`; the loss must
        also take the whole batch at once.
    params, args: at which to try it; two records at least, all different.
    tolerance: of the gradients' difference, relative to their length.

    Two findings: the batch's gradient is the records' mean or sum; and a record that is
    marked as padding moves `clipped_grad`'s sum by exactly nothing.

    >>> mean_square = lambda w, x: jnp.mean((x - w) ** 2)
    >>> check_isolation(mean_square, 1.0, jnp.array([0.0, 2.0, 5.0])).ok
    True
    >>> centred = lambda w, x: jnp.mean((w * (x - x.mean())) ** 2)
    >>> check_isolation(centred, 1.0, jnp.array([0.0, 2.0, 5.0])).ok
    False
    """
    numbers = (batch_argnums,) if isinstance(batch_argnums, int) else batch_argnums
    params = jax.tree.map(jnp.asarray, params)
    records = {n: jax.tree.map(jnp.asarray, args[n - 1]) for n in numbers}
    count = len(jax.tree.leaves(records)[0])
    if count < 2:
        raise InputError(f"the batch holds {count} records; give 2 at least")
    by_example = clipped_grad(
        loss,
        HUGE,
        batch_argnums=batch_argnums,
        keep_batch_dim=keep_batch_dim,
        has_aux=has_aux,
    )
    given = lambda records: (records.get(n, arg) for n, arg in enumerate(args, 1))
    vector = lambda found: flat(found[0] if has_aux else found)

    @jax.jit
    def whole(params: PyTree, records: PyTree) -> Array:
        return vector(jax.grad(loss, has_aux=has_aux)(params, *given(records)))

    @jax.jit
    def total(params: PyTree, records: PyTree, padding: Array) -> Array:
        found = by_example(params, *given(records), is_padding_example=padding)
        return vector(found)

    nobody = jnp.zeros(count, bool)
    first = nobody.at[0].set(True)
    exchanged = jax.tree.map(lambda leaf: leaf.at[0].set(leaf[1]), records)
    return Verdict(
        (
            _adds_up(
                np.asarray(whole(params, records), np.float64),
                np.asarray(total(params, records, nobody), np.float64),
                *(count, tolerance),
            ),
            _padded(
                np.asarray(total(params, records, first)),
                np.asarray(total(params, exchanged, first)),
            ),
        )
    )


def _adds_up(whole: Vector, total: Vector, count: int, tolerance: float) -> Finding:
    length = max(float(np.linalg.norm(whole)), 1e-30)
    off = {
        "mean": float(np.linalg.norm(whole - total / count)) / length,
        "sum": float(np.linalg.norm(whole - total)) / length,
    }
    nearest = min(off, key=lambda name: off[name])
    return Finding.judged(
        "isolation",
        "the batch's gradient and those of its records",
        f"its {nearest}, up to {off[nearest]:.2g} of its length",
        f"their mean or their sum, up to {tolerance:g}",
        off[nearest] <= tolerance,
        WHY["mixed"],
    )


def _padded(one: Vector, other: Vector) -> Finding:
    same = np.array_equal(one, other, equal_nan=True)
    return Finding.judged(
        "isolation",
        "the others' gradients when a padded record is exchanged",
        "they stay exactly" if same else "they move",
        "they stay exactly",
        same,
        WHY["padding"],
    )
