"""Several processes train as one does; whatever stops one of them, nothing is lost.

Two processes on this machine, with two devices each, as `train_in_two_processes.py`.
"""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from stored_images import write_imagenet
from support import assert_close, records
from two_processes import CLI, ended, finished, free_port

from rpjax.training import fit

pytest_plugins = ["two_processes"]

WORKER = Path(__file__).with_name("train_in_two_processes.py")
STEPS = 60


def begun(process):
    """Wait for its first steps."""
    return any(line == "training\n" for line in process.stdout)


def result(folder, index=0):
    with np.load(folder / f"result{index}.npz") as file:
        return file["state"], file["answers"], json.loads(str(file["facts"]))


def assert_equal_results(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert one[2] == other[2]


def steps_saved(folder):
    return sorted(int(p.name) for p in folder.glob("ck/*") if p.name.isdigit())


# ----------------------------------------------------------- training in two processes

CASES = ["DP-SGD", "ensemble on own lists"]


@pytest.fixture
def train(start):
    """(case, folder, steps, seconds between checkpoints) -> two processes train it."""

    def begin(name, folder, steps=STEPS, seconds=0.2):
        folder.mkdir(exist_ok=True)
        words = (WORKER, name, folder / "ck", folder)
        return start(words, STEPS=str(steps), CHECKPOINT_SECONDS=str(seconds))

    return begin


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_that_are_killed_end_as_if_they_never_were(train, tmp_path, name):
    """`kill -9` to both, and then to the end.

    The state, the answers, the history and the guarantee equal the undisturbed run's
    bit for bit, and one process with four devices gives the same numbers.
    """
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    finished(train(name, calm))

    killed = train(name, rough, seconds=0.0)
    assert all(map(begun, killed))
    deadline = time.monotonic() + 60
    while not steps_saved(rough) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in killed:
        process.send_signal(signal.SIGKILL)
    _, errors, codes = ended(killed)
    assert codes == [-9, -9], errors
    assert 0 < steps_saved(rough)[-1] < STEPS

    finished(train(name, rough))
    assert_equal_results(result(rough), result(calm))
    assert_equal_results(result(calm, 0), result(calm, 1))
    assert result(calm)[2]["processes"] == 2
    assert not [p for p in rough.rglob("*") if "tmp" in p.name or "lock" in p.name]

    case = in_one_process(name)
    alone = fit(**case, steps=STEPS)
    state, answers, facts = result(calm)
    assert_close(np.asarray(ravel_pytree(alone.state)[0]), state, rtol=1e-3, atol=1e-4)
    assert_close(alone.answers(case["records"]), answers, rtol=1e-3, atol=1e-3)
    assert repr(alone.guarantee()) == facts["guarantee"]
    assert_close(alone.history, facts["history"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_sigterm_to_one_stops_both_at_one_step_from_which_one_process_goes_on(
    train, tmp_path
):
    asked = train("DP-SGD", tmp_path, steps=100_000, seconds=1000)
    assert all(map(begun, asked))
    asked[1].terminate()  # the one that writes nothing
    _, errors, codes = ended(asked)
    assert codes == [1, 1], errors
    (step,) = steps_saved(tmp_path)
    for error in errors:
        assert f"Preempted: stopped by SIGTERM after step {step} of 100000" in error

    case = in_one_process("DP-SGD")
    on = fit(**case, steps=step + 2, checkpoints=tmp_path / "ck")
    whole = fit(**case, steps=step + 2)
    assert on.stopwatch is not None, "it took no step"
    assert_close(on.state, whole.state, rtol=1e-3, atol=1e-3)


def in_one_process(name):
    """What `fit` takes for the same training on four devices of one process."""
    from train_in_two_processes import CASES, DATA

    case = {"records": records(DATA), "devices": 4, **CASES[name]()}
    return case | {"batch_size": 8, "seed": 7, "noise_seed": "fixed"}


@pytest.mark.slow
def test_two_processes_stream_from_disk_and_resume_as_one_does(
    start, tmp_path, monkeypatch
):
    images = write_imagenet(tmp_path / "images")
    monkeypatch.setenv("IMAGES", str(images))
    for steps in (5, 9):
        words = (WORKER, "streamed", tmp_path / "ck", tmp_path)
        finished(start(words, STEPS=str(steps), IMAGES=str(images)))
    state, answers, facts = result(tmp_path)
    assert_equal_results(result(tmp_path, 0), result(tmp_path, 1))

    from train_in_two_processes import CASES

    case = {"devices": 4, "batch_size": 8, "seed": 7, "noise_seed": "fixed"}
    alone = fit(**CASES["streamed"](), **case, steps=9)
    assert_close(np.asarray(ravel_pytree(alone.state)[0]), state, rtol=1e-3, atol=1e-4)
    own = alone.answers(CASES["streamed"]()["records"])
    assert_close(own, answers, rtol=1e-3, atol=1e-3)
    assert_close(alone.history, facts["history"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_secret_noise_is_one_secret_for_all_processes(start, tmp_path):
    """With a secret of its own for each, the replicas would drift apart."""
    words = (WORKER, "DP-SGD", tmp_path / "ck", tmp_path)
    finished(start(words, STEPS="4", NOISE_SEED="secret"))
    assert_equal_results(result(tmp_path, 0), result(tmp_path, 1))


# --------------------------------------------------------------------- the command line

TINY = ("--train-records", "128", "--epochs", "1", "--batch-size", "32")


@pytest.mark.slow
def test_the_commands_run_in_two_processes_of_which_one_speaks(start, tmp_path):
    """Trained in two and evaluated in two; the second writes and prints nothing."""
    out = tmp_path / "out"
    words = (*CLI, "train", *TINY, "--method", "plain", "--out", out, "--resume")
    first, second = finished(start(words))
    assert "2 processes with 4 cpu devices" in first
    assert "written: " in first
    assert said(second) == ""
    results = json.loads((out / "results.json").read_text())
    assert results["device"]["processes"] == 2
    assert results["device"]["count"] == 4
    first, second = finished(start((*CLI, "evaluate", out)))
    accuracy = results["methods"][0]["utility"]["test_accuracy"]["value"]
    assert f"{100 * accuracy:.1f} %" in first
    assert said(second) == ""


def said(text):
    """What rpjax printed; the transport below it has words of its own."""
    return "".join(re.sub(r"\[Gloo\] [^\n]*\n", "", text).split())


OFTEN = """
import sys
from rpjax.cli import program
from rpjax.training.checkpoints import Checkpoints
Checkpoints.due = lambda self: True
sys.exit(program())
"""


@pytest.mark.slow
def test_sigterm_to_one_command_ends_all_with_75_and_says_so_once(start, tmp_path):
    out = tmp_path / "out"
    words = ("train", *TINY[:2], "--batch-size", "32", "--epochs", "100000")
    words = ("-c", OFTEN, *words, "--method", "plain", "--out", out, "--resume")
    for attempt in range(2):  # and goes on from there
        processes = start(words)
        before = saved(out)
        deadline = time.monotonic() + 120
        while saved(out) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        processes[1 - attempt].terminate()
        _, errors, codes = ended(processes)
        assert codes == [75, 75], errors
        assert f"stopped by SIGTERM after step {max(saved(out))} of" in errors[0]
        assert "add --resume to the command" in errors[0]
        assert said(errors[1]) == ""
    assert min(saved(out)) > max(before)


def saved(out):
    return {int(p.name) for p in out.glob("checkpoints/plain/*") if p.name.isdigit()}


@pytest.mark.slow
def test_what_one_process_refuses_ends_both_with_one_line(start, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    _, errors, codes = ended(start((*CLI, "train", *TINY, "--out", tmp_path)))
    assert codes == [2, 2]
    assert said(errors[0]).startswith(said("rpjax: error: out is "))
    assert said(errors[1]) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "words"),
    [
        (0, "process 0 of 2 waited 2 s for the other 1 at {}, and not all have come"),
        (1, "process 1 of 2 waited 2 s for process 0 at {}, which does not answer"),
    ],
)
def test_a_process_that_never_comes_is_told_in_one_line(start, tmp_path, who, words):
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    _, (error,), codes = ended(
        start(
            (*CLI, "train", "--out", tmp_path / "out"),
            who=(who,),
            RPJAX_DISTRIBUTED_SECONDS="2",
            JAX_COORDINATOR_ADDRESS=address,
        )
    )
    assert codes == [2]
    assert time.monotonic() - began < 60
    (line,) = error.splitlines()
    assert line.startswith(f"rpjax: error: {words.format(address)}")
    assert line.endswith("or wait longer with RPJAX_DISTRIBUTED_SECONDS")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_process_that_fails_alone_does_not_keep_the_other_waiting(start, tmp_path):
    """A bug in one process: both end, with an error, in much less than JAX's 300 s."""
    code = (
        "import sys, jax, rpjax.cli, rpjax.experiments\n"
        "c = sys.modules['rpjax.experiments.compare']\n"
        "def broken(*_):\n"
        "    if jax.process_index() == 1: raise ZeroDivisionError('only here')\n"
        "    return real(*_)\n"
        "real, c.measured = c.measured, broken\n"
        "sys.exit(rpjax.cli.program())\n"
    )
    words = ("train", *TINY, "--method", "plain", "--out", tmp_path / "out")
    began = time.monotonic()
    _, errors, codes = ended(start(("-c", code, *words)))
    assert time.monotonic() - began < 150
    assert codes[1] == 1
    assert "ZeroDivisionError: only here" in errors[1]
    assert codes[0] != 0
