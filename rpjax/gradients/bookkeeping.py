"""One backward pass for a clipped sum: book-keeping, for any Linen model as it is.

Bu et al., "Differentially Private Optimization on Large Model at Small Cost", arXiv
2210.00038. A first trace with shapes alone finds the calls of layers that have a rule
(`rpjax.gradients.layers`) and whose weights are leaves of the parameters. Then every
record's loss is differentiated once: by a zero added to the output of each such call,
which gives the output's gradient, and by all other parameters, which gives their
per-example gradients as `vmap` would. So a parameter that no rule knows is never left
out, and one that is used in two ways is summed over them before its norm is taken.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.gradients.examples import (
    Examples,
    Loss,
    keep,
    squares_of,
    weighted_sum,
    zeros,
)
from rpjax.gradients.layers import Rule, rule_for

# a record's instantiated gradient is kept for the sum if it is at most so many times as
# large as the layer's input and output gradient, from which it can be computed again
KEPT = 4


class Call(NamedTuple):
    """One call of a layer whose weights are a leaf of the parameters.

    leaf: the leaf's number. number: of the call, among those of layers with rules.
    output: shape and dtype of what the layer returned for one record.
    """

    leaf: int
    number: int
    rule: Rule
    output: Any


class Survey(NamedTuple):
    """What a loss does with its parameters.

    calls: those that rules take care of.
    elsewhere: numbers of the leaves that are also used, or only used, in other ways.
    """

    calls: tuple[Call, ...]
    elsewhere: tuple[int, ...]


def by_bookkeeping(loss: Loss, params: PyTree, records: PyTree) -> Examples:
    """`Examples` from one backward pass to the outputs of layers."""
    leaves, treedef = jax.tree.flatten(params)
    seen = survey(loss, params, records)

    def one(record: PyTree) -> tuple[Any, Any]:
        taps = [zeros(call.output, (leaves[:1], record)) for call in seen.calls]
        others = [leaves[i] for i in seen.elsewhere]

        def traced(taps: Any, others: Any) -> tuple[Array, Any]:
            own = dict(enumerate(leaves)) | dict(
                zip(seen.elsewhere, others, strict=True)
            )
            given = treedef.unflatten([own[i] for i in range(len(leaves))])
            tap = _Tap(seen.calls, taps)
            with nn.intercept_methods(tap):
                value, aux = loss(given, record)
            return value, (aux, tap.inputs)

        gradients, kept = jax.grad(traced, (0, 1), has_aux=True)(taps, others)
        return gradients, kept

    (outputs, rest), (aux, inputs) = jax.vmap(one)(records)
    by_leaf: list[list[_Product]] = [[] for _ in leaves]
    for call, a, g in zip(seen.calls, inputs, outputs, strict=True):
        by_leaf[call.leaf].append(_Product(call.rule, leaves[call.leaf], a, g))
    found = dict(zip(seen.elsewhere, rest, strict=True))
    parts = [_part(products, found.get(i)) for i, products in enumerate(by_leaf)]

    def weighted(weights: PyTree) -> PyTree:
        sums = map(lambda p, w: p.weighted(w), parts, jax.tree.leaves(weights))
        return treedef.unflatten(list(sums))

    return Examples(
        squares=treedef.unflatten([part.squares for part in parts]),
        aux=aux,
        weighted=weighted,
    )


def survey(loss: Loss, params: PyTree, records: PyTree) -> Survey:
    """What `loss` does with its parameters, from one trace with shapes alone."""
    leaves, treedef = jax.tree.flatten(params)
    shapes = [jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)) for p in leaves]
    record = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), records)
    calls: list[Call] = []

    def tangent(primals: Any, tangents: Any, record: PyTree) -> Array:
        def value(leaves: Any) -> Array:
            scout = _Scout(leaves)
            with nn.intercept_methods(scout):
                value = loss(treedef.unflatten(leaves), record)[0]
            calls[:] = scout.calls
            return value

        return jax.jvp(value, (primals,), (tangents,))[1]

    jaxpr = jax.make_jaxpr(tangent)(shapes, shapes, record).jaxpr
    # calls of layers hide their weights from differentiation, so that a tangent which
    # still reaches the loss belongs to some other use
    needed = _needed(jaxpr)
    names = jaxpr.invars[len(leaves) : 2 * len(leaves)]
    with_calls = {call.leaf for call in calls}
    elsewhere = tuple(
        i for i, name in enumerate(names) if name in needed or i not in with_calls
    )
    return Survey(tuple(calls), elsewhere)


class _Scout:
    """Interceptor that finds the calls of layers with rules."""

    def __init__(self, leaves: Sequence[Array]) -> None:
        self.leaves = {id(leaf): i for i, leaf in enumerate(leaves)}
        self.calls: list[Call] = []
        self.number, self.inside = 0, False

    def __call__(
        self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any
    ) -> Any:
        rule = None if self.inside else _rule(args, kwargs, context)
        if rule is None:
            return call(*args, **kwargs)
        number, self.number = self.number, self.number + 1
        layer = context.module
        leaf = self.leaves.get(id(layer.get_variable("params", rule.name)))
        if leaf is None:  # frozen, made from a leaf, or inside another trace
            return call(*args, **kwargs)
        self.inside = True
        output = _hiding(layer, rule.name, *args)
        self.inside = False
        shape = jax.ShapeDtypeStruct(output.shape, output.dtype)
        self.calls.append(Call(leaf, number, rule, shape))
        return output


class _Tap:
    """Interceptor that adds to the outputs of calls, and keeps their inputs."""

    def __init__(self, calls: Sequence[Call], zeros: Sequence[Array]) -> None:
        self.zeros = {c.number: z for c, z in zip(calls, zeros, strict=True)}
        self.inputs: list[Array] = []
        self.number, self.inside = 0, False

    def __call__(
        self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any
    ) -> Any:
        rule = None if self.inside else _rule(args, kwargs, context)
        if rule is None:
            return call(*args, **kwargs)
        number, self.number = self.number, self.number + 1
        if number not in self.zeros:
            return call(*args, **kwargs)
        self.inside = True
        output = _hiding(context.module, rule.name, *args)
        self.inside = False
        self.inputs.append(args[0])
        return output + self.zeros[number]


def _rule(args: Any, kwargs: Any, context: Any) -> Rule | None:
    alone = context.method_name == "__call__" and len(args) == 1 and not kwargs
    return rule_for(context.module, args[0]) if alone else None


def _hiding(layer: nn.Module, name: str, inputs: Array) -> Array:
    """What the layer returns, as a constant function of its parameter `name`."""
    own = dict(layer.variables["params"])
    own[name] = jax.lax.stop_gradient(own[name])
    output: Array = layer.clone(parent=None, name=None).apply({"params": own}, inputs)
    return output


class _Product(NamedTuple):
    """The gradients that come through one call: its input, and its output's gradient.

    parameter: the leaf as it is stored.
    """

    rule: Rule
    parameter: Array
    a: Array
    g: Array

    def gradients(self) -> Array:
        """Every record's gradient by the stored parameter, (b, ...)."""
        return jax.vmap(self.stored)(self.rule.instantiate(self.a, self.g))

    def sum(self, weights: Array) -> Array:
        """Their weighted sum, computed anew, as backpropagation does it."""
        clean = partial(keep, weights > 0)
        return self.stored(self.rule.weighted(clean(self.a), clean(self.g), weights))

    def stored(self, gradient: Array) -> Array:
        """A gradient by the stored parameter, from that by the one which is used."""
        if self.rule.reparametrise is None:
            return gradient
        pull = jax.vjp(self.rule.reparametrise, self.parameter)[1]
        back: Array = pull(gradient.astype(self.parameter.dtype))[0]
        return back

    def cost(self) -> tuple[int, int, int]:
        """Per record: multiplications of the ghost, of instantiating, and numbers."""
        size, outputs = self.parameter.size, self.g.shape[-1]
        t = self.rule.positions(self.a.shape, self.g.shape)
        return t * t * (size // outputs + outputs), t * size, size


class _Part(NamedTuple):
    """A leaf's squared norms (b,), and its weighted sum from weights (b,)."""

    squares: Array
    weighted: Callable[[Array], Array]


def _part(products: list[_Product], rest: Array | None) -> _Part:
    """How to treat a leaf: the cheaper of its ghost and its gradients, where one may.

    A leaf that enters the loss in several ways has to be summed before its norm.
    """
    if len(products) == 1 and rest is None:
        product = products[0]
        ghost, instantiated, size = product.cost()
        if product.rule.reparametrise is None and ghost < instantiated:
            return _Part(product.rule.ghost(product.a, product.g), product.sum)
        per_record = (product.a.size + product.g.size) // len(product.g)
        if size > KEPT * per_record:
            # the sum is computed apart, in full precision, and so are these norms
            with jax.default_matmul_precision("highest"):
                return _Part(squares_of(product.gradients()), product.sum)
    parts = [product.gradients() for product in products]
    if rest is not None:
        parts.append(rest.astype(jnp.float32))
    gradients = sum(parts[1:], parts[0])
    return _Part(
        squares_of(gradients), lambda weights: weighted_sum(weights, gradients)
    )


def _needed(jaxpr: Any) -> set[Any]:
    """The variables on which the outputs of a jaxpr depend."""
    needed = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(v for v in equation.invars if isinstance(v, Var))
    return needed
