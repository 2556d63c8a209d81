"""Whatever kills a training, nothing is lost and nothing is left lying about.

Trainings run as processes of their own, so that they can be killed with `kill -9`,
which no Python code survives, and run out of disk.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("train_and_be_killed.py")
# six in all; RPJAX_KILLS=4 is twenty-four, which take as much longer
TIMES = int(os.getenv("RPJAX_KILLS", "1"))
KILLS = {"one net": 2 * TIMES, "ensemble": 2 * TIMES, "DP-SGD": 2 * TIMES}


@pytest.fixture(scope="module")
def training(pytestconfig):
    """(name, folder, steps) -> a process that trains `name` there."""
    env = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(pytestconfig.cache.mkdir("jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    }

    def start(name, folder, steps=160, largest_file=None):
        limits = {"LARGEST_FILE": str(largest_file)} if largest_file else {}
        return subprocess.Popen(
            [sys.executable, WORKER, name, folder / "ck", folder / "result.npz"],
            env={**env, "STEPS": str(steps), **limits},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def begun(process):
    """Wait for its first steps; False if it ended before."""
    return process.stdout.readline() == "training\n"


def result(folder):
    with np.load(folder / "result.npz") as file:
        return file["state"], json.loads(str(file["facts"]))


def steps_saved(folder):
    return sorted(int(p.name) for p in folder.glob("ck/*") if p.name.isdigit())


def assert_tidy(folder):
    """Two checkpoints, and neither temporary files nor locks."""
    assert {p.name for p in folder.iterdir()} == {"ck", "result.npz"}
    assert len(steps_saved(folder)) <= 2
    left = [p for p in folder.rglob("*") if "tmp" in p.name or "lock" in p.name]
    assert not left


@pytest.mark.parametrize(("name", "kills"), KILLS.items(), ids=KILLS)
def test_a_training_that_is_killed_again_and_again_ends_as_if_it_never_was(
    training, tmp_path, name, kills
):
    """`kill -9` at random moments: saving, stepping, and now and then while starting.

    Parameters, optimiser, keys' counter, history and ledger are equal bit for bit.
    """
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
    finished(training(name, calm))
    when = random.Random(name)
    done = resumed = 0
    while done < kills:
        if (rough / "result.npz").exists():  # quicker than its killer: begin another
            rough = tmp_path / f"rough after {done}"
            rough.mkdir()
        process = training(name, rough)
        if done % 4 == 3:  # while it starts
            time.sleep(when.uniform(0, 3))
        elif begun(process):
            patient = done % 4 > 0  # else it may have saved nothing yet
            while patient and not steps_saved(rough) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(when.uniform(0, 0.3))
        resumed += bool(steps_saved(rough))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.communicate()
    assert resumed > kills // 3, "few kills fell between checkpoints"
    for folder in tmp_path.glob("rough*"):
        finished(training(name, folder))
        state, facts = result(calm)
        again, facts_again = result(folder)
        np.testing.assert_array_equal(state, again)
        assert facts == facts_again
        assert_tidy(folder)


def test_a_full_disk_is_told_in_one_line_and_loses_nothing(training, tmp_path):
    """No file may grow beyond 1 kB, which the system treats as a disk that is full."""
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
    finished(training("one net", calm, steps=12))
    finished(training("one net", rough, steps=6))
    (rough / "result.npz").unlink()

    process = training("one net", rough, steps=12, largest_file=1024)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert "StorageError: a checkpoint could not be written to" in last
    assert "the one before is intact" in last
    assert steps_saved(rough)[-1] == 6
    finished(training("one net", rough, steps=12))
    np.testing.assert_array_equal(result(calm)[0], result(rough)[0])
    assert_tidy(rough)


def test_a_second_process_is_refused_while_the_first_trains(training, tmp_path):
    first = training("one net", tmp_path, steps=100_000)
    assert begun(first)
    second = training("one net", tmp_path, steps=100_000)
    _, err = second.communicate(timeout=300)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    last = err.strip().splitlines()[-1]
    assert f"is in use by process {first.pid} on " in last
    assert "InputError: the checkpoint folder" in last
    # what was killed holds no lock
    third = training("one net", tmp_path, steps=100_000)
    assert begun(third)
    third.kill()
    third.communicate()


def test_sigterm_saves_and_says_so(training, tmp_path):
    calm, asked = tmp_path / "calm", tmp_path / "asked"
    for folder in (calm, asked):
        folder.mkdir()
    finished(training("ensemble", calm, steps=200))
    process = training("ensemble", asked, steps=200)
    assert begun(process)
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, "it had finished before"
    last = err.strip().splitlines()[-1]
    assert "Preempted: stopped by SIGTERM after step" in last
    assert f"after step {steps_saved(asked)[-1]} of 200" in last
    finished(training("ensemble", asked, steps=200))
    np.testing.assert_array_equal(result(calm)[0], result(asked)[0])
    assert_tidy(asked)
