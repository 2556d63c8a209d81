"""DP-SGD's clipping rule, from a configuration."""

from dataclasses import replace
from typing import Any

from rpjax.errors import InputError
from rpjax.experiments.config import DPConfig
from rpjax.gradients import Global, GlobalAdaptive, GroupClipping, Rule
from rpjax.gradients.clipping import rule

SCALING = ("global", "global_adaptive")
COUNTING = ("adaptive", "global_adaptive", "per_group")


def rule_of(dp: DPConfig, classes: int) -> Rule | GroupClipping:
    """The rule that is named, with those of its settings that are given.

    Raises:
        InputError: a setting that the rule lacks, or one that it does not have.
    """
    kind, settings = dp.clipping, _settings(dp)
    if kind == "per_group":
        return GroupClipping(dp.clip_norm, classes, **settings)
    if kind == "global":
        return Global(dp.clip_norm, **settings)
    if kind == "global_adaptive":
        return GlobalAdaptive(dp.clip_norm, **settings)
    return replace(rule(kind, dp.clip_norm), **settings)  # type: ignore[type-var]


def _settings(dp: DPConfig) -> dict[str, Any]:
    bound, noise = dp.clipping_bound, dp.count_noise_multiplier
    if bound is None and dp.clipping in SCALING:
        raise InputError(
            f"clipping_bound is left out; clipping {dp.clipping!r} needs the norm that "
            "becomes the clip norm, such as 50"
        )
    for name, value, of in (
        ("clipping_bound", bound, SCALING),
        ("count_noise_multiplier", noise, COUNTING),
    ):
        if value is not None and dp.clipping not in of:
            raise InputError(
                f"{name} is {value}; it belongs to clipping {', '.join(of)}, and "
                f"clipping is {dp.clipping!r}"
            )
    given = {"bound": bound, "count_noise_multiplier": noise}
    return {name: value for name, value in given.items() if value is not None}
