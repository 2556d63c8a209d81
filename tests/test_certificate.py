"""A guarantee says what holds, for whom, and refuses to speak where a premise fails."""

import functools
import json
import math

import pytest

from rpjax.errors import InputError
from rpjax.privacy import (
    dpsgd,
    dpsgd_guarantee,
    feature_guarantee,
    gdp,
    no_guarantee,
    residual,
    stated_epsilon,
    theorem,
)
from rpjax.privacy.curves import Gaussian

SCHEMA = [
    *("kind", "name", "mechanism", "parameters", "unit", "adjacency", "public"),
    *("epsilon", "delta", "mu", "accountant", "alternatives", "curve", "statement"),
    *("assumptions", "not_covered", "reasons", "versions", "configuration"),
    *("ceilings", "trade_off"),
]


def feature(**changes):
    premises = {
        "input_noise": 15.29,
        "delta": 1e-5,
        "bound": 1.0,
        "bound_enforced": True,
        "participations": 50,
        "constants_public": True,
        "releases_clean_statistics": False,
        "strategy": "additive",
        "gamma": 0.5,
    }
    return feature_guarantee(**{**premises, **changes})


@functools.cache
def private(**changes):
    premises = {
        "noise_multiplier": 1.8,
        "sampling_probability": 0.09,
        "steps": 900,
        "delta": 1e-5,
        "records": 718,
        "capacity": 150,
    }
    return dpsgd_guarantee(**{**premises, **changes})


@functools.cache
def shuffled(**changes):
    """Epochs of eleven batches of 64; ten of them."""
    run = {"sampling": "shuffled", "sampling_probability": 64 / 718, "capacity": 64}
    return private(**{**run, "noise_multiplier": 12.0, "steps": 110, **changes})


@pytest.mark.parametrize(
    "guarantee",
    [
        *(no_guarantee("plain", "no noise"), feature(), feature(input_noise=0)),
        *(private(), shuffled()),
    ],
    ids=["none", "feature", "gamma alone", "dpsgd", "shuffled"],
)
def test_every_guarantee_has_the_fields_of_the_schema_and_is_plain_json(guarantee):
    fields = guarantee.as_dict()
    assert list(fields) == SCHEMA
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert guarantee.not_covered
    numbers = (guarantee.epsilon, guarantee.delta, guarantee.mu)
    if guarantee.kind == "none":
        assert numbers == (None, None, None)
        assert guarantee.alternatives == ()
    else:
        assert guarantee.assumptions


# --------------------------------------------------------------- residual perturbation


def test_input_noise_gives_the_theorems_mu_and_epsilon():
    found = feature()
    assert found.kind == "gdp"
    assert found.mu == residual.mu(15.29, bound=1.0, participations=50)
    assert found.epsilon == pytest.approx(gdp.epsilon(1e-5, found.mu), rel=1e-12)
    assert gdp.delta(found.epsilon, found.mu) <= 1e-5
    assert found.epsilon == pytest.approx(4.0, abs=5e-3)
    assert found.adjacency == "replace one record's features, labels equal"
    assert found.curve == Gaussian(found.mu)
    assert feature(members=5).epsilon == pytest.approx(10.42, abs=5e-3)
    shared = feature(members=5, noise_per_member="shared")
    assert shared.epsilon == found.epsilon
    assert feature(bound=None, diameter=2.0).epsilon == found.epsilon


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 10.0])
def test_the_papers_theorem_stands_beside_it_as_recalled(epsilon):
    """Its noise gives back its own epsilon, and a smaller exact one."""
    noise = theorem.noise_for(epsilon, 1e-5, 1.0, 50)
    found = feature(input_noise=noise)
    (recalled,) = found.alternatives
    assert "as recalled" in recalled.accountant
    assert recalled.epsilon == pytest.approx(epsilon, rel=1e-9)
    assert (recalled.adjacency, recalled.delta) == (found.adjacency, found.delta)
    assert found.epsilon < recalled.epsilon


def test_clipped_residual_branches_are_said_to_prove_nothing_more():
    found = feature(residual_bound=2.0)
    assert found.epsilon == feature().epsilon
    assert "residual branches clipped to norm G = 2" in found.mechanism
    assert "adds nothing to the proof by itself" in found.statement
    assert "adds nothing" not in feature().statement
    alone = feature(residual_bound=2.0, input_noise=0.0)
    assert "clipping the residual branches changes none of this" in alone.statement


def test_gamma_changes_the_description_and_never_the_figure():
    weak, strong = feature(gamma=0.01), feature(gamma=100.0)
    assert weak.epsilon == strong.epsilon == feature(strategy="none", gamma=0).epsilon
    assert weak.mechanism != strong.mechanism


@pytest.mark.parametrize("gamma", [0.5, 5.0, 500.0])
def test_gamma_alone_guarantees_nothing_and_the_reason_is_given(gamma):
    found = feature(input_noise=0.0, gamma=gamma, bound=None)
    assert found.kind == "none"
    assert "guarantees nothing by itself" in found.statement
    assert "gradient of the first block reveals the clean input" in found.statement
    assert "membership inference may succeed" in found.statement
    assert "singular" not in found.statement


def test_strategy_two_without_a_floor_is_called_singular():
    bare = feature(input_noise=0.0, strategy="multiplicative")
    floored = feature(input_noise=0.0, strategy="multiplicative", floor=0.1)
    assert "singular" in bare.statement
    assert "singular" not in floored.statement
    assert floored.kind == "none"


def test_plain_training_is_called_plain():
    found = feature(input_noise=0.0, strategy="none", gamma=0.0)
    assert (found.kind, found.mechanism) == ("none", "plain training")


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"bound_enforced": False}, "not enforced by clipping"),
        ({"constants_public": False}, "computed from the private records"),
        ({"releases_clean_statistics": True}, "un-noised training records"),
        ({"draw": "record", "augmentation": "before_noise"}, "augmented views"),
        ({"batch_statistics": "re-estimated"}, "batch statistics were re-estimated"),
        ({"noise_reused": True}, "the noise was used before"),
    ],
)
def test_a_failed_premise_leaves_no_number_and_is_named(broken, named):
    found = feature(**broken)
    assert found.kind == "none"
    assert named in found.statement
    assert found.epsilon is None


def test_all_failed_premises_are_named_at_once():
    found = feature(bound_enforced=False, constants_public=False)
    assert found.statement.count("a premise fails") == 2


def test_a_kept_draw_is_sound_without_views_or_with_views_of_the_noisy_copy():
    for views in ("none", "after_noise"):
        found = feature(draw="record", augmentation=views)
        assert found.mu == pytest.approx(2.0 / 15.29)
    assert feature(augmentation="before_noise").kind == "gdp"


def test_what_the_library_enforces_is_told_apart_from_what_the_user_does():
    found = feature(batch_norm=True)
    who = {text.split(":")[0] for text in found.assumptions}
    assert who == {"Enforced by the library", "Left to the user"}
    clipped = next(text for text in found.assumptions if "clipped to norm 1" in text)
    assert clipped.startswith("Enforced")
    public = next(text for text in found.assumptions if "centring, scale" in text)
    assert public.startswith("Left to the user")
    assert any("batch statistics" in text for text in found.assumptions)
    assert not any("batch statistics" in text for text in feature().assumptions)


def test_labels_and_presence_are_never_covered_by_input_noise():
    missing = " ".join(feature().not_covered)
    assert "labels" in missing
    assert "present" in missing
    assert "membership-inference attack may succeed" in missing


def test_a_figure_that_excludes_nothing_says_so():
    useless = feature(input_noise=0.05).statement
    assert "no practical use" in useless
    assert "ε = 41205," in useless
    assert "no practical use" not in feature().statement
    # mu 0.925 at one false alarm in a hundred: Phi(Phi^-1(0.01) + 0.925) = 8.05 %
    assert "at most 8.05 %" in feature().statement


# ------------------------------------------------------------------------------ DP-SGD


def test_dpsgd_states_pld_first_and_rdp_and_replacement_beside_it():
    found = private()
    overflow = dpsgd.overflow_probability(719, 0.09, 150)
    assert found.kind == "dp"
    assert found.epsilon == dpsgd.epsilon(
        1.8, 0.09, 900, 1e-5, overflow_probability=overflow
    )
    renyi, replaced = found.alternatives
    assert renyi.accountant.startswith("RDP")
    assert renyi.epsilon > found.epsilon
    assert replaced.adjacency == "replace one record by another"
    assert replaced.epsilon > renyi.epsilon
    assert found.accountant.startswith("PLD (dp-accounting ")


def test_the_overflow_holds_for_a_neighbour_with_one_record_more():
    # with as many places as records nothing overflows here, but it does next door
    full = private(records=40, capacity=40, sampling_probability=0.5, steps=20)
    next_door = dpsgd.overflow_probability(41, 0.5, 40)
    assert next_door > dpsgd.overflow_probability(40, 0.5, 40) == 0
    paid = dpsgd.epsilon(1.8, 0.5, 20, 1e-5, overflow_probability=next_door)
    assert full.epsilon == paid > dpsgd.epsilon(1.8, 0.5, 20, 1e-5)
    assert any(f"{next_door:.1e}" in text for text in full.assumptions)


def test_members_of_a_private_ensemble_compose():
    assert private(members=3, steps=300).epsilon == private().epsilon
    assert private(members=3).epsilon > private().epsilon


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"batch_norm": True}, "batch normalisation"),
        ({"noise_multiplier": 0.0}, "noise multiplier is zero"),
        ({"noise_multiplier": 0.0, "sampling": "shuffled"}, "multiplier is zero"),
        ({"noise_reused": True}, "the noise was used before"),
    ],
)
def test_a_failed_premise_of_dpsgd_leaves_no_number(broken, named):
    found = private(**broken)
    assert found.kind == "none"
    assert named in found.statement


def test_batches_that_are_cut_all_the_time_are_accounted_for_by_their_own_law():
    found = private(capacity=80)
    exact = dpsgd.Truncation(718, 80, "exact")
    assert found.epsilon == dpsgd.epsilon(1.8, 0.09, 900, 1e-5, truncation=exact)
    assert found.epsilon > 1.1 * private().epsilon
    assert any("the law of cut batches" in text for text in found.assumptions)
    assert not any("out of δ" in text for text in found.assumptions)
    ceiling = dpsgd.tpr(0.01, 1.8, 0.09, 900, truncation=exact)
    assert f"finds at most {100 * ceiling:.3g} %" in found.statement


def test_an_alternative_without_a_finite_figure_is_named_instead():
    found = private(capacity=80)
    (only,) = found.alternatives
    assert only.adjacency == "replace one record by another"
    assert any(
        text.startswith("add or remove one record (RDP): batches overflow")
        for text in found.not_covered
    )


def test_the_assumptions_say_which_accountant_paid_how_for_cut_batches():
    """At 132 places privacy loss distributions change over, and Renyi cannot."""
    mixed, folded = private(capacity=132), private()
    (line,) = (text for text in mixed.assumptions if "132 places" in text)
    assert line.endswith("(arXiv 2508.15089), and by RDP paid for out of δ")
    (line,) = (text for text in folded.assumptions if "150 places" in text)
    assert line.endswith("paid for out of δ")
    assert "2508" not in line
    assert mixed.epsilon == pytest.approx(folded.epsilon, rel=1e-3)


def test_the_statement_gives_the_ceiling_of_every_membership_attack():
    overflow = dpsgd.overflow_probability(719, 0.09, 150)
    ceiling = dpsgd.tpr(0.01, 1.8, 0.09, 900, overflow_probability=overflow)
    assert f"finds at most {100 * ceiling:.3g} %" in private().statement


def test_a_delta_of_one_over_the_records_is_called_too_large():
    assert "publishes a record" in private(delta=0.01).statement
    assert "publishes a record" not in private().statement


def test_shuffled_epochs_get_no_poisson_figure():
    found = shuffled()
    assert found.kind == "gdp"
    assert found.mu == pytest.approx(math.sqrt(10) / 12.0)
    assert found.epsilon == gdp.epsilon(1e-5, found.mu)
    assert found.adjacency == "replace one record by nothing"
    renyi, replaced, both = found.alternatives
    assert (renyi.adjacency, renyi.accountant[:3]) == (found.adjacency, "RDP")
    assert found.epsilon < renyi.epsilon < 1.15 * found.epsilon
    assert replaced.adjacency == "replace one record by another"
    assert replaced.epsilon == gdp.epsilon(1e-5, 2 * found.mu)
    assert (both.adjacency, both.accountant[:3]) == (replaced.adjacency, "RDP")
    poisson = private(noise_multiplier=12.0, steps=110, sampling_probability=64 / 718)
    assert poisson.epsilon < 0.5 * found.epsilon, "it would look better"
    figures = (found, *found.alternatives)
    assert all(each.adjacency != poisson.adjacency for each in figures)
    missing = " ".join(found.not_covered)
    assert "adding or removing a record, which shifts all later batches" in missing
    assert any("10 times" in text for text in found.assumptions)
    assert not any("Poisson" in text for text in found.assumptions)
    assert shuffled(members=4).mu == pytest.approx(2 * found.mu)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("flat", "is clipped to one norm before the sum"),
        ("normalised", "norm is at most 1"),
        ("automatic", "automatic clipping"),
        ("per_layer", "a norm of its own"),
        ("adaptive", "gradient and count together are one Gaussian mechanism"),
    ],
)
def test_each_clipping_rule_has_its_words_and_no_rule_changes_a_figure(rule, said):
    found = shuffled(clipping=rule)
    (line,) = (text for text in found.assumptions if said in text)
    assert line.startswith("Enforced by the library")
    assert found.epsilon == shuffled().epsilon
    assert ("clipping" in found.mechanism) == (rule != "flat")


def test_a_rule_of_the_users_own_is_left_to_the_user():
    (line,) = (t for t in shuffled(clipping="mine").assumptions if "rule mine" in t)
    assert line.startswith("Left to the user")


def test_the_source_of_the_noise_and_what_is_trained_are_said():
    found = shuffled(noise_source="secure", trained="the head")
    assert any("cryptographic generator" in text for text in found.assumptions)
    assert "trained: the head" in found.mechanism
    (line,) = (text for text in found.assumptions if "all but: the head" in text)
    assert line.startswith("Left to the user")
    assert line.endswith("never trained on the protected records")
    usual = shuffled()
    assert any("pseudo-random generator" in text for text in usual.assumptions)
    assert "trained" not in usual.mechanism


def test_the_epsilon_while_training_is_that_of_the_guarantee():
    run = {"noise_multiplier": 1.8, "delta": 1e-5, "records": 718, "steps": 90}
    poisson = {"sampling_probability": 0.09, "capacity": 80, "members": 2}
    assert stated_epsilon(**run, **poisson) == private(**run, **poisson).epsilon
    epochs = {"sampling_probability": 64 / 718, "capacity": 64, "sampling": "shuffled"}
    assert stated_epsilon(**run, **epochs) == shuffled(**run).epsilon


# --------------------------------------------------------------------------- the seed


@pytest.mark.parametrize("build", [feature, private])
def test_a_fixed_noise_seed_makes_the_run_a_reproduction(build):
    fixed, secret = build(noise_seed="fixed"), build(noise_seed="secret")
    assert fixed.epsilon == secret.epsilon
    assert "does not hold against anyone who knows the seed" in fixed.statement
    assert "seed" not in secret.statement
    assert any("stays secret" in text for text in secret.assumptions)
    assert not any("stays secret" in text for text in fixed.assumptions)


# ------------------------------------------------------------------------------- words


def test_the_figures_stand_side_by_side_in_a_table():
    lines = str(shuffled()).splitlines()
    head = next(n for n, line in enumerate(lines) if "ε at δ = 1e-05, by" in line)
    assert lines[head].split()[-3:] == ["closed", "form", "RDP"]
    found = shuffled()
    renyi, replaced, both = (f"{other.epsilon:.4g}" for other in found.alternatives)
    assert lines[head + 1].split()[-2:] == [f"{found.epsilon:.4g}", renyi]
    assert lines[head + 2].split()[-2:] == [replaced, both]
    assert "by nothing" in lines[head + 1]
    assert "by another" in lines[head + 2]
    gap = next(line for line in str(private()).splitlines() if "by another" in line)
    assert gap.split()[-1] == "-", "by Renyi there is none under Poisson sampling"
    assert "ε at δ" not in str(feature(input_noise=0)), "no figure needs no table"


@pytest.mark.parametrize(
    "guarantee", [feature(), private(), shuffled(), feature(input_noise=0)]
)
def test_the_printed_form_carries_the_number_with_all_that_goes_with_it(guarantee):
    text = " ".join(str(guarantee).split()).replace("- ", "-")
    for part in (
        guarantee.statement,
        *guarantee.assumptions,
        *guarantee.not_covered,
    ):
        assert part.replace("- ", "-") in text
    if guarantee.kind != "none":
        assert str(guarantee).startswith(f"(ε = {guarantee.epsilon:.4g}, δ = 1e-05)")
    assert max(len(line) for line in str(guarantee).splitlines()) <= 100


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: feature(input_noise=-1.0), "input_noise"),
        (lambda: feature(delta=0.0), "delta"),
        (lambda: feature(input_noise=0.0, delta=2.0), "delta"),
        (lambda: feature(bound=None), "bound"),
        (lambda: feature(participations=0), "participations"),
        (lambda: private(delta=1.0), "delta"),
        (lambda: private(capacity=0), "capacity"),
        (lambda: private(noise_multiplier=-1.0), "noise_multiplier"),
        (lambda: private(members=0), "members"),
        (lambda: private(records=0), "records"),
        (lambda: private(sampling_probability=1.5), "sampling_probability"),
        (lambda: shuffled(capacity=0), "capacity"),
    ],
)
def test_values_outside_their_range_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
