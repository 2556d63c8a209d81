"""The audit's report in Markdown; its figures are PNG files beside it."""

from collections.abc import Iterable

from rpjax.report import by_class, grids
from rpjax.report.audits import tables, words
from rpjax.report.audits.captions import captions, limits
from rpjax.report.audits.content import headline
from rpjax.report.results import Results
from rpjax.report.tables import markdown_text as plain


def text(results: Results) -> str:
    """The whole file, from a checked attacks dictionary."""
    sections = [
        _opening(results),
        _attacks(results),
        _audits(results),
        _figures(results),
        _contrast(results),
        _exposed(results),
        by_class.markdown(results, _kind),
        _limits(results),
        _reproduction(results),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _opening(results: Results) -> str:
    verdicts = _bullets(
        f"**{plain(method['label'])}**: {plain(words.verdict(method))}"
        for method in results["methods"]
    )
    controls = _bullets(
        f"{name}: **{said}**. {plain(told)}"
        for name, said, told in words.controls(results)
    )
    alarm = words.distrust(results)
    heading = f"# {plain(words.title(results))}"
    parts = [heading, plain(words.setting(results)), alarm and f"**{alarm}**"]
    return "\n\n".join([*filter(None, parts), verdicts, controls])


def _attacks(results: Results) -> str:
    levels = _bullets(
        f"**{plain(threat)}**: {plain(meaning)}"
        for threat, meaning in words.threats(results)
    )
    notes = "\n".join(f"{plain(note)}  " for note in words.attack_notes(results))
    parts = ["## What each attack finds", levels, notes]
    for method in results["methods"]:
        for entry in method["exposure"]:
            kind = words.kind_name(entry["kind"])
            parts.append(f"### {plain(method['label'])}: {plain(kind)}")
            parts.append(grids.markdown(tables.attacks(entry)))
    return "\n\n".join(parts)


def _audits(results: Results) -> str:
    named = {
        "## Audits: lower bounds beside proofs": tables.audits(results),
        "### Other numbers of the audits": tables.figures(results),
        "### Claims put to the test": tables.claims(results),
    }
    parts = [
        f"{heading}\n\n{grids.markdown(grid)}"
        for heading, grid in named.items()
        if grid.rows
    ] or ["## Audits\n\nNo method was audited."]
    return "\n\n".join([*parts, _bullets(map(plain, words.audit_notes(results)))])


def _figures(results: Results) -> str:
    parts = [
        f"![{name}](figures/attacks_{name}.png)\n\n{plain(caption)}"
        for name, caption in captions(results).items()
    ]
    return "## Figures\n\n" + "\n\n".join(parts)


def _contrast(results: Results) -> str:
    grid = tables.contrast(results)
    if not grid.rows:
        return ""
    return f"## Shadow models unlike the target\n\n{grids.markdown(grid)}"


def _exposed(results: Results) -> str:
    parts = ["## Most exposed canaries", "All that are listed: most_exposed.csv."]
    for method in results["methods"]:
        entry = headline(method)
        kind = words.kind_name(entry["kind"])
        parts.append(f"### {plain(method['label'])}, {plain(kind)}")
        parts.append(grids.markdown(tables.exposed(entry)))
    return "\n\n".join(parts)


def _kind(entry: dict) -> str:
    return words.kind_name(entry["kind"])


def _limits(results: Results) -> str:
    lines = (f"**{plain(claim)}** {plain(why)}" for claim, why in limits(results))
    parts = ["## What this does not show", _bullets(lines)]
    if told := words.warnings(results):
        parts += ["## Warnings", _bullets(map(plain, told))]
    return "\n\n".join(parts)


def _reproduction(results: Results) -> str:
    facts = _bullets(
        f"{name}: {plain(value)}" for name, value in words.reproduction(results)
    )
    return f"## Reproduction\n\n```\n{results['command']}\n```\n\n{facts}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
