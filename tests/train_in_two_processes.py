"""One process of several that train together, for test_hosts.py.

Arguments: what to train, the checkpoint folder, the folder for the result. Who it is
comes from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; without them
it trains alone. Prints "training" when the first step is done. STEPS,
CHECKPOINT_SECONDS and NOISE_SEED come from the environment.

A case is a function that returns what `fit` takes; to add one, put it into CASES.
"""

import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from stored_images import stored
from support import Dense, records
from train_and_be_killed import Teller

import rpjax
from rpjax.learners import Inputs, dpsgd, ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.training import clock, fit

TX = optax.sgd(0.1, momentum=0.9)
DATA = 48


def one():
    return supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))


def private():
    """In one way, and not the one that measures fastest: trainings are compared."""
    return dpsgd(
        Dense(Additive(0.5)),
        TX,
        clip_norm=1.0,
        noise_multiplier=1.0,
        batch_size=8,
        engine="bookkeeping",
    )


def own_lists():
    """Two members over two processes, each on its own part of the records."""
    lists = [np.random.default_rng(i).permutation(DATA)[:32] for i in range(2)]
    return {
        "learner": ensemble(one(), 2),
        "lists": np.stack(lists),
        "devices": "member=2,data=2",
    }


def streamed():
    """Records on disk, in the folder IMAGES: each process decodes its own slots."""
    return {"learner": one(), "records": stored(os.environ["IMAGES"]).train}


CASES = {
    "DP-SGD": lambda: {"learner": private()},
    "ensemble on own lists": own_lists,
    "streamed": streamed,
}


def main(name, checkpoints, result):
    rpjax.distributed.initialize(timeout_seconds=60)
    clock.SECONDS_PER_CALL = 0.02  # many calls, so that a signal may come anywhere
    case = {"records": records(DATA), "devices": 4, **CASES[name]()}
    run = fit(
        **case,
        batch_size=8,
        steps=int(os.environ["STEPS"]),
        seed=7,
        noise_seed=os.getenv("NOISE_SEED", "fixed"),
        checkpoints=Path(checkpoints),
        checkpoint_seconds=float(os.getenv("CHECKPOINT_SECONDS", "0")),
        report=Teller(),
    )
    answers = run.answers(case["records"])
    seconds = run.stopwatch and run.stopwatch(2)
    facts = {
        "guarantee": repr(run.guarantee()),
        "steps": run.steps,
        "history": run.history,
        "timed": seconds is None or seconds > 0,
        "processes": jax.process_count(),
    }
    state = np.asarray(ravel_pytree(jax.device_get(run.state))[0])
    np.savez(
        Path(result) / f"result{jax.process_index()}.npz",
        state=state,
        answers=answers,
        facts=json.dumps(facts),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
