"""The sentences of the audit's report: verdicts, terms of a bound, captions, notes."""

from rpjax.report import formats
from rpjax.report.audits.content import (
    audited,
    comparable,
    contradicted,
    headline,
    point,
    proofs,
    strongest,
)
from rpjax.report.results import Results, confidence
from rpjax.report.tables import Cell
from rpjax.report.words import THREATS, provenance

NOT_AUDITED = "not audited"
NOTHING = "nothing proved"


def title(results: Results) -> str:
    """The heading of the report."""
    return f"What attacks and audits find on {results['data']['name']}"


def setting(results: Results) -> str:
    """Which models were attacked, and what was planted in them."""
    data, protocol = results["data"], results["protocol"]
    shape = " × ".join(str(size) for size in data["shape"])
    planted: dict[str, list[str]] = {}
    for kind in protocol["kinds"]:
        share = formats.percent(kind["share"])
        number = f"{kind['count']} canaries ({share} of the fixed records)"
        planted.setdefault(number, []).append(kind_name(kind["kind"]))
    told = "; ".join(f"{number}: {', '.join(k)}" for number, k in planted.items())
    return (
        f"{data['name']}: {data['classes']} classes, images {shape}; {data['fixed']} "
        f"records in every training set, about {data['expected_records']:g} with "
        f"canaries, {data['test_records']} for the test accuracy. For each method and "
        f"kind of canaries, {protocol['models_a']} models to tune on (set A) and "
        f"{protocol['models_b']} to audit (set B). {told}."
    )


def kind_name(kind: str) -> str:
    """A kind of canaries as it is said.

    >>> kind_name("out_of_distribution")
    'out of distribution'
    """
    return kind.replace("_", " ")


def exact_percent(fraction: float) -> str:
    """A small rate in percent, two significant digits.

    >>> exact_percent(0.0096875), exact_percent(0.0)
    ('0.97 %', '0 %')
    """
    return f"{100 * fraction:.2g} %"


# Verdict -----------------------------------------------------------------------------


def verdict(method: dict) -> str:
    """One method: the strongest attack on its worst canaries, the bound, the proof."""
    return f"{_found(method)}; {_bound(method)}; {_proof(method)}."


def _found(method: dict) -> str:
    entry = headline(method)
    attack = strongest(entry)
    found = point(attack)
    ends = formats.percent_interval(found["low"], found["high"], digits=0)
    few = ", too few to read closely" if found["below_resolution"] else ""
    return (
        f"{attack['threat']}, {kind_name(entry['kind'])} canaries: {attack['label']} "
        f"finds {' '.join(filter(None, (formats.percent(found['tpr']), ends)))} at "
        f"{exact_percent(found['realised_fpr'])} false positives "
        f"({found['false_positives']} of {entry['non_members']}{few})"
    )


def _bound(method: dict) -> str:
    audit = audited(method)
    if audit is None:
        return NOT_AUDITED
    bound = formats.lower_bound(audit["epsilon"])
    terms = f"{audit_terms(audit)}, one-run bound, {coins(audit)} coins"
    nothing = ", which refutes nothing and proves nothing" if bound == "0" else ""
    return f"ε ≥ {bound} ({terms}){_elsewhere(audit, method)}{nothing}"


def _elsewhere(audit: dict, method: dict) -> str:
    """Where the bound comes from, if not from the attack named before it."""
    entry = headline(method)
    own = strongest(entry)
    named = (own["threat"], entry["kind"], own["name"])
    if (audit["threat"], audit["canaries"], audit["attack"]) == named:
        return ""
    return f" by {audit_query(audit)}, {audit['attack_label']}"


def _proof(method: dict) -> str:
    cell = proved(method)
    if not cell.note:
        return NOTHING
    warnings = [
        f"; the bound of {audit_query(audit)} lies above it: one of the two is wrong"
        for audit in method["audits"]
        if contradicted(audit, method)
    ]
    return f"accountant: {cell.value} ({cell.note}){''.join(warnings)}"


def proved(method: dict) -> Cell:
    """The proved upper bound, never without its delta and its neighbours."""
    proof = method["guarantee"]
    if proof["epsilon"] is not None:
        epsilon = formats.upper_bound(proof["epsilon"])
        delta = formats.small(proof["delta"])
        return Cell(f"ε ≤ {epsilon} at δ = {delta}", note=proof["adjacency"])
    if proof["mu"] is not None:
        mu = formats.upper_bound(proof["mu"])
        return Cell(f"μ ≤ {mu} (Gaussian DP)", note=proof["adjacency"])
    return Cell(NOTHING)


def audit_query(audit: dict) -> str:
    """What was audited: the level of access and the canaries."""
    return f"{audit['threat']}, {kind_name(audit['canaries'])} canaries"


def audit_terms(audit: dict) -> str:
    """What a bound holds at: confidence, delta, neighbours."""
    level = f"{100 * audit['confidence']:g} %"
    return f"{level}, δ = {formats.small(audit['delta'])}, {audit['adjacency']}"


def coins(audit: dict) -> str:
    """How the coins came about: models of set B times canaries."""
    return f"{audit['models_b']} × {audit['coins'] // max(1, audit['models_b'])}"


def audited_lines(method: dict) -> list[str]:
    """The best bound, for a narrow column."""
    audit = audited(method)
    if audit is None:
        return [NOT_AUDITED]
    bound = formats.lower_bound(audit["epsilon"])
    return [f"ε ≥ {bound} at δ = {formats.small(audit['delta'])}", audit["adjacency"]]


def side_by_side(audit: dict, method: dict) -> str:
    """Whether bound and proof speak of the same thing, and what follows."""
    if wrong := contradicted(audit, method):
        epsilon = formats.upper_bound(wrong[0]["epsilon"])
        return (
            f"CONTRADICTION: the bound lies above ε ≤ {epsilon}, proved for the same "
            "neighbours. The proof, its premises or the audit is wrong."
        )
    if same := comparable(audit, method):
        own = same[0]
        if own is method["guarantee"]:
            return "Same neighbours; no contradiction."
        bound = f"ε ≤ {formats.upper_bound(own['epsilon'])}"
        at = f"δ = {formats.small(own['delta'])}"
        return f"For these neighbours {bound} at {at} ({own['accountant']})."
    if proved(method).note:
        above = any(own["epsilon"] < audit["epsilon"] for own in proofs(method))
        return (
            "Other neighbours than the proof's: that the bound lies above the proved ε "
            "is no contradiction."
            if above
            else "Other neighbours than the proof's: the two cannot be compared."
        )
    return "Nothing is proved: the bound stands alone."


def symbol(found: dict) -> str:
    """The letter of what a claim or a figure is about."""
    return {"epsilon": "ε", "mu": "μ"}.get(found["name"], str(found["name"]))


def figure(found: dict) -> str:
    """One of the further numbers of an audit."""
    if found["value"] is None:
        return f"{symbol(found)}: unbounded"
    low = formats.lower_bound(found["value"])
    if found["upper"] is None:
        return f"{symbol(found)} ≥ {low}"
    return f"{symbol(found)} in [{low}, {formats.upper_bound(found['upper'])}]"


def controls(results: Results) -> list[tuple[str, str, str]]:
    """Name, outcome and text of the two controls."""
    said = {True: "passed", False: "FAILED", None: "not run"}
    return [
        (f"{name.capitalize()} control", said[found["passed"]], found["text"])
        for name, found in results["controls"].items()
        if name in ("positive", "negative")
    ]


def distrust(results: Results) -> str | None:
    """What stands above everything where a control failed."""
    failed = [name.lower() for name, said, _ in controls(results) if said == "FAILED"]
    if not failed:
        return None
    return f"Do not rely on the numbers below: the {' and the '.join(failed)} failed."


# Notes -------------------------------------------------------------------------------


def threats(results: Results) -> list[tuple[str, str]]:
    """The threat levels that occur, each with what the attacker is given."""
    met = {
        attack["threat"]
        for method in results["methods"]
        for entry in method["exposure"]
        for attack in entry["attacks"]
    }
    met |= {audit["threat"] for m in results["methods"] for audit in m["audits"]}
    return [(threat, THREATS.get(threat, "")) for threat in sorted(met)]


def attack_notes(results: Results) -> list[str]:
    """What a reader of the tables of attacks has to know."""
    return [
        f"Brackets: {confidence(results)} intervals. TPR: share of the canaries in a "
        "model that are found; FPR: share of those not in it that are taken for "
        "members, with the counts behind both (TP, FP) and the rate that was reached.",
        "Grey and “<10 FP”: so few false positives stand behind this rate that only "
        "its order of magnitude counts.",
        "PPV: share of the accused that are members, if 50, 10 or 1 % of all records "
        "that are asked about are; at the threshold of the TPR at 1 % FPR.",
        "Strongest: of the largest TPR at 1 % FPR, as marked in attacks.json.",
    ]


def audit_notes(results: Results) -> list[str]:
    """What a reader of the audits has to know."""
    found = []
    if any(method["audits"] for method in results["methods"]):
        found.append(
            "ε at least: with the stated confidence, training and releasing one model "
            "on these data is not (ε, δ)-private for a smaller ε, for the stated "
            "neighbours. The guesses were fixed on set A before set B was looked at."
        )
    for method in results["methods"]:
        told = [audit["tests"] for audit in method["audits"]]
        if told and min(told) < len(told):
            found.append(
                f"{method['label']}: {len(told)} audits, corrected for {min(told)}: "
                "the largest of the bounds holds with less than its confidence."
            )
    quiet = [
        f"{method['label']} {formats.percent(method['negative']['share_zero'])} of "
        f"{method['negative']['repetitions']}"
        for method in results["methods"]
    ]
    return [*found, f"Bounds of 0 where the coins are shuffled: {'; '.join(quiet)}."]


def warnings(results: Results) -> list[str]:
    """All warnings, of the run, of methods and of audits; equal ones told once."""
    labels = {method["name"]: method["label"] for method in results["methods"]}
    told: dict[str, list[str]] = {}
    for warning in results["warnings"]:
        name = warning["method"]
        told.setdefault(warning["text"], []).append(labels.get(name, name or ""))
    for method in results["methods"]:
        for audit in method["audits"]:
            for text in audit["warnings"]:
                told.setdefault(text, []).append(method["label"])
    where = {t: "; ".join(filter(None, dict.fromkeys(w))) for t, w in told.items()}
    return [f"{place}: {text}" if place else text for text, place in where.items()]


def terminal_notes(results: Results) -> list[str]:
    """What stands below the table of a terminal."""
    return [
        *filter(None, [distrust(results)]),
        *(f"{name}: {said}. {text}" for name, said, text in controls(results)),
        f"Brackets: {confidence(results)} intervals. ε ≥: the largest bound of the "
        "method's audits. <10 FP: only the order of magnitude counts.",
        *(f"Warning: {text}" for text in warnings(results)),
    ]


def reproduction(results: Results) -> list[tuple[str, str]]:
    """What is needed to make these results again."""
    protocol = results["protocol"]
    coin_seeds = f"A {protocol['coin_seed_a']}, B {protocol['coin_seed_b']}"
    return [
        ("Seed", f"{results['seed']} (coins: {coin_seeds})"),
        ("Queries", f"{protocol['draws']} draws of noise, {protocol['views']} views"),
        *provenance(results),
    ]
