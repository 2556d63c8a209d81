"""Accuracy against epsilon: one trunk, released again and again, a head for each.

    rpjax features --data mnist --data-dir DIR
    rpjax features --data mnist --data-dir DIR --trunk random

What each takes and reaches: benchmarks/records/features_mnist.json.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from rpjax.data.records import Dataset
from rpjax.errors import InputError
from rpjax.features.drawn import digits_trunk
from rpjax.features.filters import photograph_trunk, random_trunk
from rpjax.features.heads import STEPS, Kind, fit_head, zero_shot
from rpjax.features.releasing import releases
from rpjax.features.trunk import Trunk
from rpjax.intervals import clopper_pearson

Name = Literal["digits", "random", "photographs"]
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, math.inf)

TRUNKS: dict[str, Callable[..., Trunk]] = {
    "digits": lambda shape, seed, **options: digits_trunk(seed, **options),
    "random": random_trunk,
    "photographs": photograph_trunk,
}


def trunk_named(name: str, shape: tuple[int, int, int], **options: Any) -> Trunk:
    """The trunk of this name for images of this shape."""
    if name not in TRUNKS:
        known = ", ".join(map(repr, TRUNKS))
        raise InputError(f"trunk is {name!r}; it must be one of {known}")
    if name == "digits" and shape[2] != 1:
        raise InputError(f"trunk is 'digits', for grey figures; images are {shape}")
    return TRUNKS[name](shape, **{"seed": 0, **options})


def curve(
    trunk: Trunk,
    data: Dataset,
    *,
    epsilons: Sequence[float] = EPSILONS,
    kinds: Sequence[Kind] = ("linear",),
    seeds: Sequence[int | None] = (None,),
    delta: float = 1e-5,
) -> Iterator[dict[str, Any]]:
    """Test accuracy of the heads at each epsilon, one row for each kind.

    The zero-shot head, where there is one, comes first, at epsilon 0: it sees no
    private data. seeds: of the noise, one release each; None is a secret one.
    accuracy, low, high: of the first seed's head, with the test records' 95 % interval;
    mean, least, most: over the seeds.
    """
    features, labels = trunk(data.test.images), data.test.labels
    facts = {"trunk": trunk.name, "dimension": trunk.dimension, "bound": trunk.bound}
    facts |= {"delta": delta}
    for kind in kinds if trunk.sample is not None else ():
        hits = [
            (
                zero_shot(trunk, kind, steps=STEPS).of_features(features).argmax(1)
                == labels
            )
        ]
        yield {
            **facts,
            "head": f"zero-shot {kind}",
            "input_noise": 0.0,
            **figures(0.0, hits),
        }
    # no noise, no seeds
    settings = [(e, s) for e in epsilons for s in (seeds if e < math.inf else (None,))]
    found: dict[tuple[float, Kind], list[Any]] = {}
    noises = {}
    for (epsilon, _), released in zip(
        settings, releases(trunk, data.train, settings, delta=delta), strict=True
    ):
        noises[epsilon] = released.input_noise
        for kind in kinds:
            answers = fit_head(released, kind, steps=STEPS).of_features(features)
            found.setdefault((epsilon, kind), []).append(answers.argmax(1) == labels)
    for (epsilon, kind), hits in found.items():
        noise = {"input_noise": noises[epsilon]}
        yield {**facts, "head": kind, **noise, **figures(epsilon, hits)}


def figures(epsilon: float, hits: Sequence[Any]) -> dict[str, Any]:
    """Accuracy of heads, from which test records each got right; see `curve`."""
    first = clopper_pearson(int(hits[0].sum()), hits[0].size)
    each = [float(h.mean()) for h in hits]
    return {
        "epsilon": epsilon if epsilon < math.inf else None,
        "accuracy": first.value,
        "low": first.low,
        "high": first.high,
        "mean": float(np.mean(each)),
        "least": min(each),
        "most": max(each),
        "runs": len(each),
    }
