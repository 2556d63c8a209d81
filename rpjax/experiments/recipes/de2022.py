"""De et al. 2022: CIFAR-10 from scratch, wide ResNets at epsilon 1, 2, 4 and 8.

    rpjax train --recipe de2022-wrn16-4-eps8 --data-dir DIR --out out

Source: De, Berrada, Hayes, Smith, Balle, "Unlocking High-Accuracy Differentially
Private Image Classification through Scale", arXiv 2204.13650, and the authors' code at
github.com/google-deepmind/jax_privacy, commit 0e9d939.

======================  ===========================================================
net                     WRN-16-4 or WRN-40-4; ReLU, then GroupNorm of 16 groups, then a
                        weight-standardised convolution; shortcuts with their own
batch                   4,096, expected, by Poisson sampling
learning rate           2, constant, no momentum, no weight decay
clipping                norm 1, normalised: divided by it
augmentation            16 views a record, their mean gradient clipped: shifts by up to
                        4 pixels with the image mirrored at its edge, random mirror
average                 0.999 of the parameters, with warm-up
delta                   1e-5
epsilon 1, WRN-16-4     published: noise multiplier 10, 875 updates
all others              derived: the settings above, the updates of `UPDATES`, which are
                        chosen here, and the least noise for the target epsilon
======================  ===========================================================

Differs from the paper: pixels are mapped to [-1, 1], where the authors subtract the
data set's mean and divide by its deviation, which are functions of the data; epsilon is
the PLD accountant's, so that the derived noise is smaller than their RDP accountant
would ask for at the same target, and the published run's epsilon of 1 reads 0.904.

Known of the accuracy: the paper reports 81.4 % for WRN-40-4 at epsilon 8 (abstract).
Measured here: nothing yet; the command for a GPU is in benchmarks/GPU_QUEUE.md.
"""

from typing import Any

from rpjax.experiments.recipes.recipe import Facts, Recipe

PAPER = "De et al., arXiv 2204.13650, CIFAR-10 from scratch"
UPDATES = {1: 875, 2: 1125, 4: 1750, 8: 2500}
DEPTHS = (16, 40)
CIFAR10 = Facts(50_000, 10, (32, 32, 3))


def settings(depth: int, updates: int, **noise: float) -> dict[str, Any]:
    """CIFAR-10 by a WRN-depth-4; noise: `noise_multiplier` or `epsilon`."""
    return {
        "methods": ["dpsgd"],
        "data": {"name": "cifar10", "size": "full"},
        "model": {
            "depth": depth,
            "width": 4,
            "groups": 16,
            "norm_last": True,
            "shortcut": "own",
            "standardise": True,
        },
        "training": {
            "crop": 4,
            "flip": True,
            "padding": "symmetric",
            "weight_decay": 0.0,
        },
        "dp": {
            **noise,
            "delta": 1e-5,
            "steps": updates,
            "batch_size": 4096,
            "learning_rate": 2.0,
            "schedule": "constant",
            "momentum": 0.0,
            "clip_norm": 1.0,
            "clipping": "normalised",
            "augmentation_multiplicity": 16,
            "averages": [0.99, 0.999],
            "average": 0.999,
            "microbatch": 256,
        },
    }


def recipe(depth: int, epsilon: int) -> Recipe:
    """One of the eight."""
    published = (depth, epsilon) == (16, 1)
    noise = {"noise_multiplier": 10.0} if published else {"epsilon": float(epsilon)}
    how = "published settings"
    if not published:
        how = "derived: their settings for epsilon 1, own number of updates and noise"
    return Recipe(
        f"de2022-wrn{depth}-4-eps{epsilon}",
        f"{PAPER}; {how}",
        settings(depth, UPDATES[epsilon], **noise),
        CIFAR10,
    )


RECIPES = tuple(recipe(depth, epsilon) for depth in DEPTHS for epsilon in UPDATES)
