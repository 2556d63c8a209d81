"""Writing the views of a sweep: each file appears whole or not at all."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from rpjax.report import formats, pages
from rpjax.report.audits import grids
from rpjax.report.drawing import DARK, LIGHT, Theme, png, svg
from rpjax.report.sweeps.content import Sweep, proofs, states, varied
from rpjax.report.sweeps.curves import KEY, MOST_LINES, curve, lines
from rpjax.report.sweeps.maps import MOST_PANELS, heat_map, panels
from rpjax.report.sweeps.tables import NOTE, grid
from rpjax.report.words import device_name
from rpjax.report.write import put

CAPTIONS = {
    "curve": "Each metric against the first axis of the grid that holds numbers "
    f"({KEY}). Values beyond a dotted line are infinite.",
    "heat_map": "Mean test accuracy over seeds, in percent, and its 95 % interval. The "
    "framed cell has the highest mean; as the highest of many it flatters.",
}


def write(sweep: Sweep, out: Path) -> list[Path]:
    """Write sweep.html, sweep.md and figures/sweep_*.png, *.svg, as far as there are.

    A sweep of which no job is finished has no views.

    Returns:
        The files, the HTML page first.

    Raises:
        InputError: `out` cannot be written to.
    """
    if not sweep["summary"]:
        return []
    contents = {"sweep.html": page(sweep).encode(), "sweep.md": text(sweep).encode()}
    for name, figure in all_figures(sweep).items():
        contents[f"figures/sweep_{name}.png"] = png(figure)
        contents[f"figures/sweep_{name}.svg"] = svg(figure).encode()
    return put(contents, out)


def all_figures(sweep: Sweep, theme: Theme = LIGHT) -> dict[str, Figure]:
    """The figures that this sweep has enough axes, and not too many lines, for."""
    found = {}
    if len(varied(sweep)) >= 2 and len(panels(sweep)) <= MOST_PANELS:
        found["heat_map"] = heat_map(sweep, theme)
    if len(lines(sweep)) <= MOST_LINES:
        found["curve"] = curve(sweep, theme)
    return found


def text(sweep: Sweep) -> str:
    """The table and its notes in Markdown."""
    notes = "\n\n".join([NOTE, *proofs(sweep), *states(sweep)])
    return f"# {_title(sweep)}\n\n{grids.markdown(grid(sweep))}\n\n{notes}\n"


def page(sweep: Sweep) -> str:
    """The whole page."""
    contents = {
        "title": _title(sweep),
        "setting": sweep["data"]["source"] if sweep["data"] else "",
        "states": list(states(sweep)),
        "figures": pages.drawings(
            all_figures(sweep, LIGHT), all_figures(sweep, DARK), CAPTIONS
        ),
        "table": grids.html(grid(sweep)),
        "notes": [NOTE, *proofs(sweep)],
        "facts": _facts(sweep),
        "config": json.dumps(sweep["config"], indent=2, ensure_ascii=False),
    }
    return pages.render("sweeps/page.html.j2", contents)


def _title(sweep: Sweep) -> str:
    names = [axis.name for axis in varied(sweep)]
    return "Sweep over " + (" by ".join(names) if names else "seeds")


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    versions = (", ".join(f"{n} {v}" for n, v in e.items()) for e in sweep["versions"])
    return [
        ("Data", f"{sweep['data']['source']} {sweep['data']['data_hash']}"),
        ("Versions", "; ".join(versions)),
        ("Devices", "; ".join(map(device_name, sweep["devices"]))),
        ("Made", sweep["created"].replace("T", " ")),
        ("All jobs took", formats.seconds(sweep["wall_seconds"])),
    ]
