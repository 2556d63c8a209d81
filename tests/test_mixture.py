"""Canaries of several kinds at once: no record twice, each kind as if it were alone."""

from dataclasses import replace

import numpy as np
import pytest
from support import records

from rpjax import audits
from rpjax.attacks import plant
from rpjax.attacks.mixture import plant_kinds
from rpjax.attacks.shadow_models import ShadowModels
from rpjax.errors import InputError

POOL = records(60)
KINDS = ("near_duplicate", "mislabelled", "clean", "blank")


@pytest.fixture(scope="module")
def mixture():
    return plant_kinds(POOL, KINDS, 5, seed=2)


def test_every_record_is_fixed_or_one_kinds_canary(mixture):
    assert [each.kind for each in mixture.planted] == list(KINDS)
    assert len(mixture.canaries) == 20
    positions = np.concatenate([mixture.fixed, mixture.canaries])
    # what was added: five copies and five blanks
    assert sorted(positions) == list(range(len(POOL) + 10))
    assert len(np.unique(mixture.pool.ids)) == len(mixture.pool)


def test_only_canaries_are_changed(mixture):
    fixed = mixture.fixed
    assert (fixed < len(POOL)).all()
    np.testing.assert_array_equal(mixture.pool.images[fixed], POOL.images[fixed])
    np.testing.assert_array_equal(mixture.pool.labels[fixed], POOL.labels[fixed])
    of = {each.kind: each.canaries for each in mixture.planted}
    mislabelled, clean = of["mislabelled"], of["clean"]
    assert (mixture.pool.labels[mislabelled] != POOL.labels[mislabelled]).all()
    np.testing.assert_array_equal(mixture.pool.labels[clean], POOL.labels[clean])


def test_the_originals_of_copies_stay_in_every_training_set(mixture):
    copies = mixture.planted[0].canaries
    from rpjax.attacks import View

    moved = View(right=1).of(np.asarray(POOL.images[:])[mixture.fixed])
    for copy in mixture.pool.images[copies]:
        assert (moved == copy).all((1, 2, 3)).any()


def test_one_kind_alone_is_what_plant_makes():
    alone, one = (
        plant_kinds(POOL, ("mislabelled",), 7, seed=3),
        plant(POOL, "mislabelled", 7, seed=3),
    )
    np.testing.assert_array_equal(alone.canaries, one.canaries)
    np.testing.assert_array_equal(alone.pool.labels, one.pool.labels)
    np.testing.assert_array_equal(alone.fixed, one.fixed)


def test_each_kind_has_its_own_coins_and_answers(mixture):
    coins = audits.balanced(4, 20, seed=0)
    answers = {"deployed": np.arange(4 * 20 * 3.0).reshape(4, 1, 20, 3)}
    models = ShadowModels(mixture.membership(coins), (1, 2, 3, 4), answers)
    for number, kind in enumerate(KINDS):
        place = slice(5 * number, 5 * number + 5)
        own = mixture.only(kind, models, ["deployed"])
        np.testing.assert_array_equal(
            own.answers["deployed"], answers["deployed"][:, :, place]
        )
        for inside in (own.membership.inside, mixture.coins(kind, coins).inside):
            np.testing.assert_array_equal(inside, coins.inside[:, place])
        lists = models.membership.lists()
        for model, canaries in zip(lists, own.membership.inside, strict=True):
            held = own.membership.canaries[canaries]
            assert set(held) <= set(model)
            assert not set(own.membership.canaries[~canaries]) & set(model)


def test_pairs_have_two_records_to_a_coin():
    mixture = plant_kinds(POOL, ("opposite",), 6, seed=1)
    coins = audits.independent(3, 6, seed=5)
    answers = {"deployed": np.zeros((3, 1, 12, 3))}
    models = ShadowModels(mixture.membership(coins), (1, 2, 3), answers)
    assert mixture.only("opposite", models, ["deployed"]).answers["deployed"].shape == (
        3,
        1,
        12,
        3,
    )


@pytest.mark.parametrize(
    ("kinds", "count", "message"),
    [
        ((), 5, "kinds"),
        (("clean", "clean"), 5, "each once"),
        (("clean", "opposite"), 5, "opposite"),
        (("clean", "mislabelled"), 30, "count"),
    ],
)
def test_what_cannot_be_planted_is_refused(kinds, count, message):
    with pytest.raises(InputError, match=message):
        plant_kinds(POOL, kinds, count)


def test_a_kind_that_was_not_planted_is_refused(mixture):
    coins = audits.balanced(2, 20, seed=0)
    with pytest.raises(InputError, match="planted were"):
        mixture.coins("opposite", coins)
    assert replace(coins).inside.shape == (2, 20)
