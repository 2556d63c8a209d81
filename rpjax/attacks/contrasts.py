"""What changes an attack's success: how often it asks, and whose shadow models it has.

As everything on set A alone these are for looking, and no bound follows from them.
"""

from collections.abc import Sequence

import numpy as np

from rpjax.attacks import signals
from rpjax.attacks.canaries import Planted
from rpjax.attacks.likelihood import lira, not_normal
from rpjax.attacks.shadow_models import ShadowModels
from rpjax.attacks.suite import Answers, ModelScores, two_left_out
from rpjax.errors import InputError


def by_draws(
    models: ShadowModels, planted: Planted, counts: Sequence[int]
) -> list[ModelScores]:
    """LiRA on the mean of so many draws of the noise, each two models by the others."""
    seen = Answers(planted, models.answers).of("draws", signals.logit)
    coins = models.membership.inside
    return [two_left_out(lira, seen[..., :count], coins) for count in counts]


def mismatched(
    shadows: ShadowModels, targets: ShadowModels, planted: Planted
) -> ModelScores:
    """LiRA with shadow models of another training than the targets', as a contrast.

    Both sets have the same coins; the two models whose coins a target shares, or has
    the opposite of, are not among its shadow models.

    Raises:
        InputError: other coins.
    """
    coins = targets.membership.inside
    if not np.array_equal(shadows.membership.inside, coins):
        raise InputError("shadows and targets have different coins; draw them alike")
    seen, asked = (
        Answers(planted, models.answers).of("deployed", signals.logit)
        for models in (shadows, targets)
    )
    return two_left_out(lira, seen, coins, asked)


def unusual(models: ShadowModels, planted: Planted) -> tuple[float, float]:
    """Shares of canaries whose scores, IN and OUT, are not normal over models."""
    seen = Answers(planted, models.answers).of("deployed", signals.logit)
    return not_normal(seen, models.membership.inside)
