"""Designs for membership inference: who is in, who is out, and what may overlap."""

import dataclasses

import numpy as np
import pytest
from support import assert_binomial

from rpjax.data.membership import design
from rpjax.errors import InputError


@pytest.mark.parametrize("protocol", ["halves", "quarters"])
@pytest.mark.parametrize("pool", [4, 7, 40])
def test_members_and_non_members_are_disjoint_sorted_and_equally_many(protocol, pool):
    made = design(pool, 3, protocol=protocol)
    sides = [
        (made.members, made.non_members),
        *zip(made.shadow_members, made.shadow_non_members, strict=True),
    ]
    for inside, outside in sides:
        joined = np.concatenate([inside, outside])
        assert len(set(joined.tolist())) == len(joined)
        assert 0 <= joined.min() <= joined.max() < pool
        assert (np.diff(inside) > 0).all()
        assert (np.diff(outside) > 0).all()
        assert 0 <= len(outside) - len(inside) <= 1
    assert len(made.members) == pool // (2 if protocol == "halves" else 4)


def test_in_halves_every_record_is_in_or_out_and_shadows_split_the_whole_pool():
    made = design(40, 5)
    for inside, outside in zip(
        made.shadow_members, made.shadow_non_members, strict=True
    ):
        np.testing.assert_array_equal(np.sort([*inside, *outside]), np.arange(40))
    assert len({row.tobytes() for row in made.shadow_members}) == 5
    assert all(set(row) != set(made.members) for row in made.shadow_members)


def test_in_quarters_no_shadow_model_sees_a_record_of_the_target():
    made = design(40, 5, protocol="quarters")
    target = {*made.members.tolist(), *made.non_members.tolist()}
    owned = {*made.shadow_members.ravel(), *made.shadow_non_members.ravel()}
    assert len(target) == len(owned) == 20
    assert not target & owned


def test_each_record_is_in_half_of_the_shadow_models_training_sets():
    made = design(10, 2_000)
    for record in range(10):  # ten tests at 1e-4
        assert_binomial((made.shadow_members == record).sum(), 2_000, 0.5)


def test_the_targets_own_half_is_random():
    hits = sum(0 in design(10, 0, seed).members for seed in range(1_000))
    assert_binomial(hits, 1_000, 0.5)


def test_a_design_follows_from_its_seed():
    one, again, other = (dataclasses.asdict(design(20, 2, seed)) for seed in (1, 1, 2))
    np.testing.assert_equal(one, again)
    assert (one["members"] != other["members"]).any()


def test_a_design_without_shadow_models_is_allowed():
    made = design(9, 0)
    assert made.shadow_members.shape == (0, 4)
    assert made.shadow_non_members.shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool": 3, "shadows": 1}, "the pool has 3 records"),
        ({"pool": 9, "shadows": -1}, "shadows is -1"),
        ({"pool": 9, "shadows": 1, "protocol": "thirds"}, "protocol is 'thirds'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_designs_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        design(**arguments)
