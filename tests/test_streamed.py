"""Training on records that stay on disk is training on the same records in memory."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from stored_images import stored, truncate, write_imagenet
from support import Dense, assert_close, assert_same, differ

from rpjax import keys
from rpjax.data.stored import LEFT_EMPTY, StoredImages
from rpjax.data.streaming import Workers
from rpjax.errors import InputError
from rpjax.learners import Inputs, dpsgd, ensemble, side_by_side, supervised
from rpjax.perturbations import Additive
from rpjax.training import Query, fit, programs, streamed
from rpjax.training.devices import layout
from rpjax.training.loop import sampler_for
from rpjax.training.streamed import local_rows

pytest_plugins = ["stored_images"]

TX = optax.sgd(0.05, momentum=0.9)
FIXED = {"batch_size": 4, "seed": 1, "noise_seed": "fixed"}


def plain():
    return supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))


def private():
    return dpsgd(Dense(None), TX, clip_norm=1.0, noise_multiplier=1.0, batch_size=4)


OWN = np.stack([np.random.default_rng(i).permutation(24)[:14] for i in range(4)])
CASES = {
    "plain": (plain, {}),
    "plain on a list": (plain, {"lists": OWN[0]}),
    "members on their own lists": (lambda: side_by_side(plain(), 4), {"lists": OWN}),
    "DP-SGD": (private, {}),
    "DP-SGD ensembles, own lists": (
        lambda: side_by_side(ensemble(private(), 2), 4),
        {"lists": OWN},
    ),
}


@pytest.fixture
def short(monkeypatch):
    """Streams of a few steps, so that a training goes through several."""
    monkeypatch.setattr(streamed, "SPAN", 5)
    monkeypatch.setattr(streamed, "AHEAD", 2)


@pytest.mark.parametrize(("make", "options"), CASES.values(), ids=CASES)
def test_streamed_training_equals_resident_training(
    make, options, on_disk, decoded, short
):
    """The same batches; two programs, of which rounding is all that may differ."""
    learner, options = make(), {**FIXED, "steps": 14, **options}
    disk = fit(learner, on_disk.train, **options)
    memory = fit(learner, decoded.train, **options)
    assert_close(disk.state, memory.state, rtol=2e-6, atol=2e-7)
    assert_close(disk.history, memory.history, rtol=2e-6)
    other = fit(learner, decoded.train, **{**options, "seed": 2})
    assert differ(
        jax.tree.map(lambda leaf: leaf.round(2), disk.state.params),
        jax.tree.map(lambda leaf: leaf.round(2), other.state.params),
    ), "other batches would be noticed"
    assert disk.stopwatch(2) > 0


def test_answers_on_records_on_disk_are_those_in_memory(on_disk, decoded):
    run = fit(plain(), on_disk.train, steps=1, **FIXED)
    for query in (None, Query(draws=3)):
        disk, memory = (run.answers(d.train, query) for d in (on_disk, decoded))
        np.testing.assert_array_equal(disk, memory)
    assert run.evaluate(on_disk.test) == run.evaluate(decoded.test)


def test_several_devices_and_processes_that_decode_change_nothing(
    on_disk, decoded, short
):
    make, options = CASES["DP-SGD ensembles, own lists"]
    learner = make()
    options = {**FIXED, "steps": 7, **options, "devices": "member=2,data=2"}
    disk = fit(learner, on_disk.train, workers=2, **options)
    memory = fit(learner, decoded.train, **options)
    assert_close(disk.state, memory.state, rtol=2e-6, atol=2e-7)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("name", ["plain", "DP-SGD"])
def test_a_streamed_training_resumes_at_any_step(name, on_disk, short, tmp_path):
    """In the middle of a block and of a stream; equal to the undisturbed one."""
    learner, options = CASES[name][0](), {**FIXED, "checkpoints": tmp_path}
    whole = fit(learner, on_disk.train, steps=13, **FIXED)
    for steps in (3, 4, 11, 13):
        run = fit(learner, on_disk.train, steps=steps, **options)
    assert_same(run.state, whole.state)
    assert run.history == whole.history


def test_records_on_disk_and_in_memory_resume_each_other(on_disk, decoded, tmp_path):
    options = {**FIXED, "checkpoints": tmp_path}
    fit(private(), on_disk.train, steps=3, **options)
    run = fit(private(), decoded.train, steps=6, **options)
    whole = fit(private(), on_disk.train, steps=6, **FIXED)
    assert_close(run.state, whole.state, rtol=2e-6, atol=2e-7)


# --------------------------------------------------------------- only what is needed


@pytest.fixture
def decoding(monkeypatch):
    """The rows of all batches that were decoded, one entry for each slot."""
    rows = []
    batch = StoredImages.batch

    def noted(self, positions):
        rows.extend(self.rows[positions[positions != LEFT_EMPTY]].tolist())
        return batch(self, positions)

    monkeypatch.setattr(StoredImages, "batch", noted)
    return rows


def test_each_slot_of_the_plan_is_decoded_once_and_padding_never(on_disk, decoding):
    run = fit(private(), on_disk.train, steps=20, **FIXED)
    expected = plan(private(), 24, layout(None, (), 0))
    valid = np.asarray(expected[1])[:20]
    assert valid.sum() < valid.size / 3, "most of a Poisson batch's slots are padding"
    wanted = np.asarray(expected[0])[:20][valid]
    np.testing.assert_array_equal(np.sort(decoding), np.sort(wanted))
    assert run.sampler.kind == "poisson"


def plan(learner, records, where):
    """The first block's positions and valid, as a training with seed 1 draws them."""
    sampler = sampler_for(learner, records, 4)
    root = keys.root(FIXED["seed"])
    first = jax.jit(programs.first_state(learner, where, programs.impl_of(root)))
    words = where.put(jax.random.key_data(root))
    state = first(words, where.put(np.zeros((1, 12, 12, 3), np.uint8)))
    secret = where.fetch(state.secret)
    own = programs.plan_keys(sampler, learner.members, root, secret)
    draw = programs.planned(learner, sampler, where, programs.impl_of(own))
    words = where.put(jax.random.key_data(own), where.member_spec())
    return jax.jit(draw)(words, np.int32(0))


def test_a_process_gets_the_rows_of_its_own_devices_alone():
    """Four members and each batch on 2 x 4 devices: what two processes would share."""
    learner, where = side_by_side(private(), 4), layout("member=2,data=4", (4,), 0)
    positions, valid = plan(learner, OWN.shape[1], where)
    everyone = local_rows(positions, valid, OWN)
    slots = positions.shape[-1] // 4
    assert set(everyone) == {(m, s * slots) for m in (0, 2) for s in range(4)}
    rows = np.take_along_axis(OWN[None], np.asarray(positions), -1)
    rows = np.where(np.asarray(valid), rows, LEFT_EMPTY)
    for (member, slot), part in everyone.items():
        expected = rows[:, member : member + 2, slot : slot + slots]
        np.testing.assert_array_equal(part, expected)
    grid = where.mesh.devices
    for own in (grid[0], grid[:, :2].ravel()):
        parts = local_rows(positions, valid, OWN, list(own))
        assert len(parts) == 4
        for place, part in parts.items():
            np.testing.assert_array_equal(part, everyone[place])
    members = local_rows(positions, valid, OWN, list(grid[0]))
    assert {member for member, _ in members} == {0}


# ------------------------------------------------------------------- when things break


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_training_is_one_line_and_loses_nothing(
    workers, tmp_path, on_disk
):
    root = write_imagenet(tmp_path / "images")
    data, folder = stored(root), tmp_path / "ck"
    options = {**FIXED, "checkpoints": folder}
    fit(plain(), data.train, steps=3, **options)
    files = list(root.glob("train/*/*.JPEG"))
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        truncate(file)
    with pytest.raises(InputError, match=r"\.JPEG: not a readable image") as caught:
        fit(plain(), data.train, steps=12, workers=workers, **options)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    for file, content in whole.items():
        file.write_bytes(content)
    run = fit(plain(), data.train, steps=12, **options)
    assert_same(run.state, fit(plain(), on_disk.train, steps=12, **FIXED).state)


def square(number):
    return np.full(300_000 if number % 2 else 3, number**2)


def test_results_come_in_order_through_pipes_and_shared_memory():
    with Workers(square, 2) as workers:
        for number, result in enumerate(workers.stream(range(9))):
            assert (result == number**2).all()
    assert not multiprocessing.active_children()
    assert not list(Path("/dev/shm").glob("psm_*")), "shared memory was left"


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_line():
    with (
        Workers(die, 1) as workers,
        pytest.raises(InputError, match="workers is 1, and"),
    ):
        next(workers.stream([1, 2]))
    with pytest.raises(InputError, match="workers is -1; it must be >= 0"):
        Workers(die, -1)


SCRIPT = """
import os, sys, time
from test_streamed import linger
from rpjax.data.streaming import Workers

def main():
    stream = Workers(linger, 2).stream(range(10_000))
    print(next(stream), next(stream), flush=True)
    time.sleep(600)

{guard}
    main()
"""


def linger(number):
    time.sleep(0.02)
    return os.getpid()


def script(folder, guard):
    file = folder / "script.py"
    file.write_text(SCRIPT.format(guard=guard))
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, file],
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    """`kill -9` of the parent, which can tell nobody; SIGTERM does not end them."""
    process = script(tmp_path, 'if __name__ == "__main__":')
    workers = {int(pid) for pid in process.stdout.readline().split()}
    assert workers
    assert process.pid not in workers
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    assert all(map(alive, workers))
    process.kill()
    process.communicate()
    until = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    process = script(tmp_path, "if True:")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert 'outside `if __name__ == "__main__":`' in err
