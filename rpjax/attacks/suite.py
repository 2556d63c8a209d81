"""All attacks on one set of shadow models: which answers each reads, and at what level.

Set A, whose coins are known, makes the attacks; set B, of the same procedure, is
attacked. Set A is attacked as well, two models at a time by all the others, to choose
thresholds and guesses for B (`rpjax.audits.audit`); no bound follows from that.

The questions have fixed names, so that an attack knows its answers: see `questions`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rpjax.attacks import noise_aware, ratio, signals
from rpjax.attacks.canaries import Planted
from rpjax.attacks.label_only import correctness_lira
from rpjax.attacks.likelihood import ArrayAttack, lira
from rpjax.attacks.questions import EIGHTEEN, Question, View
from rpjax.attacks.shadow_models import ShadowModels
from rpjax.errors import InputError
from rpjax.training import Query

ModelScores = Float[np.ndarray, "models m"]
Table = Float[np.ndarray, "models m queries"]


def questions(
    *,
    noisy: bool,
    members: int = 1,
    draws: int = 16,
    views: tuple[View, ...] = EIGHTEEN,
) -> dict[str, Question]:
    """What the attacks want to know of a net.

    noisy: whether its forward pass has noise; members: of an ensemble, whose members
    can be asked each for itself; draws, views: how many answers to average over.
    """
    still = Query(noise=False)
    asked = {"deployed": Question(), "views": Question(still, views)}
    # one record at a time, a gradient takes as long as a dozen answers
    averaged = Query(draws=max(1, draws // 8))
    asked["gradient"] = Question(averaged, reads="gradients")
    if noisy:
        asked |= {
            "draws": Question(Query(draws=draws)),
            "common": Question(Query(draws=draws), noise="common"),
            "still": Question(still),
        }
    if members > 1:
        asked["members"] = Question(still, members="each")
    return asked


class Answers(NamedTuple):
    """Answers of models about canaries, by question; and who the canaries are."""

    planted: Planted
    by_question: Mapping[str, np.ndarray]

    def of(self, question: str, signal: signals.Signal) -> Table:
        """A signal of the answers to one question: (models, m, queries).

        An ensemble's members that answer each for itself are queries too.
        """
        answers = self.by_question[question]
        flat = answers.reshape(len(answers), -1, *answers.shape[-2:])
        labels = self.planted.asked.labels
        scores = signals.of_models(signal, np.moveaxis(flat, 1, 2), labels)
        return self.planted.scores(scores)

    def flatness(self) -> Table:
        """Minus the log norms of each record's gradient: (models, m, parts)."""
        return self.planted.scores(-self.by_question["gradient"][:, 0])

    def pooled(self, question: str) -> Table:
        """The logit of the mean probability over one question's draws."""
        answers = np.moveaxis(self.by_question[question], 1, 2)
        labels = self.planted.asked.labels
        scores = np.stack([signals.prob_mean(own, labels) for own in answers])
        return self.planted.scores(scores[..., None])


@dataclass(frozen=True)
class Entry:
    """An attack of the suite.

    needs: names of the questions whose answers it reads.
    threat: what it takes to ask them of a net with noise: T1 to T4.
    seen: what it makes of the answers; attack: what it does with that.
    pairs: whether it can also tell which of two records was trained on.
    """

    name: str
    label: str
    threat: str
    needs: tuple[str, ...]
    seen: Callable[[Answers], Table]
    attack: ArrayAttack
    pairs: bool = True


def _own(scores_a: Any, coins_a: Any, scores_b: Any) -> ModelScores:
    """No shadow models: the mean score over queries itself."""
    mean: ModelScores = np.asarray(scores_b).mean(-1)
    return mean


def _offline(scores_a: Any, coins_a: Any, scores_b: Any) -> ModelScores:
    return lira(scores_a, coins_a, scores_b, offline=True)


def _entries() -> tuple[Entry, ...]:
    logit, deployed = signals.logit, ("deployed",)

    def phi(question: str) -> Callable[[Answers], Table]:
        return lambda answers: answers.of(question, logit)

    def bits(question: str) -> Callable[[Answers], Table]:
        return lambda answers: answers.of(question, signals.correct)

    def robustness(answers: Answers) -> Table:
        return noise_aware.smoothed_probit(answers.of("draws", signals.correct))[
            ..., None
        ]

    def curvature(answers: Answers) -> Table:
        noisy, still = answers.of("draws", logit), answers.of("still", logit)
        return noise_aware.sensitivity(noisy, still[..., 0])

    return (
        Entry(
            *("loss", "Loss threshold (Yeom et al.)", "T1", deployed),
            lambda answers: answers.of("deployed", signals.loss),
            _own,
        ),
        Entry(
            "hinge",
            "Margin threshold",
            "T1",
            deployed,
            lambda answers: answers.of("deployed", signals.hinge),
            _own,
        ),
        Entry(
            *("calibrated", "Difficulty-calibrated (Watson et al.)", "T1", deployed),
            phi("deployed"),
            ratio.difficulty_calibrated,
        ),
        Entry(
            *("base", "BASE / RMIA", "T1", deployed),
            lambda answers: answers.of("deployed", signals.loss),
            ratio.base,
            pairs=False,
        ),
        Entry(
            "lira_offline", "LiRA offline", "T1", deployed, phi("deployed"), _offline
        ),
        Entry("lira", "LiRA", "T1", deployed, phi("deployed"), lira),
        Entry(
            *("lira_draws", "LiRA, noise averaged", "T2", ("draws",)),
            phi("draws"),
            lira,
        ),
        Entry(
            *("lira_pooled", "LiRA, mean probability over draws", "T2", ("draws",)),
            lambda answers: answers.pooled("draws"),
            lira,
        ),
        Entry(
            *("joint", "LiRA, mean and spread over draws", "T2", ("draws",)),
            phi("draws"),
            noise_aware.joint_lira,
        ),
        Entry(
            *("labels_draws", "Labels alone, under noise", "T2", ("draws",)),
            robustness,
            lira,
            pairs=False,
        ),
        Entry(
            *("labels_views", "Labels alone, shifted views", "T4", ("views",)),
            bits("views"),
            correctness_lira,
            pairs=False,
        ),
        Entry("lira_still", "LiRA, noise off", "T4", ("still",), phi("still"), lira),
        Entry(
            *("lira_common", "LiRA, the same draws for all", "T4", ("common",)),
            phi("common"),
            lira,
        ),
        Entry(
            *("sensitivity", "LiRA, what noise does", "T4", ("draws", "still")),
            curvature,
            noise_aware.vector_lira,
            pairs=False,
        ),
        Entry(
            *("lira_views", "LiRA, noise off, shifted views", "T4", ("views",)),
            phi("views"),
            lira,
        ),
        Entry(
            *("gradient", "LiRA, norm of the gradient", "T4", ("gradient",)),
            lambda answers: answers.flatness()[..., -1:],
            lira,
        ),
        Entry(
            *("gradient_parts", "LiRA, gradient of each part", "T4", ("gradient",)),
            lambda answers: answers.flatness()[..., :-1],
            noise_aware.vector_lira,
            pairs=False,
        ),
        Entry(
            *("members", "LiRA, each member", "T4", ("members",)),
            phi("members"),
            noise_aware.ensemble_lira,
        ),
        Entry(
            *("disagreement", "LiRA, mean and spread of members", "T4", ("members",)),
            phi("members"),
            noise_aware.joint_lira,
        ),
    )


SUITE = _entries()


@dataclass(frozen=True, eq=False)
class Found:
    """What one attack made of the models: scores (models, m), large = member.

    threat: what it took to ask these models.
    scores_a: of set A, each two models by the others; for choosing, never for a bound.
    scores_b: of set B, by all of set A.
    """

    entry: Entry
    threat: str
    scores_a: Float[np.ndarray, "calibration m"]
    scores_b: Float[np.ndarray, "attacked m"]


def run_suite(a: ShadowModels, b: ShadowModels, planted: Planted) -> list[Found]:
    """Every attack of the suite whose questions both sets have answered.

    a: calibration models; b: attacked ones, of the same procedure. planted: the
    canaries that both were asked about (`Planted.asked`).

    Raises:
        InputError: sets that share a seed, or were asked different questions.
    """
    shared = set(a.seeds) & set(b.seeds)
    if shared:
        raise InputError(
            f"a and b share the training seed {min(shared)}; give the two sets "
            "different names, or B's randomness is known from A"
        )
    if a.answers.keys() != b.answers.keys():
        differ = sorted(a.answers.keys() ^ b.answers.keys())
        raise InputError(f"a and b were not asked the same: {', '.join(differ)}")
    coins = a.membership.inside
    known, asked = Answers(planted, a.answers), Answers(planted, b.answers)
    found = []
    for entry in SUITE:
        if not set(entry.needs) <= a.answers.keys():
            continue
        if planted.canaries.ndim == 2 and not entry.pairs:
            continue
        seen_a, seen_b = entry.seen(known), entry.seen(asked)
        # to ask without noise takes the weights only where there is noise
        threat = entry.threat
        if entry.needs == ("views",) and "draws" not in a.answers:
            threat = "T2"
        own = two_left_out(entry.attack, seen_a, coins)
        found.append(Found(entry, threat, own, entry.attack(seen_a, coins, seen_b)))
    return found


def two_left_out(
    attack: ArrayAttack,
    scores: Table,
    coins: Bool[np.ndarray, "models m"],
    targets: Table | None = None,
) -> ModelScores:
    """Each two models attacked with the others: of balanced coins, opposite ones.

    With one left out, that a canary is in fewer of the other models than out of them
    would give its coin away; with two opposite ones left out it is in half again.

    targets: scores of other models with these same coins, attacked in their place.
    """
    asked = scores if targets is None else targets
    parts = []
    for first in range(0, len(coins), 2):
        left = np.zeros(len(coins), bool)
        left[first : first + 2] = True
        parts.append(attack(scores[~left], coins[~left], asked[left]))
    return np.concatenate(parts)
