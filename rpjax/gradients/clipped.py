"""Clipped sums of per-example gradients: DP-SGD's one contact with the data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.errors import InputError
from rpjax.gradients import clipping as rules
from rpjax.gradients.bookkeeping import by_bookkeeping
from rpjax.gradients.clipping import Clipping, Rule
from rpjax.gradients.examples import Engine, Loss, by_two_passes, by_vmap, zeros

EngineName = Literal["vmap", "two_pass", "bookkeeping"]
Relation = Literal["add_remove", "zero_out", "replace_one"]

ENGINES: dict[str, Engine] = {
    "vmap": by_vmap,
    "two_pass": by_two_passes,
    "bookkeeping": by_bookkeeping,
}


class Clipped(NamedTuple):
    """A clipped sum, and what it was made of.

    total: like the parameters, float32.
    norms: l2 norms before clipping (b,); not finite where a gradient was not, and that
        record counts as zero.
    aux: the loss's auxiliary arrays, (b, ...).
    """

    total: PyTree
    norms: Array
    aux: Any


def clipped_sum(
    loss: Loss,
    rule: Rule,
    engine: EngineName = "vmap",
    microbatch: int | None = None,
    prepare: Callable[[PyTree], PyTree] | None = None,
) -> Callable[..., Clipped]:
    """Sum of per-example gradients, each bounded by `rule`.

    loss: (params, one record) -> (scalar, auxiliary arrays).
    engine: how gradients are computed; the answer is the same.
    microbatch: records whose gradients are in memory at once; None is all of them. What
        comes after the last valid record is not computed at all.
    prepare: (records) -> what `loss` takes, record by record, done to one microbatch at
        a time: float images of a whole batch would need more memory than their bytes.
    Returns (params, records with a leading axis b, valid (b,), after=None,
    clip_norms=None) -> `Clipped`. after: factors >= 0, (b,), each record's own, that
    multiply gradients which are clipped already. clip_norms: (b,), to which each
    record's gradient is cut, in place of `rule`.

    Guarantee: adding or removing one valid record moves the sum by at most
    ``rule.sensitivity()`` in l2 norm, or its own of `clip_norms` (up to float32
    rounding), times the largest `after` that any record can have; an invalid one moves
    it by exactly nothing; a gradient that is not finite counts as zero.
    """
    examples = ENGINES[engine]

    def at_once(params: PyTree, slots: PyTree, valid: Array) -> Clipped:
        records, after, clip_norms = slots
        own = records if prepare is None else prepare(records)
        found = examples(loss, params, own)
        norms = rules.norms(found.squares)
        counted = valid & jnp.isfinite(norms)
        bound = rule if clip_norms is None else rules.Flat(clip_norms)
        times = lambda w: w if after is None else w * after
        weights = _shared(
            lambda w: jnp.where(counted, times(w), 0.0), bound.weights(found.squares)
        )
        return Clipped(found.weighted(weights), norms, found.aux)

    def in_parts(
        params: PyTree,
        records: PyTree,
        valid: Array,
        after: Array | None = None,
        clip_norms: Array | None = None,
    ) -> Clipped:
        slots = (records, after, clip_norms)
        return _in_microbatches(at_once, microbatch, params, slots, valid)

    return in_parts


def gradient_norms(
    loss: Loss,
    engine: EngineName = "vmap",
    microbatch: int | None = None,
    prepare: Callable[[PyTree], PyTree] | None = None,
) -> Callable[..., Array]:
    """l2 norms of per-example gradients, and no sum.

    Arguments as for `clipped_sum`. Returns (params, records, valid (b,)) -> norms (b,),
    zero in slots behind the last valid one.
    """

    def at_once(params: PyTree, records: PyTree, valid: Array) -> Clipped:
        own = records if prepare is None else prepare(records)
        squares = ENGINES[engine](loss, params, own).squares
        return Clipped((), rules.norms(squares), ())

    def in_parts(params: PyTree, records: PyTree, valid: Array) -> Array:
        return _in_microbatches(at_once, microbatch, params, records, valid).norms

    return in_parts


def _in_microbatches(
    at_once: Callable[[PyTree, PyTree, Array], Clipped],
    size: int | None,
    params: PyTree,
    records: PyTree,
    valid: Array,
) -> Clipped:
    """The same, `size` records at a time, up to the last valid one."""
    count = len(valid)
    if size is None or count <= size:
        return at_once(params, records, valid)
    chunks = -(-count // size)
    # padding repeats records, and counts as invalid
    positions = jnp.arange(chunks * size) % count
    real = valid[positions] & (jnp.arange(chunks * size) < count)

    def chunk(leaf: Array, number: Array) -> Array:
        return leaf[jax.lax.dynamic_slice_in_dim(positions, number * size, size)]

    def part(number: Array) -> Clipped:
        own = jax.tree.map(lambda leaf: chunk(leaf, number), records)
        counted = jax.lax.dynamic_slice_in_dim(real, number * size, size)
        return at_once(params, own, counted)

    def add(number: Array, so_far: Clipped) -> Clipped:
        new = part(number)
        put = lambda all, own: jax.lax.dynamic_update_slice_in_dim(
            all, own, number * size, 0
        )
        return Clipped(
            jax.tree.map(jnp.add, so_far.total, new.total),
            put(so_far.norms, new.norms),
            jax.tree.map(put, so_far.aux, new.aux),
        )

    needed = jnp.max(jnp.where(real, jnp.arange(chunks * size) // size + 1, 0))
    total, norms, aux = jax.eval_shape(part, jnp.zeros((), needed.dtype))
    longer = lambda s: jax.ShapeDtypeStruct((chunks * size, *s.shape[1:]), s.dtype)
    empty = Clipped(total, longer(norms), jax.tree.map(longer, aux))
    start = jax.tree.map(
        lambda s: zeros(s, (jax.tree.leaves(params)[:1], records)), empty
    )
    total, norms, aux = jax.lax.fori_loop(0, needed, add, start)
    return Clipped(total, norms[:count], jax.tree.map(lambda a: a[:count], aux))


def _shared(change: Callable[[Array], Array], weights: PyTree) -> PyTree:
    """`change` of every leaf, done once for leaves that are one and the same array."""
    done: dict[int, Array] = {}
    return jax.tree.map(lambda w: done.setdefault(id(w), change(w)), weights)


@dataclass(frozen=True)
class ClippedGrad:
    """`clipped_grad`'s result: call it for a clipped sum, and ask its sensitivity."""

    function: Callable[..., Any]
    rule: Rule
    normalize_by: float

    def __call__(self, *args: Any, is_padding_example: Array | None = None) -> Any:
        """The clipped sum, and what else was asked for."""
        return self.function(*args, is_padding_example=is_padding_example)

    def sensitivity(self, relation: Any = "add_remove") -> float:
        """l2 distance by which neighbouring batches can move the sum.

        relation: "add_remove", "zero_out" (a record replaced by nothing) or
            "replace_one", twice as much; or dp-accounting's `NeighboringRelation`.
        """
        name = str(getattr(relation, "name", relation)).lower()
        known = {
            "add_remove": 1,
            "add_or_remove_one": 1,
            "zero_out": 1,
            "replace_special": 1,
            "replace_one": 2,
        }
        if name not in known:
            raise InputError(
                f"relation is {relation!r}; it is one of "
                f"{', '.join(get_args(Relation))}"
            )
        return float(known[name] * self.rule.sensitivity() / self.normalize_by)


class PerExample(NamedTuple):
    """What each record's loss said, with a leading axis b; None if not asked for."""

    values: Array | None = None
    grad_norms: Array | None = None
    aux: Any = None


def clipped_grad(
    loss: Callable[..., Any],
    clip_norm: float = 1.0,
    *,
    clipping: Clipping | Rule = "flat",
    has_aux: bool = False,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    return_values: bool = False,
    return_grad_norms: bool = False,
    normalize_by: float = 1.0,
    engine: EngineName = "bookkeeping",
    microbatch: int | None = None,
) -> ClippedGrad:
    """`jax.grad` by the first argument, with every record's gradient clipped.

    loss: (params, *args) -> scalar, or (scalar, aux) with `has_aux`. It is asked for
        one record at a time: with `keep_batch_dim`, each argument of `batch_argnums`
        has a leading axis of size 1, so that a loss of a batch does as it is; without,
        none.
    clip_norm, clipping: the bound on a record's gradient, `rpjax.gradients.clipping`.
    batch_argnums: which arguments have records along their first axis.
    return_values, return_grad_norms: also return each record's loss, and its gradient's
        norm before clipping. Like `aux` they are each record's own and not private.
    normalize_by: a constant that divides the sum, such as the *expected* batch size.
    engine, microbatch: see `clipped_sum`.

    The result is called as `loss` is, and with ``is_padding_example`` (b,) where slots
    of the batch are empty; it returns the sum, or (sum, `PerExample`). Its
    ``sensitivity(relation)`` is what noise must be scaled to.

    >>> half_square = lambda x, data: 0.5 * jnp.mean((data - x) ** 2)
    >>> clipped_grad(half_square, clip_norm=2.0)(3.0, jnp.array([0.0, 7.0, -2.0]))
    Array(2., dtype=float32)
    """
    if not (isinstance(normalize_by, int | float) and 0 < normalize_by < math.inf):
        raise InputError(f"normalize_by is {normalize_by}; it must be finite and > 0")
    _check(engine, microbatch)
    bound = rules.rule(clipping, clip_norm)
    if isinstance(bound, rules.Moving):
        raise InputError(
            f"clipping is {bound.name!r}, which has a state; a loop of your own can "
            "move the clip norm of a Flat rule with Adaptive.moved"
        )
    numbers = (batch_argnums,) if isinstance(batch_argnums, int) else batch_argnums
    if 0 in numbers:
        raise InputError("batch_argnums names 0, which are the parameters")

    def function(*args: Any, is_padding_example: Array | None = None) -> Any:
        params, records = args[0], {n: args[n] for n in numbers}
        lead = lambda leaf: leaf[None] if keep_batch_dim else leaf

        def one(params: PyTree, record: PyTree) -> tuple[Array, Any]:
            given = [params, *args[1:]]
            for n in numbers:
                given[n] = jax.tree.map(lead, record[n])
            value, aux = loss(*given) if has_aux else (loss(*given), None)
            if jnp.shape(value) != ():
                raise InputError(
                    f"loss returned an array of shape {jnp.shape(value)} for one "
                    "record; it must return a scalar"
                )
            return value, (value, aux)

        records = jax.tree.map(jnp.asarray, records)
        count = _records(records)
        valid = jnp.ones(count, bool)
        if is_padding_example is not None:
            valid = ~jnp.asarray(is_padding_example, bool)
        params = jax.tree.map(jnp.asarray, params)
        found = clipped_sum(one, bound, engine, microbatch)(params, records, valid)
        total = jax.tree.map(
            lambda s, p: (s / normalize_by).astype(p.dtype), found.total, params
        )
        if not (has_aux or return_values or return_grad_norms):
            return total
        values, aux = found.aux
        return total, PerExample(
            values if return_values else None,
            found.norms if return_grad_norms else None,
            aux if has_aux else None,
        )

    return ClippedGrad(function, bound, normalize_by)


def _records(records: PyTree) -> int:
    sizes = {len(leaf) for leaf in jax.tree.leaves(records)}
    if len(sizes) != 1:
        raise InputError(
            f"the arguments of batch_argnums have {sorted(sizes)} records; "
            "they must have equally many"
        )
    return sizes.pop()


def _check(engine: str, microbatch: int | None) -> None:
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; it is one of {', '.join(ENGINES)}")
    if microbatch is not None and microbatch < 1:
        raise InputError(f"microbatch is {microbatch}; it must be >= 1")
