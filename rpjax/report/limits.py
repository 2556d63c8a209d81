"""What the numbers of a report do not show."""

from rpjax.report import formats, words
from rpjax.report.results import Results


def limits(results: Results) -> list[tuple[str, str]]:
    """What the numbers do not show: a claim, and why."""
    return [
        *_limits_of_attacks(results),
        *_limits_of_guarantees(results),
        *_limits_of_measurement(results),
    ]


def _limits_of_attacks(results: Results) -> list[tuple[str, str]]:
    fewest = min(
        (entry["non_members"] for m in results["methods"] for entry in m["exposure"]),
        default=results["data"]["non_members"],
    )
    coarse = formats.percent(10 / max(10, fewest))
    return [
        (
            "An attack that fails proves nothing.",
            "An AUC near 0.5 says that these attacks failed, not that none can "
            "succeed; stronger ones, with many shadow models or chosen records, exist. "
            "Only a guarantee speaks of every attack, under its assumptions.",
        ),
        (
            "An average hides the worst case.",
            "AUC is an average over records. A few records, such as rare or "
            "mislabelled ones, can be far more exposed than it suggests.",
        ),
        (
            "The strongest attack was picked after the fact.",
            "It is the one with the largest AUC on these very records, and its "
            "interval is that of a single attack: read close values as equal.",
        ),
        (
            "Low false-positive rates are coarse.",
            f"With {fewest} non-members, rates below {coarse} rest on fewer than ten "
            "false positives.",
        ),
    ]


def _limits_of_guarantees(results: Results) -> list[tuple[str, str]]:
    found = [
        (
            "Residual perturbation without noise on the input guarantees nothing.",
            "Noise after the residual blocks leaves the layers before it exposed. A "
            "guarantee needs noise on the input and a bound on its norm; and what "
            "hides in a noisy answer is there again once the weights are known.",
        ),
        (
            "Residual perturbation never protects labels.",
            "Its guarantee, where there is one, is about the features of a record "
            "whose label is public. It does not speak of whether a record was used, "
            "which is what membership inference asks. DP-SGD covers the whole record.",
        ),
        (
            "Epsilons of different adjacency are not comparable.",
            "Adding or removing a record, replacing it, and replacing its features are "
            "three different promises, even where the number is the same.",
        ),
    ]
    if results["noise_seed"] == "fixed":
        found.append(
            (
                "The noise seed of this run is fixed.",
                "That makes the run repeatable. A guarantee holds only for a model "
                "trained with secret noise: do not publish the weights of this run as "
                "private ones.",
            )
        )
    return found


def _limits_of_measurement(results: Results) -> list[tuple[str, str]]:
    device = results["device"]
    return [
        (
            "One seed.",
            f"Everything was trained with seed {results['seed']}. The intervals cover "
            "the choice of records, not the randomness of training.",
        ),
        (
            "Absolute times belong to one machine.",
            f"They were taken on {words.device_name(device)}; elsewhere even the "
            "ratios change, most of all between CPUs and accelerators.",
        ),
    ]
