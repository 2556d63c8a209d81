"""Labels beside points, where they cover neither each other nor what is drawn."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from rpjax.report.drawing import Theme


class Box(NamedTuple):
    """A rectangle in points, from the lower left corner of the figure."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """The common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def grown(self, by: float) -> "Box":
        """The same rectangle with a margin."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)


DISTANCES = (9, 14, 20, 28, 38, 50, 64, 80, 100, 125, 155)
DIRECTIONS = 24


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    drawn: Sequence[Box],
    theme: Theme,
) -> list[Box]:
    """Write one label per point, nearest free place first.

    Limits and position of the axes must be final. A label that ends up far from its
    point gets a thin line to it.

    Args:
        axes: where to write.
        points: in data coordinates.
        labels: wrapped at 24 characters.
        drawn: in points; what labels should rather not cover (`box_of`).
        theme: colours.

    Returns:
        Where the labels came to lie, in points.
    """
    inside = _frame(axes)
    placed: list[Box] = []
    for point, label in zip(points, labels, strict=True):
        text = wrapped(label, 24)
        size = _extent(axes, text)
        anchor = box_of(axes, [point])
        choices = [_beside(anchor, size, r, d) for r in DISTANCES for d in _circle()]
        costs = [_cost(box, anchor, placed, drawn, inside) for box in choices]
        best = choices[costs.index(min(costs))]
        _write(axes, text, point, anchor, best, theme)
        placed.append(best)
    return placed


def box_of(
    axes: Axes, corners: Sequence[tuple[float, float]], margin: float = 0.0
) -> Box:
    """The rectangle, in points, around data coordinates."""
    scale = 72 / axes.figure.dpi
    pixels = axes.transData.transform(list(corners)) * scale
    (left, bottom), (right, top) = pixels.min(axis=0), pixels.max(axis=0)
    return Box(float(left), float(bottom), float(right), float(top)).grown(margin)


def wrapped(label: str, width: int) -> str:
    r"""A label on several lines, an equation staying on one.

    >>> wrapped("Ensemble of 5 (γ = 0.5)", 14)
    'Ensemble of 5\n(γ\xa0=\xa00.5)'
    """
    return "\n".join(textwrap.wrap(label.replace(" = ", "\xa0=\xa0"), width)) or label


def _circle() -> list[tuple[float, float]]:
    turns = (2 * math.pi * k / DIRECTIONS for k in range(DIRECTIONS))
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def _beside(
    anchor: Box, size: tuple[float, float], far: float, way: tuple[float, float]
) -> Box:
    """A box whose nearest edge lies `far` from the anchor, in the direction `way`."""
    width, height = size
    x = anchor.left + way[0] * (far + width / 2)
    y = anchor.bottom + way[1] * (far + height / 2)
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _cost(
    box: Box, anchor: Box, placed: Sequence[Box], drawn: Sequence[Box], inside: Box
) -> float:
    """Covered area, labels weighing most, then what leaves the axes, then distance."""
    area = (box.right - box.left) * (box.top - box.bottom)
    outside = area - box.overlap(inside)
    labels = sum(box.grown(2).overlap(other) for other in placed)
    marks = sum(box.overlap(other) for other in drawn)
    gap = math.hypot(*_nearest(box, anchor))
    return 50 * labels + 50 * outside + 6 * marks + 3 * gap


def _nearest(box: Box, anchor: Box) -> tuple[float, float]:
    """From the anchor to the nearest point of the box."""
    x = min(max(anchor.left, box.left), box.right) - anchor.left
    y = min(max(anchor.bottom, box.bottom), box.top) - anchor.bottom
    return x, y


def _frame(axes: Axes) -> Box:
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return box_of(axes, [(x0, y0), (x1, y1)], margin=-2)


def _extent(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height of a text, in points."""
    scale = 72 / axes.figure.dpi
    drawn = axes.text(0, 0, text, fontsize=9, linespacing=1.1)
    extent = drawn.get_window_extent()
    drawn.remove()
    return float(extent.width) * scale, float(extent.height) * scale


def _write(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    anchor: Box,
    box: Box,
    theme: Theme,
) -> None:
    where = (box.left - anchor.left, box.bottom - anchor.bottom)
    axes.annotate(
        text,
        point,
        where,
        textcoords="offset points",
        fontsize=9,
        linespacing=1.1,
        ha="left",
        va="bottom",
        zorder=5,
    )
    end = _nearest(box, anchor)
    if math.hypot(*end) > DISTANCES[2]:
        axes.annotate(
            "",
            point,
            end,
            textcoords="offset points",
            arrowprops={
                "arrowstyle": "-",
                "color": theme.muted,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 5,
            },
            zorder=1,
        )
