"""The picture of a record: true images above what was made of them, by mechanism."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.benchmark import Row
from benchmarks.drawing import WIDTH
from rpjax.report.drawing import Theme, blank

WORDS = {
    "plain": "no noise",
    "strategy1": "Strategy I, γ = {:g}",
    "strategy2": "Strategy II, γ = {:g}",
    "dpsgd": "DP-SGD, σ = {:g}",
}


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    """Two columns: from the gradient of one record, and from the first block."""
    rows = record["rows"]
    truth = next(row for row in rows if row["attack"] == "true image")
    luck = [row for row in rows if row["attack"].startswith("no attack")]
    shown = {
        "One record's gradient, before training": _chosen(rows, "gradient", False),
        "First block's features, after it": _chosen(rows, "features", True),
    }
    lines = 1 + len(luck) + max(map(len, shown.values()))
    made = blank(WIDTH, 0.5 + 0.42 * lines)
    made.set_layout_engine("constrained")
    grid = made.subplots(lines, 2, squeeze=False)
    for column, (title, own) in zip(grid.T, shown.items(), strict=True):
        whole = [("true image", truth), *((_words(row), row) for row in (*luck, *own))]
        for axes, (words, row) in zip(column, whole, strict=False):
            _strip(axes, row, words, truth["shape"])
        column[0].set_title(title, loc="right", fontsize=9)
        for axes in column[len(whole) :]:
            axes.set_visible(False)
    return made


def _chosen(rows: list[Row], attack: str, trained: bool) -> list[Row]:
    """Those of the small net, one record at a time."""
    return [
        row
        for row in rows
        if row["attack"] == attack
        and row["net"] == "small"
        and row["trained"] == trained
        and row["batch"] == 1
    ]


def _words(row: Row) -> str:
    if row["attack"].startswith("no attack"):
        return str(row["attack"].partition(": ")[2])
    words = WORDS[row["mechanism"]].format(row["size"])
    if row["noise_known"]:
        words += ", known"
    return words + (f", mean of {row['draws']}" if (row["draws"] or 1) > 1 else "")


def _strip(axes: Any, row: Row, words: str, shape: list[int]) -> None:
    """The images of a row side by side, and at the left what they are."""
    images = np.asarray(row["pictures"], np.float64).reshape(-1, *shape)
    gap = np.full((images.shape[1], 1, images.shape[3]), np.nan)
    parts = [part for image in images for part in (image, gap)][:-1]
    strip = np.concatenate(parts, 1)
    if strip.shape[-1] == 1:
        axes.imshow(strip[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(np.nan_to_num(strip, nan=255).astype(np.uint8))
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    quality = (
        "" if row.get("psnr") is None else f"\n{row['psnr']:.1f} dB, {row['ssim']:z.2f}"
    )
    axes.set_ylabel(words + quality, rotation=0, ha="right", va="center", fontsize=8)
