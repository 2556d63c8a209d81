"""What all pages share: the template engine, the pictures in two themes, the marks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from rpjax.report import formats, tables
from rpjax.report.axes import WIDTH
from rpjax.report.drawing import Style, inline_svg

TEMPLATES = Path(__file__).parent


def render(name: str, contents: Mapping[str, object]) -> str:
    """A page from a template of this package and what is to stand in it.

    name: of the template, relative to this folder.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": formats.seconds,
        "size": formats.size,
        "bound": formats.upper_bound,
        "small": formats.small,
        "cell": tables.html_cell,
    }
    return _unbroken(environment.get_template(name).render(contents)) + "\n"


def _unbroken(text: str) -> str:
    """Keep a number and its unit, and an equation, on one line; commands stay as is."""
    kept = r"(<pre>.*?</pre>|<style.*?</style>|<svg.*?</svg>)"
    parts = re.split(kept, text, flags=re.DOTALL)
    for index in range(0, len(parts), 2):
        part = re.sub(" ([=≥≤]) ", "\xa0\\1\xa0", parts[index])
        part = part.replace(" %", "\xa0%")
        # a line may end after the hyphen of an exponent
        whole = r'<span class="whole">\1</span>'
        parts[index] = re.sub("(δ\xa0=\xa0[0-9.]+e-[0-9]+)", whole, part)
    return "".join(parts)


def marks(looks: Sequence[Style]) -> list[Markup]:
    """The marker of each method, in its two colours."""
    mark = Markup(
        '<span class="mark" style="--on-light:{};--on-dark:{}" aria-hidden="true">'
        "{}</span>"
    )
    return [mark.format(s.light, s.dark, s.symbol) for s in looks]


def drawings(
    light: Mapping[str, Figure],
    dark: Mapping[str, Figure],
    captions: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Each figure in both themes; the style sheet shows the one that fits."""
    return [
        {
            "name": name,
            "caption": captions[name],
            "wide": light[name].get_figwidth() > WIDTH,
            "light": _drawing(light[name], f"{name}-light", captions[name]),
            "dark": _drawing(dark[name], f"{name}-dark", captions[name]),
        }
        for name in light
    ]


def _drawing(figure: Figure, prefix: str, caption: str) -> Markup:
    return Markup(inline_svg(figure, prefix, str(escape(caption))))
