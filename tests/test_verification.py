"""`verify`: an intact training passes, and every planted fault is found and named."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faulty import SIZE, Net, faulty
from support import Dense, records

import rpjax as rp
from rpjax.cli import commands
from rpjax.cli import main as cli
from rpjax.counts import Counts
from rpjax.data.sampling import poisson, shuffled
from rpjax.errors import InputError
from rpjax.learners import losses
from rpjax.learners.losses import cross_entropy
from rpjax.verification import check_isolation, noise, sampling, verify
from rpjax.verification.verdict import LEVEL, Finding, Verdict

ON_DEVICES = ("noise on each device", "noise drifts apart")
STEP = ("isolation", "parameters", "noise", "sensitivity", "parity", "divisor")


@pytest.fixture(scope="module")
def data():
    return records(64)


@functools.cache
def judged(fault=""):
    """What is found of a step with this fault."""
    devices = 2 if fault in ("", *ON_DEVICES) else 1  # one program less to compile
    return verify(
        faulty(fault), records(64), batch_size=SIZE, checks=STEP, devices=devices
    )


# ----------------------------------------------------------------------------- intact


def test_an_intact_learner_passes_every_check(data):
    """Fails with a probability of 1e-3 at most, if the seed is changed."""
    learner = rp.dpsgd(
        *(Dense(), optax.adam(0.1)),
        **{"clip_norm": 0.5, "noise_multiplier": 1.3, "batch_size": SIZE},
    )
    verdict = verify(learner, data, batch_size=SIZE, steps=20)
    assert verdict.ok, str(verdict)
    answered = {f.question for f in verdict.findings if f.ok}
    unanswered = {f.question for f in verdict.findings if f.ok is None}
    assert unanswered == {"frozen parameters"}
    assert len(answered) >= 28


def test_a_step_of_ones_own_passes_as_well():
    assert judged().ok, str(judged())


def test_frozen_parameters_and_views_and_microbatches_pass(data):
    learner = rp.dpsgd(
        *(Dense(), optax.sgd(0.1)),
        **{"clip_norm": 0.5, "noise_multiplier": 1.3, "batch_size": SIZE},
        **{"trainable": ("head",), "augmentation_multiplicity": 2, "microbatch": 5},
        **{"clipping": "per_layer"},
    )
    verdict = verify(learner, data, batch_size=SIZE, checks=STEP)
    assert verdict.ok, str(verdict)
    assert "frozen parameters that move or receive noise" in str(verdict)


def test_class_weights_pass_and_the_divisor_is_that_of_all_records(data):
    """Records of the class with the least weight do not look divided by more."""
    data = data.take(np.flatnonzero(data.labels == 0))
    counts = Counts((30, 20, 5), "public")
    loss = losses.class_weighted(counts)
    learner = rp.dpsgd(
        *(Dense(), optax.sgd(0.1)),
        **{"clip_norm": 0.05, "noise_multiplier": 1.3, "batch_size": SIZE},
        loss=loss,
    )
    checks = ("sensitivity", "parity", "divisor")
    verdict = verify(learner, data, batch_size=SIZE, loss=loss, checks=checks)
    assert verdict.ok, str(verdict)
    (found,) = [f for f in verdict.findings if f.check == "divisor"]
    assert float(found.found) == pytest.approx(SIZE, rel=1e-3)


def test_a_claim_about_parameters_that_are_not_there_is_refused(data):
    def claims(tx):
        learner = faulty()(tx)
        facts = dataclasses.replace(learner.mechanism, trained=("head", "tail"))
        return learner._replace(mechanism=facts)

    with pytest.raises(InputError, match="names 'tail', which is the beginning of no"):
        verify(claims, data, batch_size=SIZE, checks=STEP)


# ----------------------------------------------------------------------- planted faults

FAULTS = {
    "batch norm": (("isolation", "parity"), "as BatchNorm has in train mode"),
    "loss mixes": (("isolation", "parity"), "the loss mixes records"),
    "loss mixes valid": (
        ("isolation", "sensitivity", "parity"),
        "or by a loss that mixes records",
    ),
    "true size": (
        ("isolation", "noise", "sensitivity", "parity", "divisor"),
        "the number of records that the batch really holds",
    ),
    "clipped together": (
        ("isolation", "sensitivity", "parity", "divisor"),
        "clipped together afterwards",
    ),
    "counted twice": (("isolation", "sensitivity", "parity"), "counted twice"),
    "slot left out": (("isolation", "parity"), "left out, depending on their slot"),
    "padding counts": (
        ("isolation", "parameters", "noise", "parity"),
        "the mask of valid slots is not applied",
    ),
    "layer left out": (
        ("sensitivity", "parity"),
        "the norm leaves out hidden/kernel",
    ),
    "not clipped": (("sensitivity", "parity"), "they are not clipped"),
    "not finite": (("sensitivity",), "NaN or infinite is let into the sum"),
    "wrong gradient": (("parity",), "gradients are not those of the loss, most"),
    "noise scaled to the mean": (("noise",), "scaled to the mean and added to the sum"),
    "undivided noise": (("noise",), "scaled to the sum is added to the mean"),
    "noise on each device": (("noise",), "each of 2 devices adds noise of its own"),
    "noise drifts apart": (("noise",), "devices draw different noise after the sum"),
    "seed reuse": (("noise",), "its seed is used again"),
    "seed public": (("noise",), "does not depend on the secret"),
    "one key for all": (("noise",), "one key draws it for several of them"),
    "frozen": (
        ("parameters",),
        "hidden/bias, hidden/kernel should be frozen and receive noise",
    ),
    "cut off": (
        ("parameters",),
        "hidden/bias, hidden/kernel never got a gradient",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_every_failure_names_it(fault):
    checks, cause = FAULTS[fault]
    failures = judged(fault).failures
    assert tuple(dict.fromkeys(f.check for f in failures)) == checks
    for failure in failures:
        assert cause in failure.cause, failure
        assert failure.mend


def test_randomness_of_the_host_is_found(data):
    """No step can be compared with another then, and none can be resumed."""
    rng = np.random.default_rng(0)

    def make(tx):
        intact = faulty()(tx)

        def step(key, state, batch, axis=None):
            draw = jax.pure_callback(
                lambda _: np.float32(rng.normal()),
                jax.ShapeDtypeStruct((), jnp.float32),
                state.step,
            )
            params = jax.tree.map(lambda p: p + draw, state.params)
            return intact.step(key, state._replace(params=params), batch, axis)

        return intact._replace(step=step)

    verdict = verify(make, data, batch_size=SIZE, checks=("resume",))
    assert not verdict.ok
    assert "something that is not in the state" in verdict.failures[0].cause


# ---------------------------------------------------------------------------- batches

RECORDS, EXPECTED = 64, 8


@functools.cache
def secret_state():
    return rp.learners.State(
        *(jnp.int32(0), {}, {}, {}),
        rp.keys.fixed_secret(rp.keys.root(0)),
    )


def drawn(sampler, claimed="poisson"):
    rows = sampling.sampling(sampler, claimed, secret_state(), 0)
    return {row.question: row.cause for row in rows if row.ok is False}


def changed(change, capacity=40):
    """Poisson batches, changed by (key, block, positions, valid) -> the last two."""
    intact = poisson(RECORDS, EXPECTED, capacity)
    draw = lambda key, block: change(key, block, *intact.draw(key, block))
    return intact._replace(draw=draw)


def one_seed(key, block, positions, valid):
    """Every step tosses the first step's coins."""
    return tuple(jnp.broadcast_to(leaf[0], leaf.shape) for leaf in (positions, valid))


def one_block(key, block, positions, valid):
    return poisson(RECORDS, EXPECTED, 40).draw(key, jnp.int32(0))


def fixed_size(key, block, positions, valid):
    """The same coins, but always as many records as are expected."""
    first = jnp.arange(valid.shape[1]) < EXPECTED
    return positions, jnp.broadcast_to(first, valid.shape)


def in_pairs(key, block, positions, valid):
    """Two neighbours share a coin."""
    one = poisson(RECORDS // 2, EXPECTED // 2, 20).draw(key, block)
    both = jnp.concatenate([2 * one[0], 2 * one[0] + 1], axis=1)
    return both, jnp.concatenate([one[1], one[1]], axis=1)


def biased(key, block, positions, valid):
    """The last record is never drawn."""
    return positions, valid & (positions < RECORDS - 1)


def twice(key, block, positions, valid):
    return positions.at[:, 1].set(positions[:, 0]), valid


def keyless(key, block, positions, valid):
    return poisson(RECORDS, EXPECTED, 40).draw(rp.keys.root(7), block)


def fewer_slots(key, block, positions, valid):
    return positions[:, :12], valid[:, :12]


SHUFFLED = shuffled(RECORDS, EXPECTED)


def test_poisson_batches_pass_cut_or_not():
    """Two of 1e-3 each, were the seed another one."""
    assert not drawn(poisson(RECORDS, EXPECTED, 40))
    assert not drawn(poisson(RECORDS, EXPECTED, 9))


def test_shuffled_batches_pass_as_such():
    assert not drawn(SHUFFLED, "shuffled")


@pytest.mark.parametrize(
    ("sampler", "question", "cause"),
    [
        (
            SHUFFLED._replace(kind="poisson"),
            "the batch size's standard deviation",
            "as if each record entered by its own coin",
        ),
        (
            SHUFFLED._replace(kind="poisson"),
            "records in two steps in a row",
            "as if each record entered by its own coin",
        ),
        (
            changed(fixed_size),
            "the batch size's standard deviation",
            "shuffled or of fixed size",
        ),
        (changed(one_seed), "records in two steps in a row", "used again"),
        (changed(in_pairs), "neighbours in one batch", "are not independent"),
        (changed(biased), "each record's own rate", "that at position 63: 0 and not"),
        (changed(twice), "a record twice in one batch", "with replacement"),
        (changed(keyless), "what batches depend on", "not a function of the key"),
        (changed(fewer_slots), "slots of a batch", "another size"),
        (
            changed(lambda *args: args[2:])._replace(batch_size=9),
            "the mean batch size",
            "and not 0.1406",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batches_that_are_not_poisson_are_found(sampler, question, cause):
    assert cause in drawn(sampler)[question]


def test_no_poisson_epsilon_for_batches_that_are_not_poisson(data):
    """The sampler says what it is not, and the mechanism believes it."""
    verdict = verify(
        faulty(),
        data,
        batch_size=SIZE,
        sampler=shuffled(64, SIZE)._replace(kind="poisson"),
        checks=("sampling", "accounting"),
    )
    assert {f.check for f in verdict.failures} == {"sampling", "accounting"}
    assert "the statement of 8 steps" in {f.question for f in verdict.failures}


def test_sampler_and_mechanism_must_agree(data):
    verdict = verify(
        faulty(),
        data,
        batch_size=SIZE,
        sampler=shuffled(32, 4),
        checks=("accounting",),
    )
    failed = {f.question: f.found for f in verdict.failures}
    assert failed["the kind of batches"] == "sampler shuffled, mechanism poisson"
    assert failed["records and expected batch size"] == "mechanism 8, sampler 4 of 32"


# ------------------------------------------------------------------------- error rates


def test_tests_of_the_noise_err_as_rarely_as_they_say():
    """Six tests of 100 intact draws: at 8e-5 each, an alarm has a chance of 5 %."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        leaves = {"a": rng.normal(size=(24, 300)), "b": rng.normal(size=(24, 3))}
        squares = {n: np.sum(leaf**2, 1) for n, leaf in leaves.items()}
        found = noise.Noise(leaves, squares, {"a": 300, "b": 3}, [], np.zeros(0))
        for each in (found, found.largest(), found.once()):
            assert noise.p_scale(each.total, each.count) >= LEVEL
        assert noise._shape(found).ok
        assert noise._steps(found).ok
        assert noise._leaves(found).ok


def test_a_scale_is_seen_as_its_power_says():
    """Twice its `seen`, of 100 draws: all, with a probability beyond 1 - 1e-6."""
    rng, size = np.random.default_rng(2), 2_000
    for sign in (-1, 1):
        factor = 1 + 2 * sign * noise.seen(size)
        draws = factor * rng.normal(size=(100, size))
        assert all(noise.p_scale(np.sum(d**2), size) < LEVEL for d in draws)


# ------------------------------------------------------------------ a loop of one's own


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_loss_of_ones_own_is_isolated_unless_it_has_batch_norm(batch_norm):
    net = Net(batch_norm=batch_norm)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 6, 1)), "f")
    made = net.init(jax.random.key(0), images)

    def loss(params, images, labels):
        variables = made | {"params": params}
        logits, _ = net.apply(variables, images, True, mutable=["batch_stats"])
        return cross_entropy(logits, labels).mean()

    labels = jnp.arange(5) % 3
    verdict = check_isolation(
        loss, made["params"], images, labels, batch_argnums=(1, 2)
    )
    assert verdict.ok != batch_norm
    if batch_norm:
        assert "statistics of the batch (BatchNorm" in verdict.failures[0].cause


# --------------------------------------------------------------------------- refusals


def test_what_cannot_be_verified_is_refused_in_one_line(data, unchecked):
    learner = rp.dpsgd(
        *(Dense(), optax.sgd(0.1)),
        **{"clip_norm": 0.5, "noise_multiplier": 1.3, "batch_size": SIZE},
    )
    for subject, words in (
        (rp.supervised(Dense(), optax.sgd(0.1)), "does not let its optimiser be"),
        (lambda tx: rp.supervised(Dense(), tx), "kind 'forward'"),
        (lambda tx: rp.ensemble(learner, members=2), "has members"),
        (lambda tx: "learner", "has no init"),
        (lambda tx: learner, "0 times"),
    ):
        with pytest.raises(InputError, match=words):
            verify(subject, data, batch_size=SIZE)
    with pytest.raises(InputError, match="checks names 'isolaton'; known: isolation"):
        verify(learner, data, batch_size=SIZE, checks=("isolaton",))


# ----------------------------------------------------------------------------- command


@pytest.mark.parametrize("ok", [True, False])
def test_the_command_verifies_what_train_would_train(ok, monkeypatch, capsys):
    asked = {}

    def stand_in(learner, records, **options):
        asked.update(options, learner=learner, records=len(records))
        row = Finding("noise", "its scale", "2", "1", ok, "a cause", "a mend")
        return Verdict((row,))

    monkeypatch.setattr(commands, "verify", stand_in)
    flags = "--train-records 200 --dp-batch-size 20 --dp-epochs 2 --noise-multiplier 2"
    code = cli(["verify", "--method", "dpsgd", *flags.split(), "--checks", "noise"])
    assert code == (0 if ok else 1)
    assert ("FAILED" in capsys.readouterr().out) is not ok
    facts = asked["learner"].mechanism
    assert (facts.kind, facts.noise_multiplier, facts.batch_size) == ("dpsgd", 2.0, 20)
    assert (asked["records"], asked["steps"], asked["checks"]) == (200, 20, ("noise",))
