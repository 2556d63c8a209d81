"""Reconstruction: how near an image comes to the one that it is meant to be."""

from rpjax.attacks.reconstruction.quality import (
    Baselines,
    baselines,
    matched,
    psnr,
    ssim,
)

__all__ = ["Baselines", "baselines", "matched", "psnr", "ssim"]
