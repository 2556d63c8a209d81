"""guarantee.json: of the schema, the same however it is made, and back again."""

import copy
import dataclasses
import json

import jsonschema
import numpy as np
import pytest
from test_certificate import feature, private, shuffled
from tiny_experiment import rpjax

from rpjax.errors import InputError
from rpjax.privacy import Guarantee, documents, dpsgd, gdp, stored
from rpjax.privacy.algebra import compose
from rpjax.privacy.curves import Gaussian, Mixture, Point, Renyi
from rpjax.privacy.labels import RandomisedResponse
from rpjax.privacy.tabulated import Tabulated, tabulated

KINDS = {
    "gamma alone": lambda: feature(input_noise=0.0),
    "input noise": feature,
    "poisson": private,
    "shuffled": shuffled,
}
RATES = np.array([0.0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0])


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def guarantee(request):
    return request.param()


@pytest.fixture(scope="module")
def valid():
    """A check of a document against the schema that comes along."""
    schema = documents.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


def documented(guarantee):
    return documents.document([("one", "One", guarantee.as_dict())])


# --------------------------------------------------------------------------- the schema


def test_every_kind_of_guarantee_is_of_the_schema(guarantee, valid):
    valid(documented(guarantee))


DAMAGE = {
    "an epsilon without a guarantee": lambda g: g.update(kind="none"),
    "no versions": lambda g: g.pop("versions"),
    "no hash": lambda g: g.update(configuration="abc"),
    "a field of another name": lambda g: g.update(eps=1.0),
    "no adjacency": lambda g: g.update(adjacency=None),
    "a negative epsilon": lambda g: g.update(epsilon=-1.0),
    "a rate above one": lambda g: g["ceilings"]["tpr"].append(1.5),
    "an alternative without delta": lambda g: g["alternatives"][0].pop("delta"),
    "nothing uncovered": lambda g: g.update(not_covered=[]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_what_is_not_of_the_schema_is_found(valid, damage):
    values = documented(feature())
    damage(values["methods"][0]["guarantee"])
    with pytest.raises(jsonschema.ValidationError):
        valid(values)


# ----------------------------------------------------------------------- there and back


def test_a_guarantee_comes_back_as_it_was(guarantee):
    text = json.dumps(guarantee.as_dict(), allow_nan=False)
    again = Guarantee.from_dict(json.loads(text))
    assert again == guarantee
    assert str(again) == str(guarantee)
    assert json.dumps(again.as_dict()) == text
    named = dataclasses.replace(guarantee, configuration="sha256:" + 64 * "a")
    assert Guarantee.from_dict(named.as_dict()) == named != guarantee


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda g: g.pop("unit"), "guarantee.unit"),
        (lambda g: g.update(eps=1.0), "guarantee.eps"),
        (lambda g: g["trade_off"]["tpr"].__setitem__(6, 1e-9), "trade_off"),
        (lambda g: g["curve"].update(mu=g["mu"] / 2), "is not what its curve gives"),
        (lambda g: g["curve"].update(kind="other"), "curve.kind is 'other'"),
        (lambda g: g["curve"].pop("mu"), "curve.mu"),
    ],
)
def test_a_guarantee_that_was_altered_is_refused(change, named):
    values = copy.deepcopy(feature().as_dict())
    change(values)
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        Guarantee.from_dict(values)


def test_a_file_of_something_else_is_refused(tmp_path):
    for text in ("{}", "[]", "no json", '{"schema": "rpjax.guarantee/9"}'):
        (tmp_path / "g.json").write_text(text)
        with pytest.raises(InputError, match=r"g\.json: "):
            documents.read(tmp_path / "g.json")
    with pytest.raises(InputError, match="cannot be read"):
        documents.read(tmp_path / "none.json")


# ---------------------------------------------------------------------------- the curve


def test_the_curve_says_what_the_figures_say(guarantee):
    if guarantee.kind == "none":
        assert (guarantee.curve, guarantee.ceilings, guarantee.trade_off) == (
            *(None, (), ()),
        )
        return
    assert guarantee.curve.epsilon(guarantee.delta) == pytest.approx(
        guarantee.epsilon, rel=1e-9
    )
    assert [fpr for fpr, _ in guarantee.ceilings] == [1e-3, 1e-2, 1e-1]
    fpr, tpr = np.array(guarantee.trade_off).T
    assert (np.diff(fpr) > 0).all()
    assert (fpr[0], fpr[-1], tpr[-1]) == (0, 1, 1)
    assert (tpr >= fpr).all()
    assert (np.diff(tpr) >= 0).all()
    grid = dict(guarantee.trade_off)
    assert all(grid[rate] == found for rate, found in guarantee.ceilings)
    found = f"at most {100 * dict(guarantee.ceilings)[0.01]:.3g} %"
    assert found in guarantee.statement


def test_the_trade_off_of_input_noise_is_the_normal_one():
    found = feature()
    fpr, tpr = np.array(found.trade_off).T
    np.testing.assert_allclose(tpr, gdp.tpr(fpr, found.mu), rtol=1e-12)


def test_the_ceilings_of_dpsgd_are_its_accountants():
    overflow = dpsgd.overflow_probability(719, 0.09, 150)
    run = (1.8, 0.09, 900)
    expected = dpsgd.tpr(RATES, *run, overflow_probability=overflow)
    found = private().curve.tpr(RATES)
    # a table is above what it was made from, by next to nothing
    assert (found >= expected * (1 - 1e-12)).all()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)
    for delta in (1e-3, 1e-5, 1e-7):
        exact = dpsgd.epsilon(*run, delta, overflow_probability=overflow)
        assert exact <= private().curve.epsilon(delta) <= 1.01 * exact


CURVES = {
    "gaussian": Gaussian(1.3),
    "point": Point(1.0, 1e-6),
    "mixture": Mixture((0.25, 0.75), (Gaussian(0.0), Point(2.0))),
    "labels": RandomisedResponse(2.0, 10),
    "renyi": Renyi((2.0, 8.0, 32.0), (1.0, 4.0, 16.0)),
    "tabulated": Tabulated((0.0, 1.0), (0.5, 0.25)),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=list(CURVES))
def test_every_kind_of_curve_comes_back_as_it_was(curve):
    values = json.loads(json.dumps(stored.as_dict(curve)))
    assert stored.from_dict(values) == curve
    assert stored.storable(curve) is curve


def test_a_table_never_flatters_and_is_exact_at_its_entries():
    """Of 40 Gaussians, at 500 epsilons each, against their closed form."""
    rng = np.random.default_rng(0)
    for mu in rng.uniform(0.05, 6.0, 40):
        exact = Gaussian(float(mu))
        at = np.linspace(0, exact.epsilon(1e-9), 50)
        table = tabulated(at, exact.profile(at))
        np.testing.assert_allclose(table.profile(at), exact.profile(at), rtol=1e-12)
        between = rng.uniform(0, at[-1], 500)
        assert (table.profile(between) >= exact.profile(between)).all()
        assert (table.tpr(RATES) >= exact.tpr(RATES) * (1 - 1e-12)).all()
        # a twentieth of the power at most is given away by fifty entries
        assert table.tpr(0.01) <= 1.05 * exact.tpr(0.01)
        assert table.delta(2 * at[-1]) == table.delta(float(at[-1])) > 0


def test_a_table_keeps_the_pairs_that_are_known_beside_it():
    at = np.linspace(0, 8, 9)
    table = tabulated(at, Gaussian(1.0).profile(at), [(4.38, 1e-5), (900.0, 1e-20)])
    assert table.epsilon(1e-5) == pytest.approx(4.38, rel=1e-12)
    assert table.delta(900.0) == table.deltas[-1], "beyond the last, that of the last"


def test_a_table_of_a_single_entry_says_that_everywhere():
    only = Tabulated((0.0,), (0.25,))
    assert (only.delta(0.0), only.delta(5.0)) == (0.25, 0.25)
    assert only.tpr(0.1) == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("epsilons", "deltas"),
    [
        *(((), ()), ((0.0, 1.0), (0.5,)), ((1.0,), (0.5,)), ((0.0,), (1.5,))),
        *(((0.0, 0.0), (0.5, 0.2)), ((0.0, 800.0), (0.5, 0.1)), ((0.0,), (-0.1,))),
    ],
)
def test_tables_that_make_no_sense_are_refused(epsilons, deltas):
    with pytest.raises(InputError, match=r"^(epsilons|deltas): "):
        Tabulated(epsilons, deltas)


def test_a_numerical_curve_is_stored_as_its_table():
    curve = compose(Gaussian(0.5), Point(0.5))
    epsilon = curve.epsilon(1e-5)
    table = stored.storable(curve, (epsilon, 1e-5))
    assert stored.from_dict(stored.as_dict(table)) == table
    assert table.epsilon(1e-5) == pytest.approx(epsilon, rel=1e-9)
    between = np.linspace(0, 3, 200)
    assert (table.profile(between) >= curve.profile(between) - 1e-15).all()
    assert table.delta(1.0) <= 1.001 * curve.delta(1.0)


# ------------------------------------------------------------- training and `account`


def test_a_training_with_input_noise_states_what_account_states(tmp_path, valid):
    """One figure that is finite for residual perturbation, from both ends."""
    options = ["--train-records", 64, "--batch-size", 32, "--epochs", 1]
    options += ["--input-noise", 9, "--input-bound", 3]
    run = rpjax("train", *options, "--method", "strategy1", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    file = tmp_path / "account.json"
    said = rpjax("account", *options, "--methods", "strategy1", "--json", file)
    trained = tmp_path / "out" / "guarantee.json"
    assert json.loads(file.read_text()) == json.loads(trained.read_text())
    valid(json.loads(file.read_text()))
    (proved,) = documents.read(trained).values()
    assert proved.mu == pytest.approx(2 * 3 / 9)
    # the very text is printed, and stands in the report
    assert str(proved) in said.out
    assert proved.statement.split(". ")[0] in (tmp_path / "out/report.md").read_text()
