"""Reconstruction: images from a step's gradient, and from a block's noisy features."""

from rpjax.attacks.reconstruction.descent import Descent, Reconstruction
from rpjax.attacks.reconstruction.feature_inversion import (
    features,
    invert_features,
    seen_features,
)
from rpjax.attacks.reconstruction.gradient_inversion import (
    invert_gradient,
    invert_gradients,
    read_labels,
)
from rpjax.attacks.reconstruction.observed import (
    READING,
    Imitation,
    released_gradient,
    step_noise,
)
from rpjax.attacks.reconstruction.quality import (
    Baselines,
    baselines,
    matched,
    psnr,
    ssim,
)

__all__ = [
    "READING",
    "Baselines",
    "Descent",
    "Imitation",
    "Reconstruction",
    "baselines",
    "features",
    "invert_features",
    "invert_gradient",
    "invert_gradients",
    "matched",
    "psnr",
    "read_labels",
    "released_gradient",
    "seen_features",
    "ssim",
    "step_noise",
]
