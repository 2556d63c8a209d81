"""Shadow models: each the run that it says it is, however it came about."""

import importlib
import json
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from support import Dense, assert_close, assert_same, differ, records

from rpjax.attacks import EIGHTEEN, Membership, Question, View, shadow_models
from rpjax.attacks.shadow_models import seeds_of
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Inputs, ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.training import Query, fit

module = importlib.import_module("rpjax.attacks.shadow_models")

TX = optax.sgd(0.2, momentum=0.9)
NOISY = supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))
POOL = records(20)
CANARIES = np.array([3, 1, 18, 7, 11, 4])
FIXED = np.setdiff1d(np.arange(20), CANARIES)
INSIDE = np.random.default_rng(0).random((4, 6)) < 0.5
FOUR = Membership(POOL, FIXED, CANARIES, INSIDE)
QUESTIONS = {
    "quiet": Question(Query(noise=False), views=(View(), View(True, 1, -1))),
    "draws": Question(Query(draws=3)),
}
OPTIONS = {
    "batch_size": 4,
    "steps": 9,
    "asked": POOL.take(CANARIES),
    "questions": QUESTIONS,
    "seed": 3,
    "chunk": 2,
}


def models(count):
    return replace(FOUR, inside=INSIDE[:count])


@pytest.fixture(scope="module")
def four():
    """All four at once, kept nowhere."""
    return shadow_models(NOISY, FOUR, **{**OPTIONS, "chunk": 4})


@pytest.fixture
def trainings(monkeypatch):
    """How many models each training had."""
    counts = []

    def counted(learner, *rest, **options):
        counts.append(learner.members[0])
        return fit(learner, *rest, **options)

    monkeypatch.setattr(module, "fit", counted)
    return counts


# --------------------------------------------------------------------- what a model is


def test_a_model_is_a_run_of_its_own_seed_and_list(four):
    """The validity of every attack: a target of the same kind is asked alike."""
    assert four.answers["quiet"].shape == (4, 2, 6, 3)
    assert four.answers["draws"].shape == (4, 3, 6, 3)
    canaries = POOL.take(CANARIES)
    run = fit(
        NOISY,
        POOL,
        batch_size=4,
        steps=9,
        seed=four.seeds[2],
        lists=FOUR.lists()[2],
        noise_seed="fixed",
    )
    assert_close(four.answers["draws"][2, 0], run.answers(canaries), atol=1e-4)
    moved = type(POOL)(
        View(True, 1, -1).of(canaries.images), canaries.labels, canaries.ids
    )
    quiet = run.answers(moved, Query(noise=False))
    assert_close(four.answers["quiet"][2, 1], quiet, atol=1e-4)
    assert differ(*four.answers["draws"][0, :2])


def test_chunks_change_no_model_and_are_halved_when_memory_runs_out(four, monkeypatch):
    sizes = []

    def small_machine(learner, *rest, **options):
        sizes.append(learner.members[0])
        if learner.members[0] > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return fit(learner, *rest, **options)

    monkeypatch.setattr(module, "fit", small_machine)
    found = shadow_models(NOISY, FOUR, **{**OPTIONS, "chunk": 3})
    assert sizes == [3, 2, 2]
    assert found.seeds == four.seeds
    for name, answers in four.answers.items():
        assert_close(found.answers[name], answers, atol=1e-4)


def test_every_model_has_a_seed_of_its_own_and_so_has_every_set():
    a, b = seeds_of(0, "A", 500), seeds_of(0, "B", 500)
    assert len({*a, *b, *seeds_of(1, "A", 500)}) == 1_500
    assert seeds_of(0, "A", 30) == a[:30]
    assert max(a) < 2**31


# ------------------------------------------------------------------------- what is kept


class Killed(Exception):
    pass


class Killer:
    """Ends the process, as it were, at its so-manyth look."""

    def __init__(self, looks):
        self.left = looks

    def advance(self, done, total, examples, info):
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_stopped_anywhere_five_times_it_comes_to_the_same_answers(four, tmp_path):
    """At random places, of chunks begun and of chunks done, as `kill -9` would."""
    options = {**OPTIONS, "checkpoint_seconds": 0.0, "folder": tmp_path}
    rng = np.random.default_rng(0)
    for _ in range(5):
        try:
            shadow_models(NOISY, FOUR, report=Killer(rng.integers(1, 4)), **options)
        except Killed:
            continue
    found = shadow_models(NOISY, FOUR, **options)
    for name, answers in four.answers.items():
        assert_close(found.answers[name], answers, atol=1e-4)
    assert not (tmp_path / "training").exists()
    assert not list(tmp_path.rglob("*.tmp*"))


def test_more_models_train_only_those_that_are_missing(four, tmp_path, trainings):
    first = shadow_models(NOISY, models(2), folder=tmp_path, **OPTIONS)
    found = shadow_models(NOISY, FOUR, folder=tmp_path, **OPTIONS)
    again = shadow_models(NOISY, models(3), folder=tmp_path, **OPTIONS)
    assert trainings == [2, 2]
    assert_same(found.answers["draws"][:2], first.answers["draws"])
    assert_same(again.answers, {n: a[:3] for n, a in found.answers.items()})
    assert_close(found.answers["draws"], four.answers["draws"], atol=1e-4)


def test_kept_weights_answer_what_is_asked_later(four, tmp_path, trainings):
    quiet = {"quiet": QUESTIONS["quiet"]}
    options = {**OPTIONS, "folder": tmp_path}
    shadow_models(NOISY, models(2), **{**options, "questions": quiet}, weights=True)
    later = shadow_models(NOISY, models(2), **options)
    assert trainings == [2]
    for name, answers in four.answers.items():
        assert_close(later.answers[name], answers[:2], atol=1e-4)


def test_a_folder_of_other_models_is_refused(tmp_path, trainings):
    options = {**OPTIONS, "folder": tmp_path, "about": {"configuration": "one"}}
    shadow_models(NOISY, models(2), **options)
    other = replace(models(2), inside=~INSIDE[:2])
    louder = supervised(Dense(Additive(0.6)), TX, Inputs(noise=0.3))
    asked = {"asked": POOL.take(CANARIES[::-1])}
    more = {"questions": {"new": Question(noise="common")}}
    for learner, membership, changed, message in (
        (NOISY, models(2), {"steps": 8}, "steps is 8; the models in"),
        (NOISY, models(2), {"seed": 4}, "seed is 4"),
        (NOISY, models(2), {"about": {"configuration": "two"}}, "about is"),
        (louder, models(2), {}, "mechanism is"),
        (NOISY, replace(models(2), pool=records(20, seed=1)), {}, "records is"),
        (NOISY, other, {}, "the coins of model 0 are others"),
        (NOISY, models(2), asked, "questions\\['quiet'\\] is"),
        (NOISY, models(2), more, "its weights were not kept"),
    ):
        with pytest.raises(InputError, match=message):
            shadow_models(learner, membership, **{**options, **changed})
    assert trainings == [2]
    assert not (tmp_path / ".lock").exists()
    noted = json.loads((tmp_path / "shadow_models.json").read_text())
    assert noted["questions"].keys() == QUESTIONS.keys(), (
        "what was refused is not noted"
    )


# ------------------------------------------------------------------------ the questions


def test_each_member_of_an_ensemble_answers_for_itself():
    two = ensemble(supervised(Dense(Additive(0.5)), TX), 2)
    questions = {
        "together": Question(Query(noise=False)),
        "each": Question(Query(noise=False), members="each"),
    }
    found = shadow_models(two, models(2), **{**OPTIONS, "questions": questions})
    each = found.answers["each"]
    assert each.shape == (2, 1, 2, 6, 3)
    pooled = scipy.special.logsumexp(each, 2) - np.log(2)
    assert_close(found.answers["together"], pooled, atol=1e-4)
    with pytest.raises(InputError, match="no ensemble"):
        shadow_models(NOISY, models(1), **{**OPTIONS, "questions": questions})


@pytest.mark.parametrize("view", [*EIGHTEEN[:4], View(True, 2, -1)], ids=str)
def test_a_view_moves_what_is_seen(view):
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 1), np.uint8)
    shown = view.of(images)
    for row in range(9):
        for column in range(8):
            from_row, from_column = row - view.down, column - view.right
            if 0 <= from_row < 9 and 0 <= from_column < 8:
                at = 7 - from_column if view.flip else from_column
                assert (shown[:, row, column] == images[:, from_row, at]).all()


def test_a_question_knows_its_threat_level():
    assert Question().threat == "T1"
    assert Question(Query(draws=4)).threat == "T2"
    assert Question(views=EIGHTEEN).threat == "T2"
    assert Question(Query(noise=False)).threat == "T4"
    assert Question(noise="common").threat == Question(members="each").threat == "T4"


# --------------------------------------------------------------------- who is in where


@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(0, 99),
    st.data(),
)
def test_lists_hold_what_the_coins_say(count, canaries, fixed, seed, data):
    paired = data.draw(st.booleans())
    rng = np.random.default_rng(seed)
    order = rng.permutation(20)
    inside = rng.random((count, canaries)) < 0.5
    places = order[fixed : fixed + (2 if paired else 1) * canaries]
    places = places.reshape(canaries, 2) if paired else places
    alike = Records(POOL.images, np.zeros(20, np.int32), POOL.ids)
    membership = Membership(alike, order[:fixed], places, inside)
    for row, coins in zip(membership.lists(), inside, strict=True):
        wanted = set(order[:fixed].tolist())
        for place, coin in zip(places, coins, strict=True):
            if paired:
                wanted.add(int(place[0] if coin else place[1]))
            elif coin:
                wanted.add(int(place))
        own = row[row >= 0]
        assert set(own.tolist()) == wanted
        assert len(own) == len(wanted)
        assert (row[len(own) :] == -1).all()


def test_members_that_cannot_be_are_refused(unchecked):
    for changed, message in (
        ({"canaries": CANARIES[:5]}, "a coin for each canary"),
        ({"canaries": np.zeros((6, 3), int)}, r"it is \(m,\), or \(m, 2\)"),
        ({"fixed": np.append(FIXED, 3)}, "name a record twice"),
        ({"canaries": np.stack([CANARIES, FIXED[:6]], 1), "fixed": FIXED[6:]}, "pair"),
        ({"fixed": np.append(FIXED[1:], 20)}, "between 0 and 19"),
    ):
        with pytest.raises(InputError, match=message):
            replace(FOUR, **changed)
    for changed, message in (
        ({"steps": None}, "give exactly one"),
        ({"chunk": 0}, "chunk is 0"),
        ({"questions": {}}, "ask at least one"),
    ):
        with pytest.raises(InputError, match=message):
            shadow_models(NOISY, FOUR, **{**OPTIONS, **changed})
