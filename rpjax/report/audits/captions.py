"""What stands beside the figures of the audit's report, and its limits."""

from rpjax.report import by_class, formats
from rpjax.report.audits.content import headline, noisy
from rpjax.report.audits.words import kind_name
from rpjax.report.results import Results


def captions(results: Results) -> dict[str, str]:
    """One caption per figure that these results give."""
    found = {
        "roc": "ROC of each method's strongest attack on the canaries of which most "
        f"are found ({_kinds(results)}), with its intervals as bands. In the grey zone "
        "fewer than ten false positives stand behind a point; markers at "
        "false-positive rates of 1 % and 10 %; the thin diagonal is guessing."
        + _ceilings(results),
        "draws": "What an attacker gains who may ask often and average: members found "
        "at 1 % false positives against the number of answers, each with fresh noise.",
        "tradeoff": "Test accuracy against the share of canaries that the strongest "
        "attack finds at 1 % false positives; up and left is better. A point for each "
        "kind of canaries, with the intervals of the tables.",
        "vulnerability": "Single canaries: how far apart the attack's scores lie with "
        "the canary in the training set and without it, in standard deviations, "
        "largest first." + _left_out(results),
        "by_class": f"{by_class.CAPTION} Canaries: {_kinds(results)}; the "
        "class is the label that they are trained with.",
        "bounds": "What audits show against what is proved. A point with an arrow: the "
        "true ε is at least that, with the stated confidence; a point at 0 shows "
        "nothing. A bar: ε is at most that, for the neighbours named above it, which "
        "need not be those of the audit.",
        "scores": "Scores of each method's strongest attack: canaries that were in the "
        "training set (filled) and canaries that were not (line). What an attack can "
        "tell apart is what does not overlap.",
    }
    if not noisy(results):
        del found["draws"]
    if not by_class.panels(results, headline):
        del found["by_class"]
    if not any(method["audits"] for method in results["methods"]):
        del found["bounds"]
    return found


def _kinds(results: Results) -> str:
    kinds = dict.fromkeys(headline(m)["kind"] for m in results["methods"])
    return ", ".join(map(kind_name, kinds))


def _ceilings(results: Results) -> str:
    told = (m["ceiling"]["statement"] for m in results["methods"] if m["ceiling"])
    return "".join(f" Dashed: {statement}" for statement in dict.fromkeys(told))


def _left_out(results: Results) -> str:
    counts = (
        (method["label"], headline(method)["effects"].count(None))
        for method in results["methods"]
    )
    found = [f"{label} {count}" for label, count in counts if count]
    if not found:
        return ""
    return f" Canaries whose scores do not vary are left out: {', '.join(found)}."


def limits(results: Results) -> list[tuple[str, str]]:
    """What the numbers do not show: a claim, and why."""
    protocol = results["protocol"]
    return [
        *_limits_of_bounds(protocol),
        *_limits_of_attacks(results),
        (
            "Residual perturbation never protects labels.",
            "Its guarantee, where there is one, is about the features of a record "
            "whose label is public. Canaries that are added or removed, and "
            "mislabelled ones above all, test another promise.",
        ),
        (
            "Seeds are fixed.",
            f"Coins come from the seeds {protocol['coin_seed_a']} (A) and "
            f"{protocol['coin_seed_b']} (B), training from seed {results['seed']}: "
            "that makes the audit repeatable, and the models unfit to be published as "
            "private ones.",
        ),
    ]


def _limits_of_bounds(protocol: dict) -> list[tuple[str, str]]:
    return [
        (
            "A small lower bound proves nothing.",
            "It says that these attacks, on so many models, refuted no more. The true "
            "ε may be anything above; only a guarantee bounds it, under its "
            "assumptions.",
        ),
        (
            "Only set B gives bounds.",
            "Rates, areas and curves are of the models of set A, attacked two at a "
            "time by the others, with thresholds from the pooled scores: they are "
            f"estimates. The bounds come from the {protocol['models_b']} models of set "
            "B, whose independent coins nothing was tuned on.",
        ),
        (
            "The largest of many is partly luck.",
            "The strongest attack and the worst canaries are picked by the very rates "
            "that are printed for them: read close values as equal.",
        ),
    ]


def _limits_of_attacks(results: Results) -> list[tuple[str, str]]:
    fewest = min(e["non_members"] for m in results["methods"] for e in m["exposure"])
    return [
        (
            "Canaries are chosen records.",
            "They were made to be found. What is found of ordinary records is less on "
            "average, and for a few of them not.",
        ),
        (
            "One noisy answer says nothing about published weights.",
            "A T1 figure is about one answer per record. Whoever has the weights can "
            "switch the noise off (T4); whoever may ask often averages it away (T2).",
        ),
        (
            "Low false-positive rates are coarse.",
            f"With {fewest} non-members, rates below "
            f"{formats.percent(min(1.0, 10 / max(1, fewest)), 2)} rest on fewer than "
            "ten false positives.",
        ),
    ]
