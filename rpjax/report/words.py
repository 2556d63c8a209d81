"""The sentences of the report: verdict, captions, threat levels, reproduction."""

from rpjax.report import by_class, formats, imbalance, tables
from rpjax.report.results import (
    Results,
    attacked,
    deployed,
    largest_auc,
    largest_tpr,
    noise_off,
    strongest,
)

THREATS = {
    "T1": "one answer per record, as the deployed model gives it",
    "T2": "several answers per record, each with fresh noise",
    "T3": "the averaged answer of the deployed system",
    "T4": "the weights themselves, with the noise switched off or chosen",
    "T5": "the weights, chosen records in the training set, and all other data",
}


def title(results: Results) -> str:
    """The heading of the report."""
    return f"Privacy and accuracy on {results['data']['name']}"


def setting(results: Results) -> str:
    """What was trained on what."""
    data, count = results["data"], len(results["methods"])
    shape = " × ".join(str(size) for size in data["shape"])
    return (
        f"{_number(count, 'method')} on {data['name']}: {data['classes']} classes, "
        f"images {shape}; {data['members']} records in training (members), "
        f"{data['non_members']} left out (non-members), "
        f"{data['test_records']} for the test accuracy."
    )


def summary(results: Results) -> list[str]:
    """The verdict over all methods, in at most four sentences."""
    methods = results["methods"]
    sentences = []
    if len(methods) > 1:
        sentences.append(_most_accurate(methods))
        sentences += _exposed([m for m in methods if deployed(m)])
    sentences += _noise_matters([m for m in methods if noise_off(m)])
    warning = tables.incomparable(tables.neighbours(results))
    proved = _guaranteed(methods)
    return [*sentences, f"{proved} {warning}" if warning else proved]


def _most_accurate(methods: list[dict]) -> str:
    best = max(methods, key=lambda m: m["utility"]["test_accuracy"]["value"])
    accuracy = tables.percent(best["utility"]["test_accuracy"])
    return f"Highest test accuracy: {best['label']}, {_said(accuracy)}."


def _exposed(methods: list[dict]) -> list[str]:
    if not methods:
        return ["No method was attacked."]
    ordered = sorted(methods, key=_exposure)
    least, most = ordered[0], ordered[-1]
    if least is most:
        return []
    return [
        f"Most exposed to the attacks tried: {most['label']}, "
        f"AUC {formats.auc(_exposure(most))}; "
        f"least: {least['label']}, AUC {formats.auc(_exposure(least))} "
        f"(0.5 is guessing{_overlap(least, most)})."
    ]


def _overlap(least: dict, most: dict) -> str:
    """A warning where the difference may be chance."""
    high, low = (_auc(least)["high"], _auc(most)["low"])
    if high is None or low is None or high < low:
        return ""
    return "; their intervals overlap, so the order may be chance"


def _auc(method: dict) -> dict:
    exposure = deployed(method)
    assert exposure is not None
    auc: dict = strongest(exposure)["auc"]
    return auc


def _exposure(method: dict) -> float:
    return largest_auc(deployed(method))


def _noise_matters(methods: list[dict]) -> list[str]:
    """Where switching the noise off helps the attacker most."""
    rise = lambda m: _quiet(m) - _exposure(m)
    worst = max(methods, key=rise, default=None)
    if worst is None or rise(worst) <= 0:
        return []
    return [
        f"An attacker who has the weights and switches the noise off raises the AUC "
        f"against {worst['label']} from {formats.auc(_exposure(worst))} to "
        f"{formats.auc(_quiet(worst))}."
    ]


def _quiet(method: dict) -> float:
    return largest_auc(noise_off(method))


def _guaranteed(methods: list[dict]) -> str:
    proved = [
        f"{method['label']} ({' '.join(tables.guarantee(method).lines())})"
        for method in methods
        if tables.guarantee(method).note
    ]
    if not proved:
        return "Nothing is proved for any of these models."
    others = "; for no other method" if len(proved) < len(methods) else ""
    return f"A guarantee is proved for {'; '.join(proved)}{others}."


def verdict(method: dict) -> str:
    """One line per method: accuracy, strongest attack, guarantee."""
    accuracy = _said(tables.percent(method["utility"]["test_accuracy"]))
    proof = tables.guarantee(method)
    promise = f"Guarantee: {_said(proof)}." if proof.note else "No guarantee."
    return f"Test accuracy {accuracy}. {_attacked(method)} {promise}"


def _attacked(method: dict) -> str:
    entry = deployed(method)
    if entry is None:
        return "Not attacked."
    attack = strongest(entry)
    low = attack["auc"]["low"]
    guessing = low is not None and low <= 0.5 <= attack["auc"]["high"]
    remark = ", not distinguished from guessing" if guessing else ""
    return (
        f"Strongest attack ({tables.short(attack['label'])}): "
        f"AUC {_said(tables.auc(attack['auc']))}{remark}{_found(entry, attack)}."
    )


def _found(entry: dict, attack: dict) -> str:
    found = largest_tpr(entry, tables.HEADLINE_FPR)
    if not found:
        return ""
    rate = tables.tpr(found[1])
    other = tables.short(found[0]["label"])
    by = "" if found[0] is attack else f", by {other}"
    few = f", from {found[1]['false_positives']} false positives" if rate.note else ""
    return f"; {rate.value} {rate.interval} of members found at 1 % FPR{few}{by}"


def _said(cell: tables.Cell) -> str:
    return " ".join(cell.lines())


def captions(results: Results) -> dict[str, str]:
    """One caption per figure that these results give."""
    return {
        **(_captions_of_attacks(results) if attacked(results) else {}),
        **(
            {"by_class": by_class.CAPTION} if by_class.panels(results, deployed) else {}
        ),
        **({"class_counts": imbalance.CAPTION} if imbalance.table(results) else {}),
        "training": "Loss and accuracy on the training batches, averaged between "
        "entries. With noise in the network, these are noisy predictions.",
        "cost": "Time per epoch and memory, relative to plain training (dashed). "
        + " ".join(_cost_notes(results)),
    }


def _captions_of_attacks(results: Results) -> dict[str, str]:
    return {
        "tradeoff": "Test accuracy against the AUC of the strongest attack; up and "
        "left is better. Bars are the intervals of the table." + _hollow(results),
        "roc": "ROC of the strongest attack on each deployed model, both axes "
        "logarithmic: what matters is how many members are found at few false "
        "accusations. Markers at false-positive rates of 1 % and 10 %; the thin "
        "diagonal is guessing; rates of zero lie on the edge.",
    }


def _hollow(results: Results) -> str:
    if not any(noise_off(method) for method in results["methods"]):
        return ""
    return (
        " A hollow marker is the same model after the attacker has switched its noise "
        "off, drawn at the same accuracy."
    )


def _cost_notes(results: Results) -> list[str]:
    costs = [method["cost"] for method in results["methods"]]
    timing = dict.fromkeys(c["timing_note"] for c in costs if c["timing_note"])
    memory = dict.fromkeys(c["memory_kind"] for c in costs if c["memory_kind"])
    found = [f"Time: {note}." for note in timing]
    return found + [f"Memory: {kind}." for kind in memory] + _ways(results)


def _ways(results: Results) -> list[str]:
    """That the nets were computed in different ways, if they were."""
    methods: dict[str, list[str]] = {}
    for method in results["methods"]:
        if way := method["cost"].get("convolution"):
            methods.setdefault(way, []).append(method["label"])
    if len(methods) < 2:
        return []
    told = "; ".join(f"{', '.join(own)} by {way}" for way, own in methods.items())
    return [f"Convolutions were not computed alike: {told}."]


def threats(results: Results) -> list[tuple[str, str]]:
    """The threat levels that occur, each with what the attacker is given."""
    met = {entry["threat"] for m in results["methods"] for entry in m["exposure"]}
    return [(threat, THREATS.get(threat, "")) for threat in sorted(met)]


def device_name(device: dict) -> str:
    """The device in words.

    >>> device_name({"platform": "cpu", "kind": "cpu", "count": 1, "host_cores": 2})
    '1 × cpu, 2 host cores'
    """
    kind, platform = device["kind"], device["platform"]
    name = kind if kind.lower() == platform.lower() else f"{kind} ({platform})"
    cores = device["host_cores"]
    host = f", {_number(cores, 'host core')}" if cores else ""
    return f"{device['count']} × {name}{host}"


def reproduction(results: Results) -> list[tuple[str, str]]:
    """What is needed to make these results again."""
    seed = f"{results['seed']} (noise: {results['noise_seed']})"
    return [("Seed", seed), *provenance(results)]


def provenance(results: Results) -> list[tuple[str, str]]:
    """Settings, data, versions and machine behind results of any kind."""
    versions = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
    return [
        ("Configuration", results["config_hash"]),
        ("Data", f"{results['data']['source']} {results['data'].get('data_hash', '')}"),
        ("Versions", versions),
        ("Device", device_name(results["device"])),
        ("Made", results["created"].replace("T", " ")),
        ("Took", formats.seconds(results["wall_seconds"])),
    ]


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
