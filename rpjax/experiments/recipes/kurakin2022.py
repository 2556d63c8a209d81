"""Kurakin et al. 2022: ImageNet by DP-SGD, from a net trained on Places365.

    rpjax train --recipe places365-pretrain --data folder:PLACES --out places365
    rpjax train --recipe imagenet-dp --data folder:IMAGENET --start places365 --out out

Source: Kurakin, Song, Chien, Geambasu, Terzis, Thakurta, "Toward Training at ImageNet
Scale with Differential Privacy", arXiv 2201.12328, and the authors' code at
github.com/google-research/dp-imagenet, commit 08c6524. `--depth 50` has the same
settings for ResNet-50, `--noise-multiplier 1.312707` the published noise.

======================  ===========================================================
net                     ResNet-18, pre-activated, GroupNorm of 32 groups, 224 pixels
Places365               80 epochs of SGD, Nesterov momentum 0.9; 1,024 records a step,
                        8 devices of 128 each; learning rate 0.05 for 256 records,
                        which rises for 4 epochs and falls along a cosine
ImageNet                the stem and stages 1 to 3 stay as they are (frozen_groups 4);
                        stage 4, the last normalisation and a new head are trained
batch                   65,536 records, 128 at a time on a device
epochs                  70, hence 1,368 updates
clip norm               1
learning rate           0.03 for 256 records, hence 7.68; rises for 1 epoch, 20
                        updates, and falls along a cosine
images                  random parts of 8 to 100 % of the area, resized, and mirrored
weight decay            1e-4
privacy                 epsilon 10 at delta 1e-6
======================  ===========================================================

Differs from the paper:

- Batches are drawn by Poisson sampling, which both guarantees are for; theirs were cut
  from a shuffled stream. The noise is the least for epsilon 10 by the PLD accountant.
  Theirs, 1.312707 on the whole batch, has 9.97 by RDP and 9.29 by PLD.
- Weight decay is added to the noisy gradient, of all that is trained; theirs was of
  kernels alone, inside each record's loss, and clipped with it.
- Random parts are those of the square that an image is cut to, and are resized by
  bilinear interpolation; theirs are of the whole image, and bicubic. Their sizes are
  drawn by TensorFlow's law, whose aspects are the same and whose areas are not uniform.
- Pixels are mapped to [-1, 1] and not by ImageNet's mean and deviation.
- Strategies I and II, the ensemble and plain training (`--method`) take the settings of
  `places365-pretrain` with the learning rate of a tenth; the paper has none of them.

Known of the accuracy: about 55 % on Places365, and 47.9 % on ImageNet at epsilon 10.
Measured here: nothing yet.
"""

from typing import Any

from rpjax.experiments.recipes.recipe import Facts, Recipe

PAPER = "Kurakin et al., arXiv 2201.12328"
IMAGE_SIZE = 224
MODEL = {"depth": 18, "stem": "imagenet", "groups": 32}
# for the methods other than DP-SGD: 8 devices of 128 records
TRAINING = {
    "epochs": 80,
    "batch_size": 1024,
    "learning_rate": 0.05 * 1024 / 256,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "resized_crop": 0.08,
    "flip": True,
}


def data(name: str) -> dict[str, Any]:
    """A folder of class folders, all of it, left on disk."""
    return {
        "name": f"folder:{name}",
        "size": "full",
        "image_size": IMAGE_SIZE,
        "stored": True,
    }


RECIPES = (
    Recipe(
        "places365-pretrain",
        f"{PAPER}, public pre-training; bilinear parts of the centre",
        {
            "methods": ["plain"],
            "data": data("places365"),
            "model": MODEL,
            "training": TRAINING | {"warmup": 4.0},
        },
        Facts(1_803_460, 365, (IMAGE_SIZE, IMAGE_SIZE, 3)),
    ),
    Recipe(
        "imagenet-dp",
        f"{PAPER}, private training; Poisson batches, bilinear parts of the centre",
        {
            "methods": ["dpsgd"],
            "data": data("imagenet"),
            "model": MODEL,
            "transfer": {"start": "places365", "frozen_groups": 4},
            "training": TRAINING | {"learning_rate": 0.1 * 0.05 * 1024 / 256},
            "dp": {
                "epsilon": 10.0,
                "delta": 1e-6,
                "epochs": 70,
                "batch_size": 65_536,
                "learning_rate": 0.03 * 65_536 / 256,
                "warmup": 1.0,
                "schedule": "cosine",
                "clip_norm": 1.0,
                "microbatch": 128,
            },
        },
        Facts(1_281_167, 1000, (IMAGE_SIZE, IMAGE_SIZE, 3)),
    ),
)
