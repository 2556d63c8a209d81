"""TAN: CIFAR-10 at the scale that Sander et al. simulate at small batches.

    rpjax train --recipe tan2023-wrn16-4 --data-dir DIR --out out

Source: Sander, Stock, Sablayrolles, "TAN without a Burn: Scaling Laws of DP-SGD", ICML
2023, arXiv 2210.03403, and github.com/facebookresearch/tan, README: batch 4,096, noise
multiplier 3, 2,500 updates, 16 views a record. The rest (net, learning rate, average,
augmentation) is De et al.'s (`rpjax.experiments.recipes.de2022`), so derived.

Their README calls it epsilon 8 at delta 1e-5; the accountants say 7.10 (RDP) and 6.58
(PLD) for adding or removing one record, below that target.

To try settings at small cost as they do, divide the batch and the noise multiplier by
the same number and keep the updates: the progress of the training stays nearly the
same and the epsilon of the trial does not.

    rpjax train --recipe tan2023-wrn16-4 --dp-batch-size 256 --noise-multiplier 0.1875

Known of the accuracy: not given for this net in what we hold. Measured here: nothing
yet.
"""

from rpjax.experiments.recipes import de2022
from rpjax.experiments.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "tan2023-wrn16-4",
        "Sander et al. (TAN), arXiv 2210.03403: batch, noise, updates and views as "
        "published; net, learning rate and average derived from De et al.",
        de2022.settings(16, 2500, noise_multiplier=3.0),
        de2022.CIFAR10,
    ),
)
