"""The tables of the audit's report, as grids of cells ready to print."""

from rich import box
from rich.table import Table
from rich.text import Text

from rpjax.report import formats
from rpjax.report.audits import words
from rpjax.report.audits.content import (
    HEADLINE_FPR,
    LOW_FPR,
    audited,
    headline,
    point,
    strongest,
)
from rpjax.report.grids import Grid, Row
from rpjax.report.results import Results
from rpjax.report.tables import Cell, auc, percent

PRIORS = (0.5, 0.1, 0.01)
TOP = 10


# Attacks on one kind of canaries -----------------------------------------------------


def attacks(entry: dict) -> Grid:
    """Threat by attack: how well each attack on one kind of canaries did."""
    priors = (f"PPV, {100 * prior:g} % members" for prior in PRIORS)
    headings = ("Attack", "Threat", "AUC", "Balanced accuracy")
    rates = (f"TPR @ {100 * rate:g} % FPR" for rate in (HEADLINE_FPR, LOW_FPR))
    ordered = sorted(entry["attacks"], key=lambda a: (a["threat"], _rank(a)))
    rows = [_attack(entry, attack) for attack in ordered]
    return Grid((*headings, *rates, *priors), rows, numbers=2)


def _rank(attack: dict) -> float:
    return -float(point(attack)["tpr"])


def _attack(entry: dict, attack: dict) -> Row:
    rates = [point(attack, target) for target in (HEADLINE_FPR, LOW_FPR)]
    cells = (
        Cell(attack["label"], note=_remark(entry, attack)),
        Cell(attack["threat"]),
        auc(attack["auc"]),
        percent(attack["balanced_accuracy"]),
        *map(rate, rates),
        *(_precision(attack, prior) for prior in PRIORS),
    )
    strong = attack["name"] == entry["strongest"]
    few = (k for k, found in enumerate(rates, start=4) if found["below_resolution"])
    return Row(cells, strong, frozenset(few))


def _remark(entry: dict, attack: dict) -> str:
    if attack["name"] == entry["strongest"]:
        return "strongest"
    leads = entry["by_threat"].get(attack["threat"]) == attack["name"]
    return f"strongest at {attack['threat']}" if leads else ""


def rate(found: dict) -> Cell:
    """A true-positive rate with its counts; a poorly resolved one says so."""
    interval = formats.percent_interval(found["low"], found["high"])
    counts = f"{found['false_positives']} FP, {found['true_positives']} TP"
    at = f"at {words.exact_percent(found['realised_fpr'])}"
    few = "<10 FP: " if found["below_resolution"] else ""
    return Cell(formats.percent(found["tpr"]), interval, f"{few}{counts}, {at}")


def _precision(attack: dict, prior: float) -> Cell:
    same = (p for p in attack["ppv"] if abs(p["prior"] - prior) < 1e-9)
    found = next(same, None)
    if found is None or found["value"] is None:
        return Cell(formats.NONE)
    return percent(found)


# Audits ------------------------------------------------------------------------------


def audits(results: Results) -> Grid:
    """Every lower bound beside what is proved, and whether the two can be compared."""
    headings = ("Method", "Audited", "ε at least", "Guesses", "Proved", "Side by side")
    rows = [
        Row(
            (
                Cell(method["label"]),
                Cell(words.audit_query(audit), note=audit["attack_label"]),
                Cell(
                    f"ε ≥ {formats.lower_bound(audit['epsilon'])}",
                    note=f"{audit['kind']}: {words.audit_terms(audit)}",
                ),
                Cell(
                    f"{audit['correct']} of {audit['guesses']} right",
                    note=f"{audit['coins']} coins ({words.coins(audit)})",
                ),
                words.proved(method),
                Cell("", note=words.side_by_side(audit, method)),
            ),
            strong=audit is audited(method) and len(method["audits"]) > 1,
        )
        for method in results["methods"]
        for audit in method["audits"]
    ]
    return Grid(headings, rows, numbers=len(headings))


def figures(results: Results) -> Grid:
    """The other numbers of the audits, each with what it is."""
    headings = ("Method", "Audited", "Number", "What it is", "Method of it", "Rests on")
    rows = [
        Row(
            (
                Cell(method["label"]),
                Cell(words.audit_query(audit), note=audit["attack_label"]),
                Cell(words.figure(found)),
                Cell(found["kind"] + (", no bound" if _loose(found) else "")),
                Cell("", note=found["method"]),
                Cell("", note=found["condition"]),
            )
        )
        for method in results["methods"]
        for audit in method["audits"]
        for found in audit["figures"]
    ]
    return Grid(headings, rows, numbers=len(headings))


def _loose(found: dict) -> bool:
    return bool(found["kind"] != "bound")


def claims(results: Results) -> Grid:
    """The claims that were put to the test."""
    headings = ("Method", "Audited", "Claim", "p-value", "Outcome")
    rows = [
        Row(
            (
                Cell(method["label"]),
                Cell(words.audit_query(audit), note=audit["attack_label"]),
                Cell(f"{words.symbol(claim)} = {claim['claimed']:g}"),
                Cell(formats.small(claim["p_value"])),
                Cell("refuted" if claim["refuted"] else "not refuted"),
            ),
            strong=claim["refuted"],
        )
        for method in results["methods"]
        for audit in method["audits"]
        for claim in audit["claims"]
    ]
    return Grid(headings, rows, numbers=len(headings))


# Shadows of another kind, and single canaries ----------------------------------------


def contrast(results: Results) -> Grid:
    """What an attacker loses whose shadow models are not defended."""
    headings = ("Method", "Canaries", "Shadows like the target", "Undefended shadows")
    rows = [
        Row(
            (
                Cell(method["label"]),
                Cell(words.kind_name(entry["kind"])),
                _brief(strongest(entry)),
                _brief(entry["mismatched"]["attack"], entry["mismatched"]["with"]),
            )
        )
        for method in results["methods"]
        for entry in method["exposure"]
        if entry["mismatched"]
    ]
    return Grid(headings, rows, numbers=2)


def _brief(attack: dict, shadows: str = "") -> Cell:
    found = point(attack)
    like = f"; shadows: {shadows}" if shadows else ""
    few = "<10 FP; " if found["below_resolution"] else ""
    interval = formats.percent_interval(found["low"], found["high"])
    rest = f"AUC {formats.auc(attack['auc']['value'])}, {attack['label']}{like}"
    return Cell(formats.percent(found["tpr"]), interval, few + rest)


def exposed(entry: dict, most: int = TOP) -> Grid:
    """The canaries that are found in most models, worst first."""
    headings = ("Record", "Label", "Found where it was in", "Found where it was not")
    rows = [
        Row(
            (
                Cell(str(found["record"])),
                Cell(str(found["label"])),
                percent(found["tpr"])._replace(note=f"{found['tpr']['n']} models"),
                percent(found["fpr"])._replace(note=f"{found['fpr']['n']} models"),
                Cell(effect(found["effect"])),
            )
        )
        for found in entry["most_exposed"][:most]
    ]
    return Grid((*headings, "Effect size"), rows)


def effect(value: float | None) -> str:
    """An effect size; none where the scores of a canary do not vary.

    >>> effect(2.345), effect(None)
    ('2.35', 'no spread')
    """
    return "no spread" if value is None else f"{value:.2f}"


# Terminal ----------------------------------------------------------------------------


def table(results: Results, width: int = 100) -> Table:
    """Per method the strongest attack on the headline canaries, and the audit.

    Args:
        results: a checked attacks dictionary.
        width: columns of the terminal. Below 110 what is proved stands below the bound,
            below 98 the AUC below the rate.
    """
    apart, areas = width >= 110, width >= 98
    view = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        caption="\n".join(words.terminal_notes(results)),
        caption_justify="left",
        caption_style="dim",
    )
    last = [("Bound", (14, 20)), ("Proved", (18, 26))] if apart else [("ε", (22, 26))]
    columns = [
        ("Method", (12, 24)),
        ("Canaries,\nstrongest attack", (12, 22)),
        ("TPR @\n1 % FPR", (14, 14)),
        *([("AUC", (14, 14))] if areas else []),
        *last,
    ]
    for heading, (low, high) in columns:
        view.add_column(Text(heading), min_width=low, max_width=high, overflow="fold")
    for method in results["methods"]:
        cells = ("\n".join(lines) for lines in _terminal_cells(method, apart, areas))
        view.add_row(*map(Text, cells))
        view.add_row()
    return view


def _terminal_cells(method: dict, apart: bool, areas: bool) -> list[list[str]]:
    entry = headline(method)
    attack = strongest(entry)
    found = rate(point(attack))
    short = found._replace(note=found.note.partition(", ")[0])
    area = auc(attack["auc"]).lines()
    bound, proof = words.audited_lines(method), words.proved(method).lines()
    below = ["proved:", *proof] if len(proof) > 1 else proof
    return [
        [method["label"]],
        [f"{words.kind_name(entry['kind'])}, {attack['threat']}", attack["label"]],
        *([short.lines(), area] if areas else [[*short.lines(), "AUC " + area[0]]]),
        *([bound, proof] if apart else [[*bound, *below]]),
    ]
