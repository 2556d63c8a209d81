"""How figures look and how they are saved: themes, one style per method, SVG, PNG.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers;
the dark theme lightens them. Markers tell the methods apart without colour.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rpjax.report.results import Results


class Theme(NamedTuple):
    """Colours of everything that is not data."""

    name: str
    ink: str
    muted: str
    grid: str
    zone: str
    paper: str


LIGHT = Theme("light", "#1f2328", "#59636e", "#e3e6ea", "#eceff2", "#ffffff")
DARK = Theme("dark", "#e8eaed", "#a3acb6", "#30363d", "#262c33", "#14171b")


class Style(NamedTuple):
    """How one method is drawn in every figure and marked in every list."""

    light: str
    dark: str
    marker: str
    symbol: str
    line: str = "solid"

    def colour(self, theme: Theme) -> str:
        """The colour on this theme's background."""
        return self.dark if theme.name == "dark" else self.light


_COLOURS = (
    ("#3f444b", "#d5d9de"),
    ("#0072b2", "#4fabe8"),
    ("#e69f00", "#f2b233"),
    ("#009e73", "#34c79b"),
    ("#d55e00", "#ff8a45"),
    ("#cc79a7", "#e39cc3"),
    ("#56b4e9", "#a6dcff"),
    ("#a39100", "#f0e442"),
)
_MARKERS = tuple(zip("osD^vP<Xp>h*", "●■◆▲▼✚◀✖⬟▶⬢★", strict=True))
_KNOWN = ("plain", "strategy1", "strategy2", "ensemble", "dpsgd")


def styles(results: Results) -> list[Style]:
    """One style per method, in the order of the file.

    The five usual methods look the same in every report; others, and second settings
    of the same method, take the next free look. Only after 24 does a look come twice.
    """
    names = [method["name"] for method in results["methods"]]
    taken = {names.index(name): _KNOWN.index(name) for name in _KNOWN if name in names}
    free = (slot for slot in range(len(names) + 5) if slot not in taken.values())
    return [
        _style(taken.get(i, -1) if i in taken else next(free))
        for i in range(len(names))
    ]


def _style(slot: int) -> Style:
    light, dark = _COLOURS[slot % len(_COLOURS)]
    marker, symbol = _MARKERS[slot % len(_MARKERS)]
    lines = ("solid", "dashed", "dotted")
    return Style(light, dark, marker, symbol, lines[slot // len(_COLOURS) % len(lines)])


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Settings under which a figure is made; the caller's own come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(theme))
        yield


def _settings(theme: Theme) -> dict[str, object]:
    return {
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        # a label is text, whatever dollar signs it holds
        "text.parse_math": False,
        "text.color": theme.ink,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.8,
        "lines.markersize": 7,
    }


def blank(width: float, height: float) -> Figure:
    """A figure of so many inches that belongs to no window and no global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Figure, text_as_paths: bool = True) -> str:
    """The figure as SVG on a transparent ground; equal figures give equal bytes.

    Args:
        figure: any figure.
        text_as_paths: paths look the same everywhere; text is smaller, can be searched
            and read aloud, and takes the reader's fonts.
    """
    settings = {
        "svg.hashsalt": "rpjax",
        "svg.fonttype": "path" if text_as_paths else "none",
    }
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    stream = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return stream.getvalue()


def png(figure: Figure, dots_per_inch: int = 160) -> bytes:
    """The figure as PNG on white; equal figures give equal bytes."""
    stream = io.BytesIO()
    figure.savefig(
        stream,
        format="png",
        dpi=dots_per_inch,
        facecolor="white",
        metadata={"Software": None},
    )
    return stream.getvalue()


def inline_svg(figure: Figure, prefix: str, title: str) -> str:
    """SVG to be put into a page: its ids, and what it styles, are its own.

    Args:
        figure: any figure.
        prefix: different for each picture of the page; letters, digits and hyphens.
        title: what a screen reader says; must be free of markup.
    """
    text = svg(figure, text_as_paths=False)
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = text.replace("*{", f"#{prefix} *{{")
    # matplotlib names the fonts it measured with; a reader may have none of them
    text = re.sub(r"font: ([\w. ]*?)'DejaVu Sans'[^;\"]*", r"font: \1" + _FONTS, text)
    size = re.search(r'viewBox="[^"]+"', text)
    opening = f'<svg id="{prefix}" role="img" aria-label="{title}" '
    opening += f'{size.group() if size else ""} xmlns="http://www.w3.org/2000/svg" '
    opening += 'xmlns:xlink="http://www.w3.org/1999/xlink">'
    return opening + text[text.index(">") + 1 :]


_FONTS = "'DejaVu Sans', Verdana, system-ui, sans-serif"
