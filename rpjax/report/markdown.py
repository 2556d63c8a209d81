"""The report in Markdown: shorter, its figures are PNG files beside it."""

from collections.abc import Iterable

from rpjax.report import by_class, classes, formats, grids, limits, tables, words
from rpjax.report.results import Results
from rpjax.report.tables import markdown_text as plain


def text(results: Results) -> str:
    """The whole file, from a checked results dictionary."""
    sections = [
        _opening(results),
        f"## Methods compared\n\n{tables.markdown(results).rstrip()}",
        *_classes(results),
        _figures(results),
        _guarantees(results),
        _attacker(results),
        by_class.markdown(results, _asked),
        _limits(results),
        _reproduction(results),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _opening(results: Results) -> str:
    summary = "  \n".join(f"**{plain(line)}**" for line in words.summary(results))
    verdicts = _bullets(
        f"**{plain(method['label'])}**: {plain(words.verdict(method))}"
        for method in results["methods"]
    )
    heading = f"# {plain(words.title(results))}"
    return f"{heading}\n\n{plain(words.setting(results))}\n\n{summary}\n\n{verdicts}"


def _classes(results: Results) -> list[str]:
    grid = classes.grid(results)
    if grid is None:
        return []
    return ["## Classes", grids.markdown(grid), plain(classes.note(results))]


def _figures(results: Results) -> str:
    parts = [
        f"![{name}](figures/{name}.png)\n\n{plain(caption)}"
        for name, caption in words.captions(results).items()
    ]
    return "## Figures\n\n" + "\n\n".join(parts)


def _guarantees(results: Results) -> str:
    parts = [_guarantee(method) for method in results["methods"]]
    return "## What each method guarantees\n\n" + "\n".join(parts)


def _guarantee(method: dict) -> str:
    proof = method["guarantee"]
    lines = [proof["statement"]]
    if proof["assumptions"]:
        lines.append(f"Assumes: {'; '.join(proof['assumptions'])}.")
    if proof["not_covered"]:
        lines.append(f"Does not cover: {'; '.join(proof['not_covered'])}.")
    lines += [
        f"Also ε = {formats.upper_bound(other['epsilon'])} at "
        f"δ = {formats.small(other['delta'])}, {other['adjacency']} "
        f"({other['accountant']})."
        for other in proof["alternatives"]
    ]
    short = " ".join(tables.guarantee(method).lines())
    return f"- **{plain(method['label'])}** ({plain(short)}): {plain(' '.join(lines))}"


def _attacker(results: Results) -> str:
    levels = _bullets(
        f"**{plain(threat)}**: {plain(meaning)}"
        for threat, meaning in words.threats(results)
    )
    head = "| Method | Level | Query | Attack | AUC |\n| --- | --- | --- | --- | ---: |"
    lines = [
        _attack_row(method, entry, attack)
        for method in results["methods"]
        for entry in method["exposure"]
        for attack in entry["attacks"]
    ]
    table = "\n".join([head, *lines]) if lines else "No method was attacked."
    parts = ["## What the attacker was allowed", levels, table]
    return "\n\n".join(part for part in parts if part)


def _attack_row(method: dict, entry: dict, attack: dict) -> str:
    auc = " ".join(tables.auc(attack["auc"]).lines())
    cells = (method["label"], entry["threat"], entry["query"], attack["label"], auc)
    return f"| {' | '.join(map(plain, cells))} |"


def _asked(entry: dict) -> str:
    return f"{entry['threat']}, {entry['query']}"


def _limits(results: Results) -> str:
    lines = (
        f"**{plain(claim)}** {plain(why)}" for claim, why in limits.limits(results)
    )
    return "## What this does not show\n\n" + _bullets(lines)


def _reproduction(results: Results) -> str:
    facts = _bullets(
        f"{name}: {plain(value)}" for name, value in words.reproduction(results)
    )
    return f"## Reproduction\n\n```\n{results['command']}\n```\n\n{facts}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
