"""One training of digits with checkpoints, as a process of its own, for test_faults.py.

Arguments: what to train, the checkpoint folder, the file for the result. Prints
"training" when the first step is done, so that its killer knows. STEPS and LARGEST_FILE
(in bytes) come from the environment.
"""

import json
import os
import resource
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from support import Dense

from rpjax.data import load
from rpjax.learners import Inputs, dpsgd, ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.training import clock, fit

TX = optax.sgd(0.1, momentum=0.9)


def one():
    return supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))


LEARNERS = {
    "one net": one,
    "ensemble": lambda: ensemble(one(), 3),
    "DP-SGD": lambda: dpsgd(
        Dense(Additive(0.5)), TX, clip_norm=1.0, noise_multiplier=1.0, batch_size=32
    ),
}


class Teller:
    """Says that training has begun."""

    def advance(self, done, total, examples, info):
        print("training" if done < total else "done", flush=True)


def main(name, checkpoints, result):
    if size := os.environ.get("LARGEST_FILE"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
    clock.SECONDS_PER_CALL = 0.02  # many calls, so that a kill may fall anywhere
    run = fit(
        LEARNERS[name](),
        load("digits").train.take(np.arange(256)),
        batch_size=32,
        steps=int(os.environ["STEPS"]),
        seed=7,
        noise_seed="fixed",
        checkpoints=Path(checkpoints),
        checkpoint_seconds=0.0,
        report=Teller(),
    )
    flat = np.asarray(ravel_pytree(jax.device_get(run.state))[0])
    facts = {
        "guarantee": repr(run.guarantee()),
        "steps": run.steps,
        "history": run.history,
    }
    np.savez(result, state=flat, facts=json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
