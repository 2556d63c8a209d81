"""One guarantee for several trainings on the same records."""

import dataclasses
from collections.abc import Sequence

from rpjax.privacy.algebra import compose
from rpjax.privacy.certificate import Guarantee, withdrawn
from rpjax.privacy.curves import Curve, Gaussian
from rpjax.privacy.stored import storable
from rpjax.privacy.wording import figure, power, seed_note


def together(last: Guarantee, earlier: Sequence[Guarantee]) -> Guarantee:
    """What is proved of a training and of earlier ones on the same records together.

    Each may have been chosen in the light of those before it (`compose`), with noise of
    its own. Without an earlier one it is the training's own guarantee; where one of
    them proves nothing, or something for other neighbours, nothing is proved.
    """
    if last.curve is None or not earlier:
        return last
    for each in earlier:
        if each.curve is None:
            return withdrawn(
                last,
                "an earlier training on the same records guarantees nothing "
                f"({'; '.join(each.reasons)})",
            )
        if each.adjacency != last.adjacency:
            return withdrawn(
                last,
                "an earlier training on the same records has its guarantee for other "
                f"neighbours ({each.adjacency}), and the two do not compose",
            )
    curves = [each.curve for each in (*earlier, last) if each.curve is not None]
    return _stated(last, earlier, compose(*curves))


def _stated(last: Guarantee, earlier: Sequence[Guarantee], curve: Curve) -> Guarantee:
    assert last.delta is not None
    epsilon, delta = curve.epsilon(last.delta), last.delta
    curve = storable(curve, (epsilon, delta))
    gaussian, count = isinstance(curve, Gaussian), len(earlier)
    trainings = f"{count} earlier training{'s' if count > 1 else ''}"
    seeds = [each.parameters.get("noise_seed") for each in (*earlier, last)]
    return dataclasses.replace(
        last,
        kind="gdp" if gaussian else "dp",
        mechanism=f"{last.mechanism}; after {trainings} on the same records",
        parameters={**last.parameters, "earlier": count},
        epsilon=epsilon,
        mu=curve.mu if isinstance(curve, Gaussian) else None,
        accountant=f"composition of {count + 1} guarantees (the last by "
        f"{last.accountant})",
        alternatives=(),
        curve=curve,
        statement=(
            f"This training and {trainings} on the same records, together: between any "
            f"two neighbours ({last.adjacency}), the probability of any outcome of all "
            "of them differs by at most a factor e^ε up to δ: "
            f"{figure(epsilon, delta)}. A test with 1 % false alarms finds at most "
            + power(float(curve.tpr(0.01)))
            + seed_note("fixed" if "fixed" in seeds else "secret")
        ),
        assumptions=(
            *last.assumptions,
            f"Left to the user: the {trainings} are all that there were on these "
            "records",
        ),
    )
